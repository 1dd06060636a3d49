"""Images that promise more than a machine has: each is named with its reason, the others are not, and none of
their pixels is ever there."""

import gzip
import io
import struct
import sys
import zlib
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from core.data.images import load_image
from core.errors import Invalid
from tests import make_data
from tests.memory import MIB, grows_less_than, run_measured

PEAK_BYTES = 200 * MIB


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def large_png(side: int = 60_000) -> bytes:
    """Grey, black, whole and true: 3.6 GB of pixels in some 3.5 MB."""
    size = side * (side + 1)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(size % MIB)) + rest.flush()
    adler = (size % 65521) << 16 | 1  # of zeros alone
    pixels = b"\x78\xda" + block * (size // MIB) + end + struct.pack(">I", adler)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def packed_fits() -> bytes:
    """A compressed FITS picture of 30,000 x 30,000."""
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    2",
    ]
    cards += ["NAXIS1  =                30000", "NAXIS2  =                30000", "END"]
    return gzip.compress("".join(card.ljust(80) for card in cards).encode().ljust(2880) + bytes(MIB))


def long_webp(frames: int = 10_000) -> bytes:
    """An animation of 10,000 frames of one pixel."""
    still = make_data.encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True)
    pixel = still[12:]  # its VP8L chunk
    frame = bytes(6) + bytes(6) + (100).to_bytes(3, "little") + b"\0" + pixel
    extended = struct.pack("<4sI", b"VP8X", 10) + b"\x02" + bytes(9)
    animation = struct.pack("<4sI", b"ANIM", 6) + bytes(6)
    body = b"WEBP" + extended + animation + (struct.pack("<4sI", b"ANMF", len(frame)) + frame) * frames
    return struct.pack("<4sI", b"RIFF", len(body)) + body


BOMBS = {
    "large.png": (large_png, "image_too_large"),
    "fits.png": (packed_fits, "unsupported_image"),
    "long.webp": (long_webp, "unsupported_image"),
}


def test_png_bomb_is_a_picture_that_pillow_itself_opens() -> None:
    """So that what refuses it is our bound, and not its being broken."""
    small = load_image(large_png(1000))
    assert (small.size, small.getextrema()) == ((1000, 1000), (0, 0))
    webp = Image.open(io.BytesIO(long_webp(3)))
    assert (webp.format, webp.n_frames) == ("WEBP", 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", BOMBS)
def test_png_bomb_is_refused_by_its_header(name: str) -> None:
    make, code = BOMBS[name]
    data = make()
    with grows_less_than(64 * MIB), pytest.raises(Invalid) as caught:
        load_image(data)
    assert caught.value.code == code
    assert "; " in caught.value.detail  # what to do about it


def test_png_bomb_in_a_dataset_is_named_with_its_reason_and_the_others_are_not(tmp_path: Path) -> None:
    files = make_data.image_folder(["a", "b"]) | {f"a/{name}": make() for name, (make, _) in BOMBS.items()}
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(make_data.tar_bytes(files))
    command = [sys.executable, "-m", "workers.ingest", str(source), str(out)]
    ran = run_measured([*command, "--memory-bytes", str(2**31), "--cpu-seconds", "60"])
    assert ran.status == 1, ran.stderr
    problem = msgspec.json.decode((out / "problem.json").read_bytes())
    told = {error["pointer"]: error["code"] for error in problem["errors"]}
    assert told == {f"/a~1{name}": code for name, (_, code) in BOMBS.items()}
    assert ran.peak_bytes < PEAK_BYTES, f"{ran.peak_bytes / MIB:.0f} MiB"
    assert ran.took_s < 10
