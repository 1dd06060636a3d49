"""`multipart/form-data`: an encoded image a part, in the order of the parts, read as the bytes come in."""

from collections.abc import AsyncIterable

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from core.errors import Invalid, Malformed, TooLarge, UnsupportedMedia
from core.faults import show

MEDIA_TYPE = "multipart/form-data"

#: One image each.
MAX_PARTS = 256

#: What RFC 2046 allows.
MAX_BOUNDARY_CHARACTERS = 70


async def images_of_form(chunks: AsyncIterable[bytes], boundary: str | None) -> list[bytes]:
    """The parts' bytes, whatever they are: whether they are an image is for who decodes them to say. Holds
    what came and nothing more; a field of text is refused at its head. Raises TooLarge past `MAX_PARTS`."""
    parser = _parser(boundary)
    images: list[bytes] = []
    part = bytearray()
    try:
        with parser:
            async for chunk in chunks:
                for event in parser.parse(chunk):
                    match event:
                        case MultipartSegment():
                            _require_file(event)
                        case None:
                            images.append(bytes(part))
                            part.clear()
                        case piece:
                            part += piece
    except ParserLimitReached as error:
        message = (
            f"A form has at most {MAX_PARTS} images, each with a few short headers ({error}). Send fewer."
        )
        raise TooLarge(message) from error
    except MultipartError as error:
        raise Malformed(f"Expected multipart/form-data as of RFC 7578: {error}.") from error
    if not images:
        raise Invalid("The form has no part; send an image a part, as `curl -F image=@a.png` does.")
    return images


def _parser(boundary: str | None) -> PushMultipartParser:
    if not boundary or len(boundary) > MAX_BOUNDARY_CHARACTERS:
        raise UnsupportedMedia(
            f"Expected multipart/form-data with a boundary of 1 to {MAX_BOUNDARY_CHARACTERS} characters in "
            "its Content-Type; let your HTTP library write that header."
        )
    try:
        return PushMultipartParser(boundary, max_segment_count=MAX_PARTS)
    except MultipartError as error:
        raise Malformed(f"The boundary cannot be one: {error}.") from error


def _require_file(part: MultipartSegment) -> None:
    if part.filename is None and not (part.content_type or "").startswith("image/"):
        raise Invalid(
            f"Expected an image in every part, got the field {show(part.name)} without a filename. Send "
            "images alone, each with a filename; top_k and explain go into the query.",
            code="not_a_file",
        )
