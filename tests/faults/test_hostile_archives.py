"""Archives made to write elsewhere, or to inflate without end: refused by the reader's process with a reason,
within little memory and time, and nothing is left of them."""

import io
import os
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from tests import make_data
from tests.integration.test_ingest_process import refused
from tests.memory import MIB, run_measured
from workers.ingest.archives import inflated_limit

FOLDERS = make_data.image_folder(["a", "b"])
#: What a bomb may take.
PEAK_BYTES = 200 * MIB
BUDGET_S = 10


def _zip_with(info: zipfile.ZipInfo, data: bytes = b"x", *others: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("a/0.png", make_data.image_bytes())
        packed.writestr(info, data)
        for name, content in others:
            packed.writestr(name, content)
    return out.getvalue()


def _link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def _nul_zip() -> bytes:
    return _zip_with(zipfile.ZipInfo("a/xQ.png")).replace(b"a/xQ.png", b"a/x\0.png")


def _tar_with(kind: bytes, name: str = "a/x.png", link: str = "", *others: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        packed.addfile(info)
        for other, content in others:
            more = tarfile.TarInfo(other)
            more.size = len(content)
            packed.addfile(more, io.BytesIO(content))
    return out.getvalue()


def _encrypted_zip() -> bytes:
    data = bytearray(make_data.zip_bytes({"a/0.png": b"x"}))
    data[6] |= 1  # the flag in the member's own header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    return bytes(data)


#: Where an archive is to put something by an absolute name.
OUTSIDE = Path(tempfile.gettempdir()) / f"modelyard-outside-{os.getpid()}"

HOSTILE = {
    "climbs": (make_data.zip_bytes({"../x.png": b"x"}), "unsafe_path"),
    "absolute": (make_data.zip_bytes({f"{OUTSIDE}/x.png": b"x"}), "unsafe_path"),
    "backslash": (make_data.zip_bytes({"a\\..\\x.png": b"x"}), "unsafe_path"),
    "drive": (make_data.zip_bytes({"C:x.png": b"x"}), "unsafe_path"),
    "nul": (_nul_zip(), "unsafe_path"),
    "deep": (make_data.zip_bytes({"d/" * 33 + "x.png": b"x"}), "unsafe_path"),
    "casefold twins": (make_data.zip_bytes({"a/X.png": b"x", "a/x.png": b"y"}), "unsafe_path"),
    "unicode twins": (make_data.zip_bytes({"a/\u00e9.png": b"x", "a/e\u0301.png": b"y"}), "unsafe_path"),
    "tar climbs": (make_data.tar_bytes({"a/../../x.png": b"x"}), "unsafe_path"),
    "tar absolute": (make_data.tar_bytes({f"{OUTSIDE}/x.png": b"x"}), "unsafe_path"),
    "symlink": (_zip_with(_link("a/link.png"), b"/etc/passwd"), "unsafe_member"),
    "symlink, then through it": (
        _zip_with(_link("b"), str(OUTSIDE).encode(), ("b/x.png", b"x")),
        "unsafe_member",
    ),
    "tar symlink": (_tar_with(tarfile.SYMTYPE, link="/etc/passwd"), "unsafe_member"),
    "tar symlink, then through it": (
        _tar_with(tarfile.SYMTYPE, "b", str(OUTSIDE), ("b/x.png", b"x")),
        "unsafe_member",
    ),
    "tar hard link": (_tar_with(tarfile.LNKTYPE, link="/etc/passwd"), "unsafe_member"),
    "tar device": (_tar_with(tarfile.CHRTYPE), "unsafe_member"),
    "tar pipe": (_tar_with(tarfile.FIFOTYPE), "unsafe_member"),
    "encrypted": (_encrypted_zip(), "encrypted_archive"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_zip_slip_set_is_refused_and_nothing_is_written_outside(tmp_path: Path, what: str) -> None:
    data, code = HOSTILE[what]
    folder = tmp_path / "folder"
    folder.mkdir()
    assert refused(folder, data)["code"] == code
    assert not OUTSIDE.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert sorted(path.name for path in folder.iterdir()) == ["out", "source"]
    assert [path.name for path in (folder / "out").iterdir()] == ["problem.json"]


# Bombs: stretches of zeros, deflated in blocks that stand for themselves, so that making them costs nothing.


def _deflated_zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def _crc_of_zeros(mebibytes: int) -> int:
    crc, block = 0, bytes(MIB)
    for _ in range(mebibytes):
        crc = zlib.crc32(block, crc)
    return crc


def _zip_of(packed: bytes, size: int, crc: int, names: list[str]) -> bytes:
    """One member's bytes, under as many entries of the directory as there are names."""
    fields = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0x21, crc, len(packed), size)
    first = names[0].encode()
    local = b"PK\x03\x04" + fields + struct.pack("<HH", len(first), 0) + first + packed
    entries = b"".join(
        b"PK\x01\x02\x14\x00" + fields + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
        for name in names
    )
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(entries), len(local), 0)
    return local + entries + b"PK\x05\x06" + end


def _plain_zip() -> bytes:
    """256 MiB of one member in 260 kB."""
    return _zip_of(_deflated_zeros(256), 256 * MIB, _crc_of_zeros(256), ["a/0.png"])


def _overlapped_zip() -> bytes:
    """4 GiB in some 42 kB: a hundred names for one member of 41 MiB."""
    names = [f"a/{number}.png" for number in range(100)]
    return _zip_of(_deflated_zeros(41), 41 * MIB, _crc_of_zeros(41), names)


def _lying_zip() -> bytes:
    """A member that inflates to 64 MiB and declares 100 bytes."""
    return _zip_of(_deflated_zeros(64), 100, _crc_of_zeros(64), ["a/0.png"])


def _nested_zip() -> bytes:
    return make_data.zip_bytes({"inner.zip": _overlapped_zip()})


def _packed_tar(packing: str, mebibytes: int) -> bytes:
    info = tarfile.TarInfo("a/0.png")
    info.size = mebibytes * MIB
    head = info.tobuf()
    if packing == "gz":
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        return packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + _deflated_zeros(mebibytes)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(head)
        for _ in range(mebibytes):
            packed.write(bytes(MIB))
    made: bytes = sink.getvalue().to_pybytes()
    return made


BOMBS = {
    "zip": (_plain_zip, "archive_bomb"),
    "overlapped": (_overlapped_zip, "archive_bomb"),
    "lying": (_lying_zip, "corrupt_archive"),
    "nested": (_nested_zip, "nested_archive"),
    "tar.gz": (lambda: _packed_tar("gz", 1024), "archive_bomb"),
    "tar.zst": (lambda: _packed_tar("zst", 1024), "archive_bomb"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_zip_bomb_is_refused_before_it_is_written_within_a_small_memory(tmp_path: Path, what: str) -> None:
    """No file may grow past 1.1 times what the archive may inflate to: writing more would be told as such."""
    make, code = BOMBS[what]
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(make())
    command = [sys.executable, "-m", "workers.ingest", str(source), str(out)]
    command += ["--memory-bytes", str(2**31), "--cpu-seconds", "60"]
    limit = int(1.1 * inflated_limit(source.stat().st_size))
    ran = run_measured(command, max_file_bytes=limit)
    assert ran.status == 1, ran.stderr
    assert msgspec.json.decode((out / "problem.json").read_bytes())["code"] == code
    assert [path.name for path in out.iterdir()] == ["problem.json"]
    assert ran.peak_bytes < PEAK_BYTES, f"{ran.peak_bytes / MIB:.0f} MiB"
    assert ran.took_s < BUDGET_S
