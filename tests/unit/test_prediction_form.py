"""Images of a form, in whatever pieces its bytes come."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid, Malformed, TooLarge, UnsupportedMedia
from modelyard.resources.bodies import form_of
from service.prediction_bodies.form import MAX_PARTS, images_of_form


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def written(files: list[bytes]) -> tuple[str, bytes]:
    """Boundary and body, as our client writes them."""
    kind, body = form_of(files)
    return kind.partition("boundary=")[2], body


@given(
    files=st.lists(st.binary(max_size=80), min_size=1, max_size=5),
    size=st.integers(1, 200),
)
async def test_every_part_comes_back_in_order_however_it_was_cut(files: list[bytes], size: int) -> None:
    boundary, body = written(files)
    assert await images_of_form(pieces(body, size), boundary) == files


async def test_bytes_that_look_like_the_end_of_a_part_are_part_of_it() -> None:
    boundary, body = written([b"\r\n--", b"\r\n--almost\r\n", b"\r\n\r\n"])
    assert await images_of_form(pieces(body, 7), boundary) == [b"\r\n--", b"\r\n--almost\r\n", b"\r\n\r\n"]


async def test_what_browsers_put_around_the_parts_is_left_out() -> None:
    head = b'Content-Disposition: form-data; name="a"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = b"preamble\r\n--b\r\n" + head + b"one\r\n--b--\r\nepilogue"
    assert await images_of_form(pieces(body, 1000), "b") == [b"one"]


async def test_a_field_of_text_is_refused_before_its_bytes_are_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n'
        pytest.fail("more was read")

    with pytest.raises(Invalid, match=r'"top_k".*the query') as raised:
        await images_of_form(endless(), "b")
    assert raised.value.code == "not_a_file"


async def test_a_part_that_says_it_is_an_image_needs_no_filename() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n'
    assert await images_of_form(pieces(body, 1000), "b") == [b"x"]


async def test_parts_have_a_bound() -> None:
    boundary, body = written([b""] * MAX_PARTS)
    assert len(await images_of_form(pieces(body, 10_000), boundary)) == MAX_PARTS
    boundary, body = written([b""] * (MAX_PARTS + 1))
    with pytest.raises(TooLarge, match=f"at most {MAX_PARTS} images"):
        await images_of_form(pieces(body, 10_000), boundary)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--b\r\nContent-Disposition: form-data",
        b'--b\r\nContent-Disposition: form-data; filename="a"\r\n\r\ncut off',
        b"--b\r\nX-Other: 1\r\n\r\n\r\n--b--\r\n",
        b"--b\r\nno header\r\n\r\n\r\n--b--\r\n",
    ],
)
async def test_what_is_no_whole_form_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        await images_of_form(pieces(body, 10), "b")


async def test_a_form_without_parts_holds_nothing_to_predict() -> None:
    with pytest.raises(Invalid, match="no part"):
        await images_of_form(pieces(b"--b--\r\n", 100), "b")


async def test_a_head_that_does_not_end_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"--b\r\nContent-Disposition: "
        for _ in range(100):
            yield b"x" * 1000
        pytest.fail("more was read")

    with pytest.raises(TooLarge):
        await images_of_form(endless(), "b")


@pytest.mark.parametrize("boundary", [None, "", "x" * 71])
async def test_a_form_without_a_boundary_is_refused(boundary: str | None) -> None:
    with pytest.raises(UnsupportedMedia, match="boundary"):
        await images_of_form(pieces(b"", 1), boundary)
