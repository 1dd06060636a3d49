"""From `data.arrow` and a spec to batches: which rows, in which order, with which numbers."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torchvision.transforms.v2 import functional

from core.data.images import decode_image
from core.data.manifest import ColumnStats, Kind, Manifest
from core.data.prepare import resolve_prepare
from core.data.targets import resolve_targets
from core.errors import Invalid
from core.nets.transforms import Pipeline, resolve, without_random
from modelyard.specs import Feature, JobSpec, ProblemError, Split
from modelyard.specs.jobspec import Transforms
from tests.make_data import image_bytes
from workers.batches import Batches
from workers.loaders import Rows, Source, open_rows, raw_instance

CPU = torch.device("cpu")


def write(folder: Path, table: pa.Table, manifest: Manifest) -> None:
    """As ingest leaves them; several record batches, as a large dataset has."""
    with pa.ipc.new_file(str(folder / "data.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def source_of(folder: Path, **fields: Any) -> Source:
    """What an attempt makes of a spec and the two files."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    spec = JobSpec(name="m", dataset="d", model={"type": "Linear"}, **fields)
    errors: list[ProblemError] = []
    targets = resolve_targets(spec, manifest, errors, [])
    assert targets is not None, errors
    components = []
    if manifest.kind is Kind.TABLE:
        components = resolve_prepare(spec.prepare, targets.inputs, manifest, errors).components
    assert errors == []
    train = evaluation = None
    if manifest.features[targets.columns[0]].dtype == "uint8":
        train = Pipeline.from_spec(resolve(spec.transforms.train))
        evaluation = Pipeline.from_spec(resolve(without_random(spec.transforms.train)))
    arrow, cache = folder / "data.arrow", folder / "cache"
    return Source(arrow, manifest, targets, spec.split, components, train, evaluation, cache, 2)


def images_dataset(folder: Path) -> list[bytes]:
    """40 rows of train and 8 of test, two classes by turns."""
    images = [image_bytes(seed, (6, 5)) for seed in range(48)]
    labels = [row % 2 for row in range(48)]
    names = [f"{row}.png" for row in range(48)]
    table = pa.table({"image": pa.array(images, pa.binary()), "label": labels, "file": names})
    manifest = Manifest(
        format="image_folder",
        kind=Kind.IMAGES,
        splits={"train": 40, "test": 8},
        features={"image": Feature("uint8", [1, 5, 6]), "label": Feature("int64", [])},
        data_sha256="a" * 64,
        data_bytes=1,
        classes=["even", "odd"],
        image_mode="L",
        image_sizes=[(5, 6, 48)],
    )
    write(folder, table, manifest)
    return images


CITIES = ["bern", "oslo", "rome"]


def table_columns(rows: int = 30) -> dict[str, Any]:
    random = np.random.default_rng(2)
    return {
        "age": pa.array(random.normal(40, 12, rows)),
        "city": pa.array([CITIES[row % 3] for row in range(rows)]),
        "price": pa.array(random.normal(1e5, 2e4, rows)),
        "kind": pa.array(["house" if row % 3 else "flat" for row in range(rows)]),
    }


def table_dataset(folder: Path, columns: dict[str, Any], splits: dict[str, int]) -> None:
    table = pa.table(columns)
    train = table.slice(0, splits["train"])
    stats, features = {}, {}
    for name in table.column_names:
        column = train.column(name)
        values = sorted(Counter(column.drop_null().to_pylist()).items())
        stats[name] = ColumnStats(len(column), missing=column.null_count, values=values)
        features[name] = Feature({"double": "float64"}.get(str(column.type), str(column.type)), [])
    manifest = Manifest(
        format="table",
        kind=Kind.TABLE,
        splits=splits,
        features=features,
        data_sha256="b" * 64,
        data_bytes=1,
        columns=stats,
    )
    write(folder, table, manifest)


def arrays_dataset(folder: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], **fields: Any) -> None:
    def stored(values: np.ndarray[Any, Any]) -> pa.Array:
        flat = pa.array(values.reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values[0].size) if values.ndim > 1 else flat

    manifest = Manifest(
        format="arrays",
        kind=Kind.ARRAYS,
        splits={"train": len(x) - 5, "test": 5},
        features={"x": Feature(str(x.dtype), list(x.shape[1:])), "y": Feature(str(y.dtype), [*y.shape[1:]])},
        data_sha256="c" * 64,
        data_bytes=1,
        **fields,
    )
    write(folder, pa.table({"x": stored(x), "y": stored(y)}), manifest)


def make_images(folder: Path) -> Source:
    images_dataset(folder)
    return source_of(folder)


def make_table(folder: Path) -> Source:
    table_dataset(folder, table_columns(), {"train": 25, "test": 5})
    return source_of(folder, target="kind")


