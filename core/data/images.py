"""From the bytes of an image file to pixels, safely: the one decoder of ingest, training and prediction.

Knows Pillow and numpy, no torch. Hostile bytes are expected: the format is on an allow-list, the size is
read from the header before any pixel is decoded, and an animation or an alpha channel is refused.
"""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from core.errors import Invalid

Mode = Literal["L", "RGB"]

#: Formats that Pillow may try, in this order. TIFF, FITS, EPS and the rest are never opened.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 50_000_000
#: How many channels an image has: grey or colour.
CHANNELS = frozenset({1, 3})
MAX_IMAGE_BYTES = 64 * 1024 * 1024

# Pillow's modes by what they become; a mode in neither set (RGBA, LA, I;16, F, …) is refused.
_GREY_MODES = frozenset({"1", "L"})
_COLOUR_MODES = frozenset({"RGB", "P", "CMYK", "YCbCr"})
_EXIF_ORIENTATION = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WEBP_CANVAS = 24  # where the canvas size stands in an extended WebP


def decode_image(data: bytes, mode: Mode) -> NDArray[np.uint8]:
    """Pixels as uint8 [C, H, W], C = 1 for "L" and 3 for "RGB", EXIF orientation applied.

    Raises what `load_image` raises.
    """
    return to_pixels(load_image(data), mode)


def to_pixels(image: Image.Image, mode: Mode) -> NDArray[np.uint8]:
    """A loaded image as a writable uint8 [C, H, W]; colour becomes grey by ITU-R 601-2 luma."""
    pixels = np.array(image if image.mode == mode else image.convert(mode), dtype=np.uint8)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def is_channels_last(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is an image as [H, W, C]; where both readings fit it is [C, H, W]."""
    return len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS


def pixels_in_header(data: bytes) -> int:
    """How many pixels decoding would make, told without making one; 0 where it would be refused."""
    try:
        _refuse_large_webp(data)
        width, height = Image.open(BytesIO(data), formats=FORMATS).size
    except MemoryError:
        raise
    except Exception:  # Pillow's parsers raise nearly anything on hostile bytes; decoding says what is wrong
        return 0
    return width * height if width * height <= MAX_PIXELS else 0


def load_image(data: bytes) -> Image.Image:
    """The image fully decoded, upright, in mode "L" or "RGB", whichever is its own.

    Raises `Invalid` with code `image_too_large` (over `MAX_IMAGE_BYTES` or `MAX_PIXELS`),
    `unsupported_image` (format, alpha, 16 bit, several frames) or `corrupt_image` (does not decode).
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise Invalid(
            f"expected an image file of at most {MAX_IMAGE_BYTES} bytes, got {len(data)}; make it smaller",
            code="image_too_large",
        )
    _refuse_large_webp(data)
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("far more") from error
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:  # Pillow's parsers raise nearly anything on hostile bytes
        raise _corrupt(error) from error
    _check_header(image, data)
    if image.format == "PNG":
        _check_png_sums(data)
    return _decode(image)


def _refuse_large_webp(data: bytes) -> None:
    """libwebp allocates its canvas as soon as the file is opened, so its size is read here first."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < _WEBP_CANVAS + 6:
        return
    if data[12:16] == b"VP8X":
        width = 1 + int.from_bytes(data[_WEBP_CANVAS : _WEBP_CANVAS + 3], "little")
        height = 1 + int.from_bytes(data[_WEBP_CANVAS + 3 : _WEBP_CANVAS + 6], "little")
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[26:30]))
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(f"{width} x {height}")


def _check_header(image: Image.Image, data: bytes) -> None:
    """What the header alone can refuse; no pixel has been decoded yet."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(f"{width} x {height}")
    if width < 1 or height < 1:
        raise _corrupt(f"its size is {width} x {height}")
    # A JPEG of several pictures (MPO: most phone cameras) has its photo first; the others are previews.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise _unsupported("one frame", "an animation", "export one frame")
    # Pillow reads 16-bit colour PNGs as 8-bit without a word; the bit depth stands in the PNG header.
    if image.format == "PNG" and data[24:25] == b"\x10":
        raise _unsupported("8 bits a channel", "16", "convert it to 8 bits")
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        raise _unsupported("an image without transparency", "an alpha channel", "flatten it")
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise _unsupported("8-bit grey or RGB", f"mode {image.mode}", "convert it to 8-bit grey or RGB")


def _check_png_sums(data: bytes) -> None:
    """Pillow skips the checksums of a PNG's pixel chunks, so a flipped bit would pass as another picture."""
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            return  # cut short: decoding says so
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise _corrupt(f"the checksum of its {data[at + 4 : at + 8].decode('latin-1')} chunk is wrong")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4


def _decode(image: Image.Image) -> Image.Image:
    mode: Mode = "L" if image.mode in _GREY_MODES else "RGB"
    try:
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
        return upright if upright.mode == mode else upright.convert(mode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise _corrupt(error) from error


def _orientation(image: Image.Image) -> int:
    """1 (upright) where there is no EXIF, and where it is too broken to say."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # a broken note about the pixels does not spoil the pixels
        return 1


def _unidentified(data: bytes) -> Invalid:
    known = data.startswith((b"\xff\xd8\xff", _PNG_SIGNATURE, b"BM", b"GIF8")) or data[8:12] == b"WEBP"
    if known or not data:
        return _corrupt("its header does not parse" if data else "it is empty")
    return _unsupported("JPEG, PNG, WebP, BMP or GIF", "something else", "convert it to PNG")


def _too_many_pixels(got: str) -> Invalid:
    return Invalid(
        f"expected an image of at most {MAX_PIXELS} pixels, its header says {got}; make it smaller",
        code="image_too_large",
    )


def _unsupported(expected: str, got: str, remedy: str) -> Invalid:
    return Invalid(f"expected {expected}, got {got}; {remedy}", code="unsupported_image")


def _corrupt(cause: object) -> Invalid:
    return Invalid(f"the image does not decode ({cause}); replace it or leave it out", code="corrupt_image")
