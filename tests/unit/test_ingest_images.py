"""The shared image decoder, against Pillow's own pixels and hand-made hostile headers."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from core.data.images import MAX_PIXELS, decode_image, load_image
from core.errors import Invalid
from tests.make_data import encode, image_bytes


def _pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def _png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0),
        b"IDAT" + zlib.compress(pixels),
        b"IEND",
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _code(data: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        load_image(data)
    return caught.value.code


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_pixels_come_back_as_channels_rows_columns(format: str) -> None:
    pixels = _pixels()
    assert np.array_equal(
        decode_image(encode(Image.fromarray(pixels), format), "RGB"), pixels.transpose(2, 0, 1)
    )


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_every_format_of_the_list_decodes(format: str) -> None:
    assert decode_image(encode(Image.fromarray(_pixels()), format), "RGB").shape == (3, 6, 4)


def test_grey_stays_grey_and_can_be_read_as_colour() -> None:
    data = image_bytes(mode="L")
    assert load_image(data).mode == "L"
    grey, colour = decode_image(data, "L"), decode_image(data, "RGB")
    assert grey.shape == (1, 8, 8)
    assert all(np.array_equal(channel, grey[0]) for channel in colour)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_turns_the_picture_upright(orientation: int, turn: object) -> None:
    pixels = _pixels()[:, :, 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(Image.fromarray(pixels), "PNG", exif=exif), "L")
    assert np.array_equal(decoded[0], turn(pixels))  # type: ignore[operator]


def test_alpha_is_refused() -> None:
    assert _code(image_bytes(mode="RGBA")) == "unsupported_image"
    assert _code(image_bytes(mode="LA")) == "unsupported_image"


def test_sixteen_bits_are_refused_grey_and_colour() -> None:
    assert _code(encode(Image.fromarray(np.ones((2, 2), np.uint16)))) == "unsupported_image"
    assert _code(_png(1, 1, depth=16, colour=2, pixels=bytes(7))) == "unsupported_image"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_refused(format: str) -> None:
    frames = [Image.fromarray(_pixels(seed)) for seed in range(3)]
    assert _code(encode(frames[0], format, save_all=True, append_images=frames[1:])) == "unsupported_image"


def test_a_format_off_the_list_is_refused() -> None:
    assert _code(encode(Image.fromarray(_pixels()), "TIFF")) == "unsupported_image"


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_header_that_promises_too_many_pixels_is_refused_before_decoding(side: int) -> None:
    assert side * side > MAX_PIXELS
    assert _code(_png(side, side, depth=8, colour=0, pixels=bytes(100))) == "image_too_large"


def test_a_large_webp_canvas_is_refused_before_libwebp_allocates_it() -> None:
    side = (16_383 - 1).to_bytes(3, "little")
    header = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    assert _code(b"RIFF" + struct.pack("<I", 4 + len(header)) + b"WEBP" + header) == "image_too_large"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_picture_cut_in_half_is_corrupt(format: str) -> None:
    data = encode(Image.fromarray(np.tile(_pixels(), (20, 20, 1))), format)
    assert _code(data[: len(data) // 2]) == "corrupt_image"


def test_one_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(image_bytes(size=(32, 32)))
    data[len(data) // 2] ^= 1
    assert _code(bytes(data)) == "corrupt_image"


def test_an_empty_file_is_corrupt() -> None:
    assert _code(b"") == "corrupt_image"


def test_random_damage_never_raises_anything_but_invalid() -> None:
    rng = np.random.default_rng(7)
    originals = [
        encode(Image.fromarray(_pixels()), format) for format in ("PNG", "JPEG", "WEBP", "BMP", "GIF")
    ]
    for original in originals:
        for _ in range(200):
            data = bytearray(original)
            for position in rng.integers(0, len(data), 4):
                data[position] = rng.integers(0, 256)
            try:
                image = load_image(bytes(data))
            except Invalid:
                continue
            assert image.mode in ("L", "RGB")