def make_arrays(folder: Path) -> Source:
    x = np.random.default_rng(0).normal(size=(45, 3)).astype(np.float32)
    y = np.arange(45, dtype=np.int64) % 3
    arrays_dataset(folder, x, y, classes=["a", "b", "c"])
    return source_of(folder)


@pytest.mark.parametrize("make", [make_images, make_table, make_arrays])
def test_rows_of_test_neither_train_nor_validate(make: Callable[[Path], Source], tmp_path: Path) -> None:
    source = make(tmp_path)
    rows = open_rows(source)
    train, validation, test = (set(index.tolist()) for index in (rows.train, rows.validation, rows.test))
    assert test == set(source.manifest.rows_of("test"))
    assert train | validation == set(source.manifest.rows_of("train"))
    assert not train & validation
    assert not test & (train | validation)


def test_images_reach_the_net_as_the_decoder_gave_them_scaled_to_one(tmp_path: Path) -> None:
    images = images_dataset(tmp_path)
    source = source_of(tmp_path)
    rows = open_rows(source)
    batches = Batches(rows.train_inputs, rows.targets, rows.train, source.train, 16, 0, CPU)
    inputs = torch.cat([batch.inputs[0] for batch in batches.in_order()])
    pixels = torch.stack([torch.from_numpy(decode_image(images[row], "L")) for row in rows.train])
    assert torch.allclose(inputs, pixels.float() / 255, atol=1e-7)
    assert torch.cat([batch.targets for batch in batches.in_order()]).tolist() == (rows.train % 2).tolist()


def test_a_resize_is_cached_as_bytes_and_is_torchvisions_own(tmp_path: Path) -> None:
    images = images_dataset(tmp_path)
    resize = {"type": "Resize", "size": [3, 4]}
    rows = open_rows(source_of(tmp_path, transforms=Transforms(train=[resize])))
    expected = functional.resize(torch.from_numpy(decode_image(images[9], "L")), [3, 4])
    assert rows.train_inputs[0].dtype == torch.uint8
    assert torch.equal(rows.train_inputs[0][9], expected)
    assert rows.eval_inputs is rows.train_inputs


def test_train_and_eval_with_other_prefixes_keep_pixels_of_their_own(tmp_path: Path) -> None:
    images_dataset(tmp_path)
    flip_first: list[dict[str, Any]] = [
        {"type": "RandomHorizontalFlip", "p": 1.0},
        {"type": "Resize", "size": [3, 4]},
    ]
    rows = open_rows(source_of(tmp_path, transforms=Transforms(train=flip_first)))
    assert rows.train_inputs[0].shape[-2:] == (5, 6)
    assert rows.eval_inputs[0].shape[-2:] == (3, 4)


def test_a_table_is_fitted_on_the_training_rows_alone(tmp_path: Path) -> None:
    columns = table_columns()
    table_dataset(tmp_path, columns, {"train": 25, "test": 5})
    source = source_of(tmp_path, target="price", inputs=["city", "age"], split=Split(validation=0.2))
    rows = open_rows(source)
    ages, cities = columns["age"].to_numpy()[:, None], np.array(columns["city"].to_pylist())[:, None]
    scaler = StandardScaler().fit(ages[rows.train.numpy()])
    spread = OneHotEncoder(categories=[CITIES], sparse_output=False).fit_transform(cities)
    expected = np.concatenate([spread, scaler.transform(ages)], axis=1)
    assert np.allclose(rows.train_inputs[0].numpy(), expected, atol=1e-6)
    assert rows.targets.dtype == torch.float32
    assert np.array_equal(rows.targets.numpy(), columns["price"].to_numpy().astype(np.float32))


def test_classes_of_a_table_are_indices_into_the_sorted_labels(tmp_path: Path) -> None:
    rows = open_rows(make_table(tmp_path))
    expected = [["flat", "house"].index(value) for value in table_columns()["kind"].to_pylist()]
    assert rows.targets.tolist() == expected


def test_classes_are_validated_in_proportion(tmp_path: Path) -> None:
    images_dataset(tmp_path)
    rows = open_rows(source_of(tmp_path, split=Split(validation=0.25)))
    assert Counter(rows.targets[rows.validation].tolist()) == {0: 5, 1: 5}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_arrays_that_are_no_images_reach_the_net_as_float32(dtype: str, tmp_path: Path) -> None:
    x = (np.random.default_rng(0).normal(size=(20, 2, 3)) * 3).astype(dtype)
    y = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
    arrays_dataset(tmp_path, x, y)
    rows = open_rows(source_of(tmp_path))
    assert rows.train_inputs[0].dtype == torch.float32
    assert np.array_equal(rows.train_inputs[0].numpy(), x.astype(np.float32))
    assert np.array_equal(rows.targets.numpy(), y)


