"""Plans: every default filled in, sizes inferred, counts that equal torch's own."""

from typing import Any

import msgspec
import pytest
import torch

from core.data.manifest import Manifest
from core.errors import Invalid
from core.nets.build import build_net
from core.nets.plan import Checked, Source, check
from core.nets.steps import steps_per_epoch
from modelyard.specs import JobSpec
from tests.manifests import arrays, images, table
from tests.prepared import manifest_of

MLP = [
    {"type": "Flatten"},
    {"type": "Linear", "out_features": 512},
    {"type": "ReLU"},
    {"type": "Linear", "out_features": 512},
    {"type": "ReLU"},
    {"type": "Linear", "out_features": 10},
]
CNN = [
    {"type": "Conv2d", "out_channels": 16, "kernel_size": 3, "padding": 1, "bias": False},
    {"type": "BatchNorm2d"},
    {"type": "ReLU"},
    {"type": "MaxPool2d", "kernel_size": 2},
    {"type": "Flatten"},
    {"type": "Dropout", "p": 0.2},
    {"type": "Linear", "out_features": 10},
]


def job(layers: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"name": "m", "dataset": "d", "model": {"type": "Sequential", "layers": layers}} | fields


def plan(raw: dict[str, Any], manifest: Manifest) -> Checked:
    return check(raw, Source("d@3", manifest))


def test_a_small_job_comes_back_with_every_default_and_inferred_size() -> None:
    checked = plan(job(MLP), images())
    spec = checked.spec
    assert spec["dataset"] == "d@3"
    assert spec["task"] == "classification"
    assert spec["inputs"] == ["image"]
    assert spec["target"] == "label"
    assert spec["model"]["layers"][1] == {
        "type": "Linear",
        "in_features": 784,
        "out_features": 512,
        "bias": True,
    }
    assert spec["loss"]["type"] == "CrossEntropyLoss"
    assert spec["optimizer"]["type"] == "AdamW"
    assert spec["optimizer"]["lr"] == 0.001
    assert spec["scheduler"] is None
    assert spec["metrics"] == ["accuracy"]
    assert spec["trainer"]["batch_size"] == 64
    to_float = {"type": "ToDtype", "dtype": "float32", "scale": True}
    assert spec["transforms"] == {"train": [to_float], "eval": [to_float]}
    assert checked.plan.spec is spec


def test_layers_carry_path_shape_and_parameters() -> None:
    layers = plan(job(MLP), images()).plan.layers
    assert [layer.path for layer in layers] == ["0", "1", "2", "3", "4", "5"]
    assert [layer.output_shape for layer in layers][:2] == [[64, 784], [64, 512]]
    assert [layer.parameters for layer in layers] == [0, 401_920, 0, 262_656, 0, 5_130]


def test_paths_are_the_prefixes_of_state_dict_keys() -> None:
    raw = job([{"type": "Flatten"}, {"type": "Sequential", "layers": MLP[1:]}])
    checked = plan(raw, images())
    keys = build_net(checked.spec["model"]).state_dict()
    weighted = {layer.path for layer in checked.plan.layers if layer.parameters}
    assert weighted == {key.rpartition(".")[0] for key in keys} == {"1.0", "1.2", "1.4"}


@pytest.mark.parametrize(("layers", "channels"), [(MLP, 1), (CNN, 3)])
def test_parameters_are_those_of_the_net_that_is_built(layers: list[dict[str, Any]], channels: int) -> None:
    checked = plan(job(layers), images(channels=channels))
    net = build_net(checked.spec["model"])
    assert checked.plan.parameters == sum(p.numel() for p in net.parameters())
    assert checked.plan.trainable == checked.plan.parameters


def test_the_resolved_spec_checked_again_is_the_same() -> None:
    fields = {
        "transforms": {"train": [{"type": "RandomRotation", "degrees": 10}, {"type": "Grayscale"}]},
        "scheduler": {"type": "CosineAnnealingLR", "T_max": 5},
        "optimizer": {"type": "SGD", "lr": 0.1},
    }
    once = plan(job(CNN, **fields), images(channels=3)).spec
    again = plan(once, images(channels=3)).spec
    assert again == once
    assert msgspec.to_builtins(msgspec.convert(once, JobSpec)) == once


def test_checking_does_not_change_the_spec_that_came() -> None:
    raw = job(CNN, transforms={"train": [{"type": "Grayscale"}]})
    before = msgspec.json.encode(raw)
    plan(raw, images(channels=3))
    assert msgspec.json.encode(raw) == before


def test_checking_draws_nothing_from_torch_s_generator() -> None:
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    plan(job(CNN, transforms={"train": [{"type": "RandomRotation", "degrees": 10}]}), images(channels=3))
    assert torch.equal(torch.rand(2), expected)


