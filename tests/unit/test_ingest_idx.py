"""IDX files: what a header may say, and what is refused before memory is taken for it."""

import gzip
import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from core.errors import Invalid
from tests.make_data import IDX_TYPES, idx_bytes
from workers.ingest.idx_file import IdxFile
from workers.ingest.names import is_archive, is_idx


class MemoryTree:
    """Files by name, in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self.sizes = {name: len(data) for name, data in files.items()}

    def read(self, name: str) -> bytes:
        return self._files[name]

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self._files[name])

    def local_path(self, name: str) -> Path:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held open."""


def opened(data: bytes) -> IdxFile:
    return IdxFile(MemoryTree({"x": data}), "x")


@pytest.mark.parametrize("dtype", list(IDX_TYPES))
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_every_type_is_read_as_numpy_wrote_it(dtype: str, pack: type[bytes]) -> None:
    array = (np.arange(60) * 7 - 100).reshape(5, 4, 3).astype(dtype)
    file = opened(pack(idx_bytes(array)))
    assert (file.shape, file.num_rows, file.row_shape) == ((5, 4, 3), 5, (4, 3))
    assert np.array_equal(file.whole(), array)
    blocks = list(file.blocks(2 * array[0].nbytes))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert np.array_equal(np.concatenate(blocks), array)
    assert blocks[0].dtype.isnative


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "shorter"),
        (b"\0\0\x08", "shorter"),
        (b"\x89PNG\r\n\x1a\n", "begins with 89 50 4e 47"),
        (b"\0\0\x0a\x01" + bytes(8), "type of"),
        (b"\0\0\x08\x00", "1 to 8 axes"),
        (b"\0\0\x08\xff" + bytes(2000), "1 to 8 axes"),
        (struct.pack(">HBBI", 0, 8, 1, 0), "at least one row"),
        (struct.pack(">HBBI", 0, 8, 1, 4) + bytes(3), "shorter"),
        (struct.pack(">HBBI", 0, 8, 1, 4) + bytes(5), "longer"),
        (struct.pack(">HBB3I", 0, 8, 3, 4, 2**32 - 1, 2**32 - 1) + bytes(5), "elements in each"),
        (struct.pack(">HBB3I", 0, 14, 3, 2**32 - 1, 28, 28) + bytes(100), "shorter"),
    ],
)
def test_header_that_does_not_fit_the_bytes_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words) as plain:
        opened(data)
    assert plain.value.code == "bad_idx"


def test_gzip_that_holds_less_or_more_than_its_header_says_is_refused() -> None:
    header = struct.pack(">HBBI", 0, 8, 1, 1000)
    for rest in (bytes(999), bytes(1001)):
        file = opened(gzip.compress(header + rest))
        with pytest.raises(Invalid, match="than its header says"):
            file.whole()


def test_gzip_that_promises_far_more_than_it_can_hold_is_refused_unread() -> None:
    header = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 28, 28)
    with pytest.raises(Invalid) as error:
        opened(gzip.compress(header + bytes(1000)))
    assert error.value.code == "archive_bomb"


def test_gzip_with_a_flipped_bit_or_a_missing_end_is_refused() -> None:
    packed = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8)))
    flipped = bytearray(packed)
    flipped[500] ^= 1
    for data in (bytes(flipped), packed[:-20], packed[:-4]):
        with pytest.raises(Invalid) as error:
            opened(data).whole()
        assert error.value.code in ("corrupt_archive", "bad_idx")


@pytest.mark.parametrize(
    "name",
    ["train-images-idx3-ubyte", "raw/t10k-labels.idx1-ubyte", "train-images-idx3-ubyte.gz", "A-IDX2-INT.GZ"],
)
def test_packed_file_with_mnists_name_is_no_nested_archive(name: str) -> None:
    assert is_idx(name)
    assert not is_archive(name)


@pytest.mark.parametrize("name", ["train-images.gz", "idx3.tar.gz", "train-images-idx3-ubyte.zip", "idx.csv"])
def test_other_names_are_no_idx(name: str) -> None:
    assert not is_idx(name)
