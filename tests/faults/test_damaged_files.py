"""Files of every kind that is read, damaged at random: each is read or refused with a code, within the memory
and the time of a reader, and nothing is written beside its folder.

The corpus is made here; hypothesis damages it. A few seconds of it run always, the same each time; the deep
run draws anew.
"""

import io
import json
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from core.nets.safetensors_file import BadTensors, is_safetensors, read_tensors
from tests import make_data
from tests.memory import MIB
from tests.weights import tensors

MEMORY_BYTES = 1024 * MIB
#: On a busy machine; in itself a file takes milliseconds.
DEADLINE_S = 20

PLAIN = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DEEP = settings(PLAIN, max_examples=5000, derandomize=False, print_blob=True)

FOLDERS = make_data.image_folder(["a", "b"])
ROWS = [("n", "x", "word"), *((row, row / 4, "ab"[row % 2]) for row in range(30))]
COLUMNS = {"n": list(range(30)), "x": [row / 4 for row in range(30)], "word": ["a", "b"] * 15}
ARRAYS = {"x": np.zeros((6, 4), np.float32), "y": np.arange(6) % 2}


def _images() -> dict[str, bytes]:
    picture = Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3))
    return {kind: make_data.encode(picture, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}


NAMED = {"train": [("0.png", "x"), ("1.png", "y")]}

#: Kind and name of the file, and its bytes.
CORPUS: list[tuple[str, str, bytes]] = [
    ("dataset", "d.zip", make_data.zip_bytes(FOLDERS)),
    ("dataset", "d.tar", make_data.tar_bytes(FOLDERS)),
    ("dataset", "d.tar.gz", make_data.tar_bytes(FOLDERS, "gz")),
    ("dataset", "d.tar.zst", make_data.tar_bytes(FOLDERS, "zst")),
    ("dataset", "d.zip", make_data.zip_bytes(make_data.image_csv(NAMED))),
    ("dataset", "d.zip", make_data.zip_bytes(make_data.mnist_files(gz=True))),
    ("dataset", "d.csv", make_data.csv_bytes(ROWS)),
    ("dataset", "d.jsonl", make_data.jsonl_bytes([{"n": 1, "text": "so good"}, {"n": 2, "text": "so bad"}])),
    ("dataset", "d.parquet", make_data.parquet_bytes(COLUMNS)),
    ("dataset", "d.npz", make_data.npz_bytes(**ARRAYS)),
    *(("image", kind, data) for kind, data in _images().items()),
]  # fmt: skip

#: What sizes and counts are overwritten with.
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


class Reader:
    """The process that reads; a new one after one that died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def outcome(self, kind: str, filename: str, data: bytes) -> str:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(DEADLINE_S, process.kill)
        late.start()
        try:
            process.stdin.write(json.dumps([kind, filename, len(data)]).encode() + b"\n" + data)
            process.stdin.flush()
            return process.stdout.readline().decode().strip()
        finally:
            late.cancel()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "tests.damaged_reader", str(self.folder), str(MEMORY_BYTES)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self.process


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("around") / "folder"
    folder.mkdir()
    reader = Reader(folder)
    yield reader
    reader.close()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """One of the corpus with up to six wounds."""
    kind, filename, data = draw(st.sampled_from(CORPUS))
    for _ in range(draw(st.integers(1, 6))):
        data = _wounded(draw, bytearray(data))
    return kind, filename, data


def _wounded(draw: st.DrawFn, data: bytearray) -> bytes:
    at = draw(st.integers(0, max(0, len(data) - 1)))
    match draw(st.sampled_from(["bytes", "number", "cut", "insert", "repeat", "end"])):
        case "bytes":
            some = draw(st.binary(min_size=1, max_size=4))
            data[at : at + len(some)] = some
        case "number":
            width = draw(st.sampled_from([2, 4, 8]))
            order = draw(st.sampled_from(["little", "big"]))
            number = draw(st.sampled_from(NUMBERS)) & (2 ** (8 * width) - 1)
            data[at : at + width] = number.to_bytes(width, order)
        case "cut":
            del data[at : at + draw(st.integers(1, 64))]
        case "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        case "repeat":
            data[at:at] = data[at : at + 64] * draw(st.integers(1, 20))
        case "end":
            del data[at:]
    return bytes(data)


def require_clean(reader: Reader, kind: str, filename: str, data: bytes) -> None:
    outcome = reader.outcome(kind, filename, data)
    assert outcome, f"the reader ended: {reader.process and reader.process.wait()}"
    assert outcome != "internal"
    assert [path.name for path in reader.folder.parent.iterdir()] == ["folder"]
    assert list(reader.folder.iterdir()) == []


@pytest.mark.parametrize(("kind", "filename", "data"), CORPUS)
def test_what_is_whole_is_read(reader: Reader, kind: str, filename: str, data: bytes) -> None:
    """So that what refuses the others is their damage."""
    assert reader.outcome(kind, filename, data) == "ok"


@PLAIN
@given(damaged())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    reader: Reader, file: tuple[str, str, bytes]
) -> None:
    require_clean(reader, *file)


@pytest.mark.deep
@pytest.mark.timeout(1200)
@DEEP
@given(damaged())
def test_thousands_of_damaged_files_are_read_or_refused_and_nothing_else(
    reader: Reader, file: tuple[str, str, bytes]
) -> None:
    require_clean(reader, *file)


# Archives whose members are called anything

WORDS = [
    "..",
    ".",
    "",
    "a",
    "A",
    "b",
    "train",
    "test",
    "C:",
    "\\",
    "\0",
    "é",
    "e\u0301",
    "x.png",
    "t.csv",
    "\udcff",
]
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map("/".join)
CONTENTS = st.sampled_from([data for _, _, data in CORPUS] + [b"", b"x"])
KINDS = [
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.GNUTYPE_SPARSE,
]


@st.composite
def archives(draw: st.DrawFn) -> tuple[str, bytes]:
    members = draw(st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=4))
    out = io.BytesIO()
    if draw(st.booleans()):
        with zipfile.ZipFile(out, "w", draw(st.sampled_from([0, 8]))) as packed:
            # `ZipInfo` cuts a name at its first NUL, and the writer warns of twins.
            called = {
                name.encode("utf-8", "replace").decode().split("\0")[0] or "a": data for name, data in members
            }
            for name, data in called.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = draw(st.sampled_from([0, 0o120777, 0o100644, 0o040755])) << 16
                packed.writestr(info, data)
        return "a.zip", out.getvalue()
    with tarfile.open(
        fileobj=out, mode="w", format=draw(st.sampled_from([0, 1, 2])), errors="replace"
    ) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name.replace("\0", "0") or "a")
            member.type = draw(st.sampled_from(KINDS))
            member.linkname = draw(st.sampled_from(["", "/etc/passwd", "../x", "a"]))
            member.size = len(data) if member.type == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(data))
    return "a.tar", out.getvalue()


@PLAIN
@given(archives())
def test_members_of_any_name_and_kind_are_read_or_refused_and_nothing_else(
    reader: Reader, archive: tuple[str, bytes]
) -> None:
    require_clean(reader, "dataset", *archive)


@pytest.mark.deep
@pytest.mark.timeout(1200)
@DEEP
@given(archives())
def test_thousands_of_archives_of_any_name_and_kind_are_read_or_refused(
    reader: Reader, archive: tuple[str, bytes]
) -> None:
    require_clean(reader, "dataset", *archive)


# Weights


@PLAIN
@given(st.data())
def test_damaged_safetensors_are_read_or_refused_and_nothing_else(
    tmp_path: Path, data: st.DataObject
) -> None:
    file = data.draw(st.builds(lambda: tensors()))
    for _ in range(data.draw(st.integers(1, 6))):
        file = _wounded(data.draw, bytearray(file))
    path = tmp_path / "w"
    path.write_bytes(file)
    if is_safetensors(path):
        try:
            read_tensors(path)
        except BadTensors:
            return
