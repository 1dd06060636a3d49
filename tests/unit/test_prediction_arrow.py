"""Rows of an Arrow stream, as JSON would have them; and streams that mean harm."""

import contextlib
import datetime as dt
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.data.instances import BadInstance
from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.operations import Imputed, ImputedText
from core.errors import Invalid, ModelyardError, TooLarge
from modelyard.specs import MAX_INSTANCES
from service.prediction_bodies import arrow_cells
from service.prediction_bodies.arrow_rows import rows_of_arrow
from service.prediction_bodies.columns import Takes

NUMBER = FittedColumn("n", "number", [Imputed([40.0])])
STRING = FittedColumn("s", "string", [ImputedText("rome")])
TABLE = Takes(Kind.TABLE, [NUMBER, STRING])
ARRAYS, IMAGES = Takes(Kind.ARRAYS, []), Takes(Kind.IMAGES, [])


def stream(*batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def column(name: str, values: Any, kind: pa.DataType | None = None) -> bytes:
    cells = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return stream(pa.record_batch([cells], names=[name]))


def test_the_rows_of_a_table_stand_in_order_over_all_its_batches() -> None:
    first = pa.record_batch({"n": pa.array([1, None], pa.int32()), "s": pa.array(["a", ""])})
    second = pa.record_batch({"n": pa.array([3], pa.int32()), "s": pa.array([None], pa.string())})
    assert rows_of_arrow(stream(first, second), TABLE) == [
        {"n": 1, "s": "a"},
        {"n": None, "s": ""},
        {"n": 3, "s": None},
    ]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (pa.array([1.5, math.nan, None]), [1.5, None, None]),
        (pa.array([0.1], pa.float32()), [float(np.float32(0.1))]),
        (pa.array([np.float16(0.5)], pa.float16()), [0.5]),
        (pa.array([2**63], pa.uint64()), [2**63]),
        (pa.array([True, None]), [True, None]),
        (pa.array([Decimal("1.25")]), [1.25]),
        (pa.nulls(2), [None, None]),
        (pa.array([7, None, 7]).dictionary_encode(), [7, None, 7]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_numbers_and_truths_are_what_json_would_hold(cells: pa.Array, values: list[Any]) -> None:
    assert [row["n"] for row in rows_of_arrow(column("n", cells), TABLE)] == values


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (
            pa.array(["a", "a longer one than twelve", None], pa.string_view()),
            ["a", "a longer one than twelve", None],
        ),
        (pa.array(["a", "b", "a", None]).dictionary_encode(), ["a", "b", "a", None]),
        (pa.array(["one that is longer"], pa.string_view()).dictionary_encode(), ["one that is longer"]),
        (pa.array([dt.date(2026, 1, 2)]), ["2026-01-02"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_strings_and_dates_are_strings(cells: pa.Array, values: list[Any]) -> None:
    assert [row["s"] for row in rows_of_arrow(column("s", cells), TABLE)] == values


def test_columns_are_checked_as_those_of_a_csv_are() -> None:
    with pytest.raises(Invalid, match="'m' is not one of them"):
        rows_of_arrow(column("m", [1]), TABLE)


@pytest.mark.parametrize("values", [[[1, 2]], [{"a": 1}], [b"bytes"]], ids=["lists", "structs", "binary"])
def test_a_table_has_no_cells_of_cells(values: list[Any]) -> None:
    with pytest.raises(Invalid, match="Expected numbers, bools or strings in column 'n'"):
        rows_of_arrow(column("n", values), TABLE)


def fixed(array: np.ndarray[Any, Any]) -> pa.Array:
    """[N, …] as fixed-size lists, nested."""
    cells = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        cells = pa.FixedSizeListArray.from_arrays(cells, size)
    return cells


def tensors(array: np.ndarray[Any, Any]) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(array)


def lists(array: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(array.tolist())


@pytest.mark.parametrize(
    ("as_cells", "dtype"),
    [
        (as_cells, dtype)
        for as_cells in (fixed, tensors, lists)
        for dtype in ("uint8", "int64", "float16", "float32", "float64", "bool")
        if (as_cells, dtype) != (tensors, "bool")  # Arrow has none
    ],
)
def test_arrays_come_row_by_row_in_their_shape(
    as_cells: Callable[[np.ndarray[Any, Any]], pa.Array], dtype: str
) -> None:
    sent = np.random.default_rng(0).integers(0, 2, (5, 2, 3)).astype(dtype)
    rows = rows_of_arrow(column("x", as_cells(sent)), ARRAYS)
    assert np.array_equal(np.stack(rows), sent)


def test_numbers_alone_are_rows_without_a_shape() -> None:
    rows = rows_of_arrow(column("x", [1.5, None]), ARRAYS)
    assert rows[0] == 1.5
    assert isinstance(rows[1], BadInstance)


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        pa.array([[1, 2], [None, 1], [3, 4]], pa.list_(pa.int64(), 2)),
        pa.array([[1, 2], None, [3, 4]]),
        pa.array([[1, 2], [None, 1], [3, 4]]),
        pa.array([[[1], [2]], [[1], [2, 3]], [[3], [4]]]),
    ],
    ids=["fixed null", "null inside", "list null", "null in list", "ragged"],
)
def test_a_row_with_a_hole_is_an_error_in_its_place(cells: pa.Array) -> None:
    first, bad, last = rows_of_arrow(column("x", cells), ARRAYS)
    assert isinstance(bad, BadInstance)
    assert (first.ravel().tolist(), last.ravel().tolist()) == ([1, 2], [3, 4])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_images_may_be_files(kind: pa.DataType) -> None:
    one, none, other = rows_of_arrow(column("image", [b"png", None, b"jpeg"], kind), IMAGES)
    assert (one, other) == (b"png", b"jpeg")
    assert isinstance(none, BadInstance)


def test_images_and_arrays_are_one_column() -> None:
    two = stream(pa.record_batch({"a": pa.array([b""]), "label": pa.array([1])}))
    with pytest.raises(Invalid, match=r"Expected one column of images, got 2 \(a, label\)"):
        rows_of_arrow(two, IMAGES)
    for takes in (IMAGES, ARRAYS):
        with pytest.raises(Invalid, match="lists of numbers"):
            rows_of_arrow(column("a", ["text"]), takes)


def test_rows_have_a_bound() -> None:
    assert len(rows_of_arrow(column("n", [1] * MAX_INSTANCES), TABLE)) == MAX_INSTANCES
    with pytest.raises(TooLarge):
        rows_of_arrow(column("n", [1] * (MAX_INSTANCES + 1)), TABLE)
    with pytest.raises(Invalid, match="got none"):
        rows_of_arrow(column("n", [], pa.int8()), TABLE)


def test_a_row_count_without_bytes_behind_it_costs_nothing() -> None:
    with pytest.raises(TooLarge):
        rows_of_arrow(column("n", pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])), TABLE)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_a_compressed_stream_is_refused_before_it_is_unpacked(compression: str, is_dictionary: bool) -> None:
    cells = pa.array(["a" * 1000] * 9)
    batch = pa.record_batch({"s": cells.dictionary_encode() if is_dictionary else cells})
    assert len(rows_of_arrow(stream(batch), TABLE)) == 9
    before = pa.total_allocated_bytes()
    bomb = pa.record_batch({"s": pa.array(["\0" * 2**26])})
    packed = stream(bomb if not is_dictionary else batch, compression=compression)
    del bomb
    with pytest.raises(Invalid, match="without compression"):
        rows_of_arrow(packed, TABLE)
    assert pa.total_allocated_bytes() - before < 2**24


def test_one_word_that_every_row_has_is_held_once() -> None:
    word = pa.array(["x" * 1_000_000])
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int16()), word)
    rows = rows_of_arrow(column("s", cells), TABLE)
    assert len({id(row["s"]) for row in rows}) == 1