def test_eval_left_out_is_train_without_its_random_transforms() -> None:
    train = [
        {"type": "Resize", "size": [14, 14]},
        {"type": "RandomHorizontalFlip"},
        {"type": "Normalize", "mean": [0.1], "std": [0.3]},
    ]
    resolved = plan(job(MLP, transforms={"train": train}), images()).plan.transforms
    assert [c["type"] for c in resolved.train] == ["Resize", "RandomHorizontalFlip", "ToDtype", "Normalize"]
    assert [c["type"] for c in resolved.eval] == ["Resize", "ToDtype", "Normalize"]


def test_images_of_differing_sizes_meet_in_one_after_a_resize() -> None:
    sizes = [(20, 30, 50), (30, 20, 40), (7, 9, 10)]
    fields = {"transforms": {"train": [{"type": "Resize", "size": [8, 8]}]}}
    layers = plan(job(MLP, **fields), images(sizes=sizes)).plan.layers
    assert layers[0].output_shape == [64, 64]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("has_batch_norm", [False, True])
@pytest.mark.parametrize(
    ("rows", "batch_size", "kept", "dropped", "merged"),
    [(100, 10, 10, 10, 10), (101, 10, 11, 10, 10), (102, 10, 11, 10, 11), (5, 10, 1, 1, 1), (1, 10, 1, 1, 1)],
)
def test_steps_count_the_batches_of_an_epoch(
    rows: int, batch_size: int, kept: int, dropped: int, merged: int, drop_last: bool, has_batch_norm: bool
) -> None:
    expected = dropped if drop_last else merged if has_batch_norm else kept
    assert steps_per_epoch(rows, batch_size, drop_last=drop_last, has_batch_norm=has_batch_norm) == expected


def test_a_tenth_of_train_is_set_aside_unless_the_dataset_has_a_val_split() -> None:
    fields = {"trainer": {"batch_size": 100, "epochs": 3}}
    without = plan(job(MLP, **fields), images(splits={"train": 1000, "test": 50})).plan
    assert (without.steps_per_epoch, without.steps) == (9, 27)
    with_val = plan(job(MLP, **fields), images(splits={"train": 1000, "val": 50})).plan
    assert (with_val.steps_per_epoch, with_val.steps) == (10, 30)


def test_a_batch_is_no_larger_than_the_training_rows() -> None:
    layers = plan(job(MLP), images(splits={"train": 20})).plan.layers
    assert layers[0].output_shape == [18, 784]


def test_a_table_reaches_the_net_as_its_prepared_columns() -> None:
    checked = plan(job([{"type": "Linear", "out_features": 1}]), table())
    assert checked.spec["task"] == "regression"
    assert checked.spec["loss"]["type"] == "MSELoss"
    assert checked.spec["metrics"] == ["r2", "mae"]
    assert checked.spec["inputs"] == ["age", "height", "city"]
    # two numbers and a column of two cities
    assert checked.spec["model"]["layers"][0]["in_features"] == 4
    assert [component["type"] for component in checked.spec["prepare"]]
    assert checked.spec["transforms"] == {"train": [], "eval": []}


def test_a_regression_may_end_with_a_column_or_a_row_of_numbers() -> None:
    for end in ([], [{"type": "Flatten", "start_dim": 0}]):
        plan(job([{"type": "Linear", "out_features": 1}, *end]), table())


def test_uint8_matrices_in_arrays_are_images_of_one_channel() -> None:
    checked = plan(job(CNN), arrays([8, 8], "uint8", classes=[str(i) for i in range(10)]))
    assert checked.spec["model"]["layers"][0]["in_channels"] == 1
    assert checked.spec["transforms"]["train"][0]["type"] == "ToDtype"


def test_images_in_arrays_may_have_their_channels_last() -> None:
    checked = plan(job(CNN), arrays([8, 9, 3], "uint8", classes=[str(i) for i in range(10)]))
    assert checked.spec["model"]["layers"][0]["in_channels"] == 3


def test_float_arrays_reach_the_net_as_they_are() -> None:
    checked = plan(job([{"type": "Linear", "out_features": 3}]), arrays([5], classes=["a", "b", "c"]))
    assert checked.spec["model"]["layers"][0]["in_features"] == 5
    assert checked.spec["transforms"]["train"] == []


