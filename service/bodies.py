"""Reading request bodies: bounded in bytes and in time, decoded strictly, errors with a JSON pointer."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from litestar import Request

from core.errors import Invalid, Malformed, TooLarge, UnsupportedMedia
from core.faults import join, suggestion
from modelyard.specs import ProblemError

MIB = 1024 * 1024

AnyRequest = Request[Any, Any, Any]

T = TypeVar("T")

_WHERE = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


async def chunks(request: AnyRequest, *, limit: int, timeout_s: float) -> AsyncIterator[bytes]:
    """The body as it comes in. Raises TooLarge beyond `limit` (before reading, where the length is
    announced), Malformed where nothing comes for `timeout_s` or the client leaves."""
    _require_taken(request, limit, may_be_encoded=False)
    received = 0
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                message = await request.receive()
        except TimeoutError as error:
            raise Malformed(
                f"Nothing of the body came for {timeout_s:g} s; send it again.", code="body_timeout"
            ) from error
        if message["type"] != "http.request":
            raise _incomplete()
        received += len(message["body"])
        if received > limit:
            raise too_large(limit, "more came")
        if message["body"]:
            yield message["body"]
        if not message.get("more_body", False):
            return


async def read_body(
    request: AnyRequest, *, limit: int, timeout_s: float, may_be_encoded: bool = False
) -> bytes:
    """A whole small body, all of it within `timeout_s`. Where it `may_be_encoded` the caller undoes that."""
    _require_taken(request, limit, may_be_encoded=may_be_encoded)
    return await read_whole(request.receive, limit=limit, timeout_s=timeout_s)


async def read_whole(receive: Callable[[], Awaitable[Any]], *, limit: int, timeout_s: float) -> bytes:
    """For a body that mostly lies there already: one alarm for all of it. Raises as `chunks` does, and
    Malformed where its end does not come in time."""
    came, size = list[bytes](), 0
    try:
        async with asyncio.timeout(timeout_s):  # not `whole_within`: this is done for every prediction
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _incomplete()
                came.append(message["body"])
                size += len(came[-1])
                if size > limit:
                    raise too_large(limit, "more came")
                if not message.get("more_body", False):
                    return came[0] if len(came) == 1 else b"".join(came)
    except TimeoutError as error:
        raise _late(timeout_s) from error


@asynccontextmanager
async def whole_within(timeout_s: float) -> AsyncIterator[None]:
    """Around reading a body piece by piece. Raises Malformed where the end does not come in time."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise _late(timeout_s) from error


def require_json(request: AnyRequest) -> None:
    kind = request.content_type[0]
    if kind not in ("application/json", ""):
        raise UnsupportedMedia(f"Expected Content-Type application/json, got {kind[:100]}.")


def decode(body: bytes, kind: type[T]) -> T:
    """Strict: no unknown fields, `"1"` is no integer. Malformed for no JSON, else Invalid with a pointer."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        pointer, message = pointer_of(str(error))
        if (found := _UNKNOWN.fullmatch(message)) is not None:
            if pointer == "" and issubclass(kind, msgspec.Struct):
                message += f".{suggestion(found[1], kind.__struct_encode_fields__)}"
            pointer = join(pointer, found[1])
        raise Invalid(
            f"The body cannot be taken: {message} (at {pointer or 'its top'}).",
            errors=[ProblemError(pointer, "invalid", message)],
        ) from error
    except msgspec.DecodeError as error:
        raise Malformed(f"Expected JSON: {error}.") from error
    except RecursionError as error:
        raise Malformed("The body nests deeper than can be read; send it flatter.") from error


def pointer_of(message: str) -> tuple[str, str]:
    """msgspec's ``… - at `$.instances[0]` `` as an RFC 6901 pointer, and the message without it. A
    `[...]` (any element) ends the pointer: msgspec does not say which."""
    found = _WHERE.search(message)
    if found is None:
        return "", message
    pointer = ""
    path = found[1]
    while (step := _STEP.match(path)) is not None:
        pointer += "/" + (step[1] or step[2]).replace("~", "~0").replace("/", "~1")
        path = path[step.end() :]
    return pointer, message[: found.start()]


def too_large(limit: int, came: str) -> TooLarge:
    return TooLarge(f"This route takes at most {limit} bytes; {came}.")


def _require_taken(request: AnyRequest, limit: int, *, may_be_encoded: bool) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large(limit, f"{announced} were announced")
    if not may_be_encoded and request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMedia("A body is taken as it is; send it without Content-Encoding.")


def _incomplete() -> Malformed:
    return Malformed("The connection was closed before the body was complete.", code="body_incomplete")


def _late(timeout_s: float) -> Malformed:
    return Malformed(f"The body was not complete after {timeout_s:g} s; send it again.", code="body_timeout")
