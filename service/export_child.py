"""What the child of an export does: the bytes of an order to the bytes of a reply. No HTTP, no row."""

import traceback
from typing import assert_never

import msgspec
from msgspec import Struct

from core import errors
from core.errors import Invalid, ModelyardError, Unavailable
from core.export.make import Order, make
from core.storage.durable import StoredFile, is_full


class Made(Struct, frozen=True, tag=True):
    file: StoredFile


class Refused(Struct, frozen=True, tag=True):
    """An error of `core.errors` by the name of its class."""

    kind: str
    detail: str
    code: str


class Broken(Struct, frozen=True, tag=True):
    """A bug of ours, with its traceback for the log."""

    traceback: str


class ExportBroke(Exception):
    """The export raised what it should not; the message is the child's traceback."""


_orders = msgspec.msgpack.Decoder(Order)
_replies = msgspec.msgpack.Decoder(Made | Refused | Broken)


def answer(payload: bytes) -> bytes:
    """In the child."""
    reply: Made | Refused | Broken
    try:
        reply = Made(make(_orders.decode(payload)))
    except ModelyardError as error:
        reply = Refused(type(error).__name__, error.detail, error.code)
    except MemoryError:
        detail = "This export takes more memory than the service gives to one. Take pt or safetensors."
        reply = Refused(Invalid.__name__, detail, "export_memory")
    except Exception as error:  # the service answers 500 and logs it
        if isinstance(error, OSError) and is_full(error):
            detail = "The disk has no room for this export; delete what is not needed, then ask again."
            reply = Refused(Unavailable.__name__, detail, "storage_full")
        else:
            reply = Broken(traceback.format_exc())
    return msgspec.msgpack.encode(reply)


def encode(order: Order) -> bytes:
    return msgspec.msgpack.encode(order)


def decode(payload: bytes) -> StoredFile:
    """Raises what the child raised; ExportBroke for what no net should bring about."""
    match _replies.decode(payload):
        case Made(file):
            return file
        case Refused(kind, detail, code):
            # BadInstance is one of `core.data`'s, and an Invalid.
            raised: type[ModelyardError] = getattr(errors, kind, Invalid)
            raise raised(detail, code=code)
        case Broken(said):
            raise ExportBroke(said)
        case other:
            assert_never(other)
