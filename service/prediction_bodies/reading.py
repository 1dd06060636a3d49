"""From a request to its rows: the body is read at once, and decoded when it is known what the model takes."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from core.data.images import pixels_in_header
from core.data.manifest import Kind
from core.errors import Invalid, TooLarge, UnsupportedMedia
from service.bodies import AnyRequest, chunks, read_body, whole_within
from service.prediction_bodies import arrow_rows, csv_rows, form
from service.prediction_bodies.columns import Takes

MEDIA_TYPES = (form.MEDIA_TYPE, csv_rows.MEDIA_TYPE, arrow_rows.MEDIA_TYPE)

#: Images are small as files and large once decoded: so many pixels are a few seconds of decoding.
MAX_REQUEST_PIXELS = 200_000_000

#: The instances of a body, for a model that takes such rows; blocking. An encoded image is bytes.
Decode: TypeAlias = Callable[[Takes], list[Any]]


async def read_rows(request: AnyRequest, *, limit: int, timeout_s: float) -> Decode:
    """Of a body of one of `MEDIA_TYPES`. Raises what `service.bodies.chunks` raises, and UnsupportedMedia."""
    media_type, parameters = request.content_type
    if media_type == form.MEDIA_TYPE:
        async with whole_within(timeout_s):
            body = chunks(request, limit=limit, timeout_s=timeout_s)
            images = await form.images_of_form(body, parameters.get("boundary"))
        return partial(_images, images)
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Expected UTF-8, got charset={charset[:50]}. Save the body as UTF-8.")
    raw = await read_body(request, limit=limit, timeout_s=timeout_s)
    if media_type == csv_rows.MEDIA_TYPE:
        return partial(csv_rows.rows_of_csv, raw)
    return partial(_rows_of_arrow, raw)


def _images(images: list[bytes], takes: Takes) -> list[Any]:
    if takes.kind is not Kind.IMAGES:
        raise Invalid(f"This model takes {takes.kind}, not images. Send JSON instances.", code="wrong_kind")
    _require_few_pixels(images)
    return list(images)


def _rows_of_arrow(raw: bytes, takes: Takes) -> list[Any]:
    rows = arrow_rows.rows_of_arrow(raw, takes)
    _require_few_pixels([row for row in rows if isinstance(row, bytes)])
    return rows


def _require_few_pixels(images: list[bytes]) -> None:
    total = sum(map(pixels_in_header, images))
    if total > MAX_REQUEST_PIXELS:
        raise TooLarge(
            f"The images of one request have at most {MAX_REQUEST_PIXELS} pixels together, got {total}. "
            "Send them in several requests."
        )