def test_a_single_layer_is_a_net() -> None:
    raw = job([]) | {"model": {"type": "Linear", "out_features": 1}}
    checked = plan(raw, table())
    assert [layer.path for layer in checked.plan.layers] == [""]
    assert list(build_net(checked.spec["model"]).state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("layers", "word"),
    [
        ([*MLP, {"type": "Softmax"}], "Softmax before CrossEntropyLoss"),
        ([*MLP, {"type": "ReLU"}], "ReLU before CrossEntropyLoss"),
        ([MLP[0], MLP[1], MLP[5]], "two linear maps are one"),
    ],
)
def test_a_spec_that_runs_but_learns_badly_is_warned(layers: list[dict[str, Any]], word: str) -> None:
    warnings = plan(job(layers), images()).plan.warnings
    assert len(warnings) == 1
    assert word in warnings[0]


def test_a_sound_spec_has_no_warnings() -> None:
    assert plan(job(MLP), images()).plan.warnings == []
    assert plan(job(CNN), images(channels=3)).plan.warnings == []


def test_classes_without_training_rows_are_named() -> None:
    manifest = images(classes=["a", "b", "c"], class_counts={"train": [5, 0, 7]})
    warnings = plan(job([{"type": "Flatten"}, {"type": "Linear", "out_features": 3}]), manifest).plan.warnings
    assert "'b'" in warnings[0]


def test_a_class_without_training_rows_is_not_missed_once_it_is_merged_with_another() -> None:
    manifest = images(classes=["a", "b", "c"], class_counts={"train": [5, 0, 7]})
    layers = [{"type": "Flatten"}, {"type": "Linear", "out_features": 2}]
    merged = [{"type": "Map", "labels": ["a", "b"], "to": "ab"}]
    assert plan(job(layers, target_transform=merged), manifest).plan.warnings == []
    merged = [{"type": "Map", "labels": ["a", "c"], "to": "ac"}]
    assert "'b'" in plan(job(layers, target_transform=merged), manifest).plan.warnings[0]


def test_more_parameters_than_allowed_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        check(job(MLP), Source("d@3", images()), max_parameters=500_000)
    assert [error.pointer for error in caught.value.errors] == ["/model/layers/3"]
    assert "500000" in caught.value.errors[0].message


def test_a_batch_larger_than_the_data_is_warned_of_where_the_last_is_dropped() -> None:
    trainer = {"batch_size": 2000, "drop_last": True}
    (warning,) = plan(job(MLP, trainer=trainer), images()).plan.warnings
    assert warning.startswith("/trainer/drop_last: ")
    assert "one batch of all 900" in warning
    assert plan(job(MLP, trainer=trainer | {"batch_size": 900}), images()).plan.warnings == []


def test_a_milestone_past_the_end_is_warned_of() -> None:
    parts = [{"type": "ConstantLR", "factor": 0.5}, {"type": "ExponentialLR", "gamma": 0.9}]
    late = {"type": "SequentialLR", "schedulers": parts, "milestones": [4]}
    (warning,) = plan(job(MLP, scheduler=late, trainer={"epochs": 4}), images()).plan.warnings
    assert warning.startswith("/scheduler/milestones/0: ")
    assert "ends after 4 epochs" in warning
    assert plan(job(MLP, scheduler=late, trainer={"epochs": 5}), images()).plan.warnings == []
    chained = {"type": "ChainedScheduler", "schedulers": [late]}
    (warning,) = plan(job(MLP, scheduler=chained, trainer={"epochs": 4}), images()).plan.warnings
    assert warning.startswith("/scheduler/schedulers/0/milestones/0: ")


def test_columns_left_out_beside_a_text_are_warned_of() -> None:
    cells = {"age": [1.5, 2.5], "word": ["a", "b"], "review": ["good film", "bad film"], "label": ["x", "y"]}
    layers = [{"type": "Embedding", "embedding_dim": 2}, {"type": "Flatten"}]
    raw = job([*layers, {"type": "Linear", "out_features": 2}])
    manifest = manifest_of(cells, ["review"])
    (warning,) = plan(raw, manifest).plan.warnings
    assert warning.startswith("/inputs: ")
    assert "'age', 'word'" in warning
    assert plan(raw | {"inputs": ["review"]}, manifest).plan.warnings == []


def test_a_string_of_many_values_that_goes_one_hot_unasked_is_warned_of() -> None:
    cells = {"city": [f"c{place}" for place in range(101)], "y": [place / 7 for place in range(101)]}
    raw, manifest = job([{"type": "Linear", "out_features": 1}]), manifest_of(cells)
    (warning,) = plan(raw, manifest).plan.warnings
    assert warning.startswith("/prepare: ")
    assert "'city' becomes 101 features" in warning
    for asked in ({"type": "OneHot"}, {"type": "OneHot", "columns": ["city"]}):
        assert plan(raw | {"prepare": [asked]}, manifest).plan.warnings == []
    fewer = manifest_of({name: cell[:100] for name, cell in cells.items()})
    assert plan(raw, fewer).plan.warnings == []
