"""gzip and deflate (which is zlib's container) of whole bodies, both ways, bounded in bytes."""

import gzip
import zlib

from core.errors import Malformed, TooLarge, UnsupportedMedia

GZIP = "gzip"
DEFLATE = "deflate"

_GZIP_MAGIC = b"\x1f\x8b"
#: zlib's own numbers for the two containers.
_WBITS = {GZIP: 31, DEFLATE: 15}
#: A reply is made once and read once: little time for most of the gain.
_LEVEL = 1


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before `Content-Encoding`. Raises TooLarge beyond `limit` without making more than
    that, UnsupportedMedia for another encoding, Malformed for what doesn't inflate.

    A body that isn't of the encoding is taken as it is: a client that keeps its headers for the next call
    sends such.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in _WBITS:
        raise UnsupportedMedia(
            f"Expected Content-Encoding {GZIP} or {DEFLATE}, got {encoding[:100]!r}; send the body in one of "
            "them, or as it is."
        )
    if not _is_of(encoding, body):
        return body
    stream = zlib.decompressobj(_WBITS[encoding])
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Malformed(f"Expected a body in {encoding}: {error}.", code="bad_encoding") from error
    if len(plain) > limit:
        raise TooLarge(f"This route takes at most {limit} bytes; the body inflates to more.")
    if not stream.eof or stream.unused_data:
        came = "it is cut short" if not stream.eof else "more comes after its end"
        raise Malformed(f"Expected one whole body in {encoding}: {came}.", code="bad_encoding")
    return plain


def accepted(header: str) -> str | None:
    """What `Accept-Encoding` takes of ours, gzip before deflate; None for neither. Never br or zstd: the
    clients of this protocol ask for them and cannot read them."""
    taken = set()
    for part in header.lower().split(","):
        name, _, parameter = part.partition(";")
        key, _, quality = parameter.partition("=")
        if key.strip() != "q" or quality.strip().strip("0.") != "":
            taken.add(name.strip())
    return next((encoding for encoding in (GZIP, DEFLATE) if encoding in taken), None)


def deflated(body: bytes, encoding: str) -> bytes:
    if encoding == GZIP:
        return gzip.compress(body, _LEVEL, mtime=0)
    return zlib.compress(body, _LEVEL)


def _is_of(encoding: str, body: bytes) -> bool:
    if encoding == GZIP:
        return body.startswith(_GZIP_MAGIC)
    # RFC 1950: the method is 8, and the first two bytes are a multiple of 31.
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
