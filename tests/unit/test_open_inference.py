"""Tensors between the wire and numpy, and what is counted, alone."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.db.models import Version
from core.errors import Invalid
from service.inference.statistics import Stages, Statistics
from service.open_inference import tensors
from service.open_inference.compression import accepted

NUMBERS = {
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-32768, 32767],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-0.5, 65504.0],
    "FP32": [-0.1, 3e38],
    "FP64": [-0.1, 1e308],
    "BOOL": [True, False],
}
FORMATS = dict(zip(NUMBERS, "BHIQbhiqefd?", strict=True))


def test_every_datatype_of_the_protocol_is_tried_here() -> None:
    assert {*NUMBERS, "BF16", "BYTES"} == set(tensors.DATATYPES)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_are_little_endian_in_row_major_order(datatype: str) -> None:
    values = NUMBERS[datatype]
    raw = struct.pack(f"<2{FORMATS[datatype]}", *values)
    array = tensors.from_binary("x", datatype, [1, 2], memoryview(raw))
    assert array.shape == (1, 2)
    assert array.dtype == tensors.DTYPES[datatype]
    assert tensors.to_binary(array, datatype) == raw
    written = tensors.from_json("x", datatype, [1, 2], values)
    np.testing.assert_array_equal(written, array)
    assert written.dtype == array.dtype
    assert tensors.to_json(array, datatype) == array.ravel().tolist()


def test_bfloat16_is_the_high_half_of_a_float32() -> None:
    values = np.array([1.0, -2.5, 3.0e38, np.inf], dtype=np.float32)
    raw = b"".join(struct.pack("<f", value)[2:] for value in values)
    read = tensors.from_binary("x", "BF16", [4], memoryview(raw))
    np.testing.assert_allclose(read, values, rtol=2**-8)
    assert read.dtype == np.float32
    assert read[1] == -2.5  # held exactly


def test_any_byte_but_zero_is_true() -> None:
    assert tensors.from_binary("x", "BOOL", [3], memoryview(b"\x00\x01\x07")).tolist() == [False, True, True]


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_strings_come_back_as_they_went(items: list[bytes]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    raw = tensors.to_binary(array, "BYTES")
    assert tensors.from_binary("x", "BYTES", [len(items)], memoryview(raw)).tolist() == items


@given(st.binary(max_size=40), st.integers(0, 9))
def test_no_bytes_make_more_strings_than_they_hold(raw: bytes, count: int) -> None:
    try:
        read = tensors.from_binary("x", "BYTES", [count], memoryview(raw))
    except Invalid:
        return
    assert tensors.to_binary(read, "BYTES") == raw


@pytest.mark.parametrize("datatype", [*NUMBERS, "BF16", "BYTES"])
def test_a_size_is_compared_before_room_is_made_for_it(datatype: str) -> None:
    with pytest.raises(Invalid, match="expected"):
        tensors.from_binary("x", datatype, [2**20, 2**20], memoryview(b"1234"))
    with pytest.raises(Invalid):
        tensors.from_json("x", datatype, [2**20, 2**20], [1])


def test_null_is_a_missing_number_or_text_and_nothing_else() -> None:
    assert np.isnan(tensors.from_json("x", "FP32", [1], [None])).all()
    assert tensors.from_json("x", "BYTES", [2], [None, "a"]).tolist() == [None, b"a"]
    for datatype in ("INT8", "BOOL"):
        with pytest.raises(Invalid):
            tensors.from_json("x", datatype, [1], [None])
    with pytest.raises(Invalid, match="BYTES can hold"):
        tensors.from_json("x", "BYTES", [1], ["\ud800"])


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip;q=0.1", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("br, zstd", None),
        ("", None),
        ("*", None),
    ],
)
def test_what_a_client_takes_is_read_from_its_header(header: str, encoding: str | None) -> None:
    assert accepted(header) == encoding


def test_counts_are_kept_of_so_many_versions_and_of_the_last_asked() -> None:
    statistics = Statistics(now=lambda: 12.5, max_versions=2)
    for version_id in ("a", "b", "a", "c"):
        version = Version(id=version_id, owner="o", model="m", version=1)
        counted = statistics.of(version)
        counted.computed(3, transform_ns=5, forward_ns=30)
        counted.answered(3, 50, Stages(queue_ns=10, decode_ns=4, transform_ns=5, forward_ns=30))
    assert statistics.read("b").forwards == 0
    kept = statistics.read("a")
    assert (kept.rows, kept.forwards, kept.last_ms) == (6, 2, 12500)
    assert (kept.success.count, kept.success.ns, kept.queue.ns) == (2, 100, 20)
    assert (kept.input.count, kept.input.ns) == (2, 18)
    assert (kept.batches[3].infer.count, kept.batches[3].infer.ns) == (2, 60)
    assert statistics.read("nobody").last_ms == 0