def test_views_that_name_the_same_bytes_again_and_again_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_cells, "MAX_UNPACKED_BYTES", 2000)
    _, view, data = pa.array(["x" * 300], pa.string_view()).buffers()

    def again(count: int) -> pa.Array:
        views = pa.py_buffer(view.to_pybytes()[:16] * count)
        return pa.Array.from_buffers(pa.string_view(), count, [None, views, data])

    with pytest.raises(TooLarge, match="once unpacked"):
        rows_of_arrow(column("s", again(7)), TABLE)
    assert [row["s"] for row in rows_of_arrow(column("s", again(6)), TABLE)] == ["x" * 300] * 6


GOOD = stream(
    pa.record_batch(
        {"n": pa.array([1.5, None, 3.0]), "s": pa.array(["a", "bc", None]).dictionary_encode()},
    )
)


@example(at=GOOD.index(b"\1\0\0\0n\0") + 4, value=0x80, length=0)  # a name that is no UTF-8
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), length=st.integers(0, len(GOOD)))
def test_damaged_streams_are_read_or_refused_and_nothing_else(at: int, value: int, length: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] = value
    for data in (bytes(damaged), GOOD[:length], GOOD[at:]):
        with contextlib.suppress(ModelyardError):
            rows_of_arrow(data, TABLE)


@pytest.mark.parametrize("data", [b"", b"no arrow", b"\xff" * 100, b"ARROW1\0\0"])
def test_bytes_that_are_no_stream_are_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="Expected"):
        rows_of_arrow(data, ARRAYS)
