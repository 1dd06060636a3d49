"""What the service and an inference process say to each other; tensors are beside it, in `shared`.

On the socket each message comes after its length.
"""

import struct
import traceback
from typing import TypeAlias

import msgspec
from msgspec import Struct

from core import errors
from core.errors import Invalid, ModelyardError
from service.inference.processes.shared import Layout

#: The length of a message.
LENGTH = struct.Struct("<I")


class Load(Struct, frozen=True, tag=True):
    """Answered with Loaded. `model` is this load's own number; `manifest` and `weights` are paths of files
    that were compared with what was registered."""

    ask: int
    model: int
    name: str
    manifest: str
    weights: str


class Warm(Struct, frozen=True, tag=True):
    """Answered with Warmed, by the thread that will compute it."""

    ask: int
    model: int


class Forward(Struct, frozen=True, tag=True):
    """Answered with Computed. `inputs` are in the shared memory, which has `size_bytes`."""

    ask: int
    model: int
    inputs: list[Layout]
    size_bytes: int


class Forget(Struct, frozen=True, tag=True):
    """Not answered."""

    model: int


Order: TypeAlias = Load | Warm | Forward | Forget


class Up(Struct, frozen=True, tag=True):
    """The first message: orders are welcome."""

    ask: int
    device: str


class Loaded(Struct, frozen=True, tag=True):
    """One that `is_quick` is warm already."""

    ask: int
    size_bytes: int
    is_quick: bool


class Warmed(Struct, frozen=True, tag=True):
    ask: int


class Answered(Struct, frozen=True, tag=True):
    """`outputs` are in the shared memory, which has `size_bytes`."""

    ask: int
    outputs: Layout
    seconds: float
    transform_s: float
    size_bytes: int


class Refused(Struct, frozen=True, tag=True):
    """An error of `core.errors` by the name of its class."""

    ask: int
    kind: str
    detail: str
    code: str
    retry_after_s: int | None


class Broke(Struct, frozen=True, tag=True):
    """Whatever else was raised, with its traceback for the log."""

    ask: int
    traceback: str


Reply: TypeAlias = Up | Loaded | Warmed | Answered | Refused | Broke


class NetBroke(Exception):
    """A net raised this in an inference process; the message is the traceback there."""


_encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Order | Reply) -> bytes:
    body = _encode(message)
    return LENGTH.pack(len(body)) + body


def failure_of(ask: int, error: Exception) -> Refused | Broke:
    if isinstance(error, ModelyardError):
        return Refused(ask, type(error).__name__, error.detail, error.code, error.retry_after_s)
    return Broke(ask, "".join(traceback.format_exception(error)))


def error_of(reply: Refused | Broke) -> Exception:
    """What `failure_of` was made of, as far as that goes."""
    if isinstance(reply, Broke):
        return NetBroke(reply.traceback)
    kind: type[ModelyardError] = getattr(errors, reply.kind, Invalid)
    return kind(reply.detail, code=reply.code, retry_after_s=reply.retry_after_s)