@pytest.mark.parametrize(("shape", "row"), [((20, 4, 3), (1, 4, 3)), ((20, 3, 4, 3), (3, 4, 3))])
def test_arrays_of_bytes_are_images(shape: tuple[int, ...], row: tuple[int, ...], tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    arrays_dataset(tmp_path, x, np.arange(20, dtype=np.int64) % 2, classes=["a", "b"])
    rows = open_rows(source_of(tmp_path))
    assert rows.train_inputs[0].dtype == torch.uint8
    assert np.array_equal(rows.train_inputs[0].numpy(), x.reshape(20, *row))


def test_the_prefix_of_images_in_arrays_is_that_of_each_alone_and_is_cached(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (300, 9, 8, 3), dtype=np.uint8)
    arrays_dataset(tmp_path, x, np.arange(300, dtype=np.int64) % 2, classes=["a", "b"])
    resize = {"type": "Resize", "size": [5, 6]}
    for _ in range(2):
        rows = open_rows(source_of(tmp_path, transforms=Transforms(train=[resize])))
        for row in (0, 255, 256, 299):
            alone = functional.resize(torch.from_numpy(x[row]).permute(2, 0, 1).contiguous(), [5, 6])
            assert torch.equal(rows.train_inputs[0][row], alone)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_images_in_arrays_with_their_channels_last_are_turned(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    arrays_dataset(tmp_path, x, np.arange(20, dtype=np.int64) % 2, classes=["a", "b"])
    rows = open_rows(source_of(tmp_path))
    assert np.array_equal(rows.train_inputs[0].numpy(), x.transpose(0, 3, 1, 2))


def test_an_instance_is_what_a_user_would_send(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("images", "table", "arrays")]
    for folder in folders:
        folder.mkdir()
    images = images_dataset(folders[0])
    manifest = make_images(folders[0]).manifest
    assert raw_instance(folders[0] / "data.arrow", manifest, ["image"], 17) == images[17]
    manifest = make_table(folders[1]).manifest
    columns = table_columns()
    row = raw_instance(folders[1] / "data.arrow", manifest, ["city", "age"], 17)
    assert row == {"city": columns["city"][17].as_py(), "age": columns["age"][17].as_py()}
    x = np.random.default_rng(0).normal(size=(20, 2, 3))
    arrays_dataset(folders[2], x, np.zeros(20))
    manifest = source_of(folders[2]).manifest
    assert raw_instance(folders[2] / "data.arrow", manifest, ["x"], 17) == x[17].tolist()


def with_null(values: Any, row: int) -> pa.Array:
    return pa.array([None if place == row else value for place, value in enumerate(values.to_pylist())])


def test_an_input_that_only_another_split_lacks_is_refused_by_name(tmp_path: Path) -> None:
    columns = table_columns()
    table_dataset(tmp_path, columns | {"age": with_null(columns["age"], 27)}, {"train": 25, "val": 5})
    with pytest.raises(Invalid, match="the input 'age' is missing in a row of val or test"):
        open_rows(source_of(tmp_path, target="price"))
    filled = source_of(tmp_path, target="price", prepare=[{"type": "Impute"}, {"type": "Standardize"}])
    assert torch.isfinite(open_rows(filled).eval_inputs[0]).all()


def test_a_missing_value_in_train_is_filled_without_being_asked(tmp_path: Path) -> None:
    columns = table_columns()
    table_dataset(tmp_path, columns | {"age": with_null(columns["age"], 3)}, {"train": 25, "test": 5})
    rows = open_rows(source_of(tmp_path, target="price", inputs=["age"]))
    assert abs(rows.train_inputs[0][3].item()) < 1e-6  # the mean, standardized


@pytest.mark.parametrize(
    ("target", "change", "words"),
    [
        ("price", lambda values: with_null(values, 27), "'price' has missing values"),
        ("kind", lambda values: with_null(values, 27), "'kind' is missing in row 27"),
        ("kind", lambda values: pa.array([*values.to_pylist()[:29], "barn"]), r"lacks: \['barn'\]"),
    ],
)
def test_a_target_that_another_split_lacks_or_invents_is_refused(
    target: str, change: Callable[[Any], pa.Array], words: str, tmp_path: Path
) -> None:
    columns = table_columns()
    table_dataset(tmp_path, columns | {target: change(columns[target])}, {"train": 25, "test": 5})
    with pytest.raises(Invalid, match=words):
        open_rows(source_of(tmp_path, target=target))


def test_opening_a_dataset_again_gives_the_same_rows(tmp_path: Path) -> None:
    first: Rows = open_rows(make_images(tmp_path))
    again = open_rows(source_of(tmp_path))
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.train_inputs[0], again.train_inputs[0])
    assert len(list((tmp_path / "cache").iterdir())) == 1
