"""What can't run is told at once: every error, each with its pointer, what was expected and what came."""

from typing import Any

import pytest

from core.data.manifest import Manifest
from core.errors import Invalid
from core.nets.plan import Source, check
from modelyard.specs import ProblemError
from tests.manifests import arrays, images, table
from tests.prepared import manifest_of

FLATTEN: dict[str, Any] = {"type": "Flatten"}
LINEAR: dict[str, Any] = {"type": "Linear", "out_features": 10}
CONV: dict[str, Any] = {"type": "Conv2d", "out_channels": 4, "kernel_size": 5}


def job(layers: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    model = {"type": "Sequential", "layers": [FLATTEN, LINEAR] if layers is None else layers}
    return {"name": "m", "dataset": "d", "model": model} | fields


def refused(raw: object, manifest: Manifest | None = None) -> list[ProblemError]:
    with pytest.raises(Invalid) as caught:
        check(raw, Source("d@1", manifest or images()))
    assert caught.value.errors
    return caught.value.errors


def pointers(raw: object, manifest: Manifest | None = None) -> list[str]:
    return [error.pointer for error in refused(raw, manifest)]


def test_a_linear_that_does_not_fit_is_named_with_what_came_and_what_it_wants() -> None:
    (error,) = refused(job([FLATTEN, {"type": "Linear", "in_features": 10, "out_features": 10}]))
    assert error.pointer == "/model/layers/1"
    assert error.code == "shape"
    assert "in_features=10" in error.message
    assert "[64, 784] came from layer 0 (Flatten)" in error.message
    assert "Set in_features to 784, or leave it out" in error.message


def test_the_pointer_goes_down_into_nested_layers() -> None:
    nested = {"type": "Sequential", "layers": [{"type": "ReLU"}, {"type": "BatchNorm1d", "num_features": 3}]}
    (error,) = refused(job([FLATTEN, nested, LINEAR]))
    assert error.pointer == "/model/layers/1/layers/1"


@pytest.mark.parametrize(
    ("layers", "pointer", "word"),
    [
        ([FLATTEN, CONV], "/model/layers/1", "[batch, channels, height, width]; [64, 784] came"),
        ([{"type": "BatchNorm1d"}], "/model/layers/0", "[64, 1, 28, 28] came from the dataset"),
        (
            [CONV, {"type": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3}],
            "/model/layers/1",
            "in_channels",
        ),
        ([{"type": "MaxPool2d", "kernel_size": 20}, CONV], "/model/layers/1", "[64, 1, 1, 1]"),
        ([{"type": "MaxPool2d", "kernel_size": 40}], "/model/layers/0", "[64, 1, 28, 28]"),
        ([{"type": "Conv2d", "out_channels": 4, "kernel_size": 3, "groups": 3}], "/model/layers/0", "groups"),
        ([{"type": "Dropout", "p": 1.5}], "/model/layers/0", "between 0 and 1"),
        ([{"type": "Flatten", "start_dim": 7}], "/model/layers/0", "Dimension out of range"),
        ([{"type": "Flatten", "start_dim": 0}], "/model/layers/0", "rows of the batch"),
        ([CONV, LINEAR], "/model/layers/1", "Put a Flatten before"),
        ([FLATTEN, {"type": "Linear", "out_features": 9}], "/model/layers/1", "[64, 10]"),
        ([FLATTEN], "/model/layers/0", "10 classes"),
    ],
)
def test_the_layer_that_does_not_fit_is_pointed_at(layers: list[Any], pointer: str, word: str) -> None:
    (error,) = refused(job(layers))
    assert error.pointer == pointer
    assert word in error.message


def test_batch_norm_over_single_rows_is_refused_before_it_trains() -> None:
    raw = job([FLATTEN, {"type": "BatchNorm1d"}, LINEAR], trainer={"batch_size": 1})
    (error,) = refused(raw)
    assert error.pointer == "/model/layers/1"
    assert "more than 1 value per channel" in error.message


def test_a_layer_that_writes_over_what_a_gradient_needs_is_refused() -> None:
    spoils = [FLATTEN, LINEAR, {"type": "Sigmoid"}, {"type": "ReLU", "inplace": True}, LINEAR]
    (error,) = refused(job(spoils))
    assert error.pointer == "/model/layers/3"
    assert "leave inplace out" in error.message
    harmless = [FLATTEN, LINEAR, {"type": "ReLU", "inplace": True}, LINEAR]
    assert check(job(harmless), Source("d@1", images())).plan.parameters > 0


def test_a_net_without_parameters_has_nothing_to_train() -> None:
    assert pointers(job([FLATTEN]), arrays([10], classes=[str(i) for i in range(10)])) == ["/model"]


def test_every_kind_of_error_comes_in_one_answer() -> None:
    raw = job(
        [FLATTEN, {"type": "Liner", "out_features": 3}, {"type": "ReLU", "inplce": True}],
        name="NOT VALID",
        epochs=3,
        trainer={"epochs": 0, "batch_size": "64", "checkpoint": {"mode": "least", "monitor": "val_los"}},
        loss={"type": "CrossEntropy"},
        optimizer={"type": "SGD", "lr": -1},
        scheduler={"type": "StepLR"},
        transforms={"train": [{"type": "RandomRotation"}]},
        metrics=["acuracy"],
        target="labels",
    )
    assert set(pointers(raw)) == {
        "/name",
        "/epochs",
        "/trainer/epochs",
        "/trainer/batch_size",
        "/trainer/checkpoint/mode",
        "/loss/type",
        "/optimizer",
        "/scheduler",
        "/model/layers/1/type",
        "/model/layers/2/inplce",
        "/target",
        "/metrics/0",
        "/transforms/train/0",
    }


@pytest.mark.parametrize("raw", [None, 3, "spec", [], [{}]])
def test_a_spec_that_is_no_object_is_refused_at_its_root(raw: object) -> None:
    assert pointers(raw) == [""]


def test_required_fields_that_are_missing_are_named() -> None:
    messages = " ".join(error.message for error in refused({}))
    for name in ("name", "dataset", "model"):
        assert f'"{name}"' in messages


def test_a_model_may_not_be_called_as_a_route_of_the_api() -> None:
    (error,) = refused(job(name="stats"))
    assert (error.pointer, error.code) == ("/name", "reserved")


def test_an_unknown_field_is_told_the_near_one() -> None:
    (error,) = refused(job(optimiser={"type": "SGD"}))
    assert error.pointer == "/optimiser"
    assert 'Did you mean "optimizer"?' in error.message


@pytest.mark.parametrize(
    "model", [{}, [], None, "resnet", {"type": "Sequential"}, {"type": "Sequential", "layers": []}]
)
def test_a_model_that_is_none_is_refused(model: object) -> None:
    (error,) = refused(job(model=model))
    assert error.pointer.startswith("/model")


@pytest.mark.parametrize(
    ("field", "component", "word"),
    [
        ("optimizer", {"type": "SGD", "lr": -0.1}, "Invalid learning rate"),
        ("optimizer", {"type": "SGD", "nesterov": True}, "Nesterov"),
        ("optimizer", {"type": "Adam", "betas": [0.9, 1.5]}, "beta"),
        ("optimizer", {"type": "SGD", "fused": True, "foreach": True}, "fused"),
        ("loss", {"type": "CrossEntropyLoss", "label_smoothing": 2}, "label_smoothing"),
    ],
)
def test_what_torch_refuses_is_told_in_its_words(field: str, component: dict[str, Any], word: str) -> None:
    (error,) = refused(job(**{field: component}))
    assert error.pointer == f"/{field}"
    assert word in error.message


def test_a_schedule_with_no_step_size_is_refused_at_its_keyword() -> None:
    assert pointers(job(scheduler={"type": "StepLR", "step_size": 0})) == ["/scheduler/step_size"]
    assert pointers(job(scheduler={"type": "CosineAnnealingLR", "T_max": 5, "interval": "week"})) == [
        "/scheduler/interval"
    ]


def test_what_is_monitored_must_be_measured() -> None:
    (error,) = refused(job(trainer={"checkpoint": {"monitor": "val_mae"}}))
    assert error.pointer == "/trainer/checkpoint/monitor"
    assert "val_accuracy" in error.message
    (error,) = refused(job(metrics=["accuracy", "mae"]))
    assert error.pointer == "/metrics/1"


def test_differing_image_sizes_without_a_resize_are_named() -> None:
    (error,) = refused(job(), images(sizes=[(28, 28, 900), (32, 30, 100)]))
    assert "28 x 28 (900)" in error.message
    assert "32 x 30 (100)" in error.message
    assert '"Resize", "size": [28, 28]' in error.message


def test_a_resize_of_the_shorter_side_leaves_other_ratios_differing() -> None:
    raw = job(transforms={"train": [{"type": "Resize", "size": 8}]})
    (error,) = refused(raw, images(sizes=[(28, 28, 900), (32, 16, 100)]))
    assert error.code == "image_sizes"


def test_a_resize_after_what_makes_floats_comes_too_late_for_predictions_of_differing_sizes() -> None:
    resize, before = {"type": "Resize", "size": [8, 8]}, {"type": "Normalize", "mean": [0.5], "std": [0.5]}
    differing = images(sizes=[(28, 28, 900), (32, 16, 100)])
    (error,) = refused(job(transforms={"train": [before, resize]}), differing)
    assert (error.pointer, error.code) == ("/transforms/train", "image_sizes")
    assert "give eval a list of its own" in error.message
    check(job(transforms={"train": [resize, before]}), Source("d@1", differing))


def test_an_image_is_no_target() -> None:
    (error,) = refused(job(target="image"))
    assert (error.pointer, error.code) == ("/target", "wrong_kind")


def test_a_sequence_is_asked_for_in_its_own_axes() -> None:
    (error,) = refused(job([{"type": "LSTM", "hidden_size": 3}, LINEAR]), table())
    assert error.pointer == "/model/layers/0"
    assert "LSTM expects [batch, steps, features]" in error.message


def test_a_parameter_that_a_layer_lacks_is_told_with_the_names_that_it_has() -> None:
    conv = CONV | {"bias": False}
    entry = {"type": "zeros_", "layer": "Conv2d", "parameter": "bias"}
    (error,) = refused(job([conv, FLATTEN, LINEAR], initialize=[entry]))
    assert error.message.endswith("Its names end with: weight.")


def test_whole_numbers_taken_for_classes_are_told_where_the_net_gives_one_number() -> None:
    manifest = manifest_of({"size": [1.5, 2.5, 3.5, 4.5], "rooms": [1, 2, 1, 2]})
    (error,) = refused(job([LINEAR | {"out_features": 1}], target="rooms"), manifest)
    assert 'for a quantity say "task": "regression"' in error.message
    check(job([LINEAR | {"out_features": 1}], target="rooms", task="regression"), Source("d@1", manifest))


@pytest.mark.parametrize(
    ("transforms", "pointer", "word"),
    [
        (
            {"train": [{"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3}]},
            "/transforms/train/0",
            "channels",
        ),
        ({"train": [{"type": "Normalize", "mean": [0.5], "std": [0]}]}, "/transforms/train/0", "zero"),
        (
            {"train": [{"type": "Grayscale", "num_output_channels": 2}]},
            "/transforms/train/0",
            "num_output_channels",
        ),
        ({"train": [{"type": "Resize", "size": [1, 2, 3]}]}, "/transforms/train/0", "one or two integers"),
        ({"train": [{"type": "RandomRotation", "degrees": -3}]}, "/transforms/train/0", "positive"),
        ({"train": [{"type": "ToDtype", "dtype": "uint8"}]}, "/transforms/train", "float32"),
        ({"train": [], "eval": [{"type": "RandomHorizontalFlip"}]}, "/transforms/eval/0", "random"),
        ({"train": [], "eval": [{"type": "Resize", "size": [4, 4]}]}, "/transforms/eval", "[1, 28, 28]"),
        ({"train": [{"type": "Resize", "size": [9000, 9000]}]}, "/transforms/train/0", "pixels"),
        ({"train": [{"type": "RandomRotate", "degrees": 3}]}, "/transforms/train/0/type", "RandomRotation"),
        (
            {"train": [{"type": "RandomRotation", "degrees": 3, "expand": True}]},
            "/transforms/train/0/expand",
            "size",
        ),
    ],
)
def test_transforms_that_cannot_run_are_pointed_at(
    transforms: dict[str, Any], pointer: str, word: str
) -> None:
    (error,) = refused(job(transforms=transforms))
    assert error.pointer == pointer
    assert word in error.message


def test_transforms_of_a_table_and_prepare_of_images_are_refused() -> None:
    assert pointers(job([LINEAR], transforms={"train": [{"type": "Grayscale"}]}), table()) == [
        "/transforms/train"
    ]
    assert pointers(job(prepare=[{"type": "Standardize", "columns": "*"}])) == ["/prepare"]


def test_an_output_of_the_wrong_count_for_a_regression_is_refused_at_the_last_layer() -> None:
    (error,) = refused(job([LINEAR]), table())
    assert error.pointer == "/model/layers/0"
    assert "[64, 1]" in error.message


def test_a_loss_for_another_task_is_refused() -> None:
    assert pointers(job(task="classification", loss={"type": "MSELoss"})) == ["/loss/type"]


def test_a_dataset_without_training_rows_is_refused() -> None:
    assert pointers(job(), images(splits={"test": 100})) == ["/dataset"]


def test_arrays_of_single_numbers_are_refused_rather_than_taken_for_a_batch_of_one_row() -> None:
    assert pointers(job([LINEAR]), arrays([], classes=["a", "b"])) == ["/inputs"]


@pytest.mark.parametrize(
    ("fields", "pointer", "names", "nearest"),
    [
        ({"task": "regresion"}, "/task", ["classification", "regression", "multilabel"], "regression"),
        ({"trainer": {"precision": "bfloat16"}}, "/trainer/precision", ["auto", "fp32", "bf16"], "bf16"),
        ({"trainer": {"device": "gpu"}}, "/trainer/device", ["auto", "cpu", "cuda"], "cpu"),
    ],
)
def test_a_word_that_is_none_of_the_choices_is_told_with_all_of_them_and_the_nearest(
    fields: dict[str, Any], pointer: str, names: list[str], nearest: str
) -> None:
    (error,) = [error for error in refused(job(**fields)) if error.pointer == pointer]
    assert all(f'"{name}"' in error.message for name in names)
    assert error.message.endswith(f'came. Did you mean "{nearest}"?')


@pytest.mark.parametrize("kind", [[], {}, None, 3])
def test_a_loss_whose_type_is_no_word_is_told_so(kind: Any) -> None:
    assert pointers(job(loss={"type": kind})) == ["/loss"]


@pytest.mark.parametrize("word", ["name", "share"])
@pytest.mark.parametrize("bad", ["a.b", "a[0]", "ä-b"])
def test_a_name_that_no_module_may_have_is_told_at_its_node(word: str, bad: str) -> None:
    node = {"name": "out", "type": "Flatten", "inputs": ["image"]} | {word: bad}
    model = {"type": "Graph", "nodes": [node], "output": "out"}
    assert f"/model/nodes/0/{word}" in pointers({"name": "m", "dataset": "d", "model": model})


def test_a_metric_that_is_no_word_is_told_beside_a_target_that_is_none() -> None:
    assert pointers(job(target="nothing", metrics=[{"type": []}])) == ["/target", "/metrics/0/type"]


@pytest.mark.parametrize("field", ["model", "loss", "optimizer", "scheduler"])
def test_a_component_given_as_a_word_is_to_be_an_object(field: str) -> None:
    (error,) = [error for error in refused(job() | {field: "Adam"}) if error.pointer == f"/{field}"]
    assert error.message.endswith('"Adam" came. Write {"type": "Adam"}.')


def test_a_sampler_given_as_a_word_is_to_be_an_object_and_metadata_is_no_component() -> None:
    errors = refused(job(trainer={"sampler": "RandomSampler"}, metadata="mine", initialize=["ones_"]))
    hints = {error.pointer: error.message.partition(" came.")[2] for error in errors}
    assert hints == {
        "/trainer/sampler": ' Write {"type": "RandomSampler"}.',
        "/metadata": "",
        "/initialize/0": ' Write {"type": "ones_"}.',
    }


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        ([1, 2], 'is "balanced" or the name of a column; [1, 2] came.'),
        ("hight", 'is "balanced" or the name of a column; "hight" is neither. Did you mean "height"?'),
        ("weighted", "It has 'age', 'height', 'city', 'target'."),
    ],
)
def test_weights_of_a_sampler_are_a_word_or_a_column(weights: object, word: str) -> None:
    sampler = {"type": "WeightedRandomSampler", "weights": weights}
    raw = job([{"type": "Linear", "out_features": 1}], trainer={"sampler": sampler})
    (error,) = refused(raw, table())
    assert error.pointer == "/trainer/sampler/weights"
    assert word in error.message


def test_a_wrong_keyword_of_weights_is_pointed_at() -> None:
    raw = job() | {"model": {"type": "resnet18", "weights": {"uplod": "u"}}}
    found = {error.pointer: error.message for error in refused(raw, images(channels=3))}
    assert list(found) == ["/model/weights/uplod", "/model/weights"]
    assert 'Did you mean "upload"?' in found["/model/weights/uplod"]


def test_a_power_is_written_as_python_writes_it() -> None:
    (error,) = refused(job(scheduler={"type": "LambdaLR", "lr_lambda": "0.95 ^ epoch"}))
    assert error.pointer == "/scheduler/lr_lambda"
    assert "write a power as 0.95 ** epoch" in error.message


def test_a_metric_of_one_label_says_that_it_is_a_classification() -> None:
    manifest = manifest_of({"x": [0.5, 1.5, 2.5, 3.5], "won": [True, False, True, False]})
    raw = job([{"type": "Linear", "out_features": 1}], task="multilabel", metrics=["f1"])
    (error,) = refused(raw, manifest)
    assert error.pointer == "/metrics/0"
    assert 'one yes-or-no column is "task": "classification"' in error.message


def test_a_task_that_nobody_named_is_told_by_its_loss() -> None:
    (error,) = refused(job([LINEAR], loss={"type": "BCEWithLogitsLoss"}), table())
    assert error.pointer == "/target"
    assert error.message.startswith("BCEWithLogitsLoss takes a target of bool or 0 and 1")
    assert "multilabel" not in error.message
    (error,) = refused(job([LINEAR], task="multilabel"), table())
    assert error.message.startswith("A multilabel target is bool or 0 and 1")
