"""What the explaining child does: loads a version from its files and explains rows. No HTTP, no row.

Both sides of the pipe find the messages here. A request is MessagePack, since it carries images; a row of
JSON stands in it as JSON, since it may hold an integer that MessagePack cannot.
"""

import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from core import errors
from core.errors import Invalid, ModelyardError
from core.predict import Predictor
from modelyard.specs import Explanation, Method
from service.planner import Broken, PlanBroke, Refused


class Row(Struct, frozen=True):
    """`index` is the class or label that was answered. An image is its bytes, anything else JSON."""

    index: int | None
    image: bytes | None = None
    value: bytes = b""


class Explain(Struct, frozen=True):
    """`manifest` and `weights` are the paths of the version's files."""

    manifest: str
    weights: str
    method: Method
    rows: list[Row]


class Explained(Struct, frozen=True, tag=True):
    explanations: list[Explanation]


Reply: TypeAlias = Explained | Refused | Broken

_requests = msgspec.msgpack.Decoder(Explain)
_replies = msgspec.json.Decoder(Reply)


def answer(payload: bytes) -> bytes:
    """In the child: one encoded request to one encoded reply."""
    reply: Reply
    try:
        reply = Explained(_explained(_requests.decode(payload)))
    except MemoryError:
        detail = "Explaining these rows takes more memory than the service gives to it. Send fewer rows."
        reply = Refused(Invalid.__name__, detail, "explanation_memory", [])
    except ModelyardError as error:
        reply = Refused(type(error).__name__, error.detail, error.code, error.errors)
    except Exception:  # the child lives on; the service answers 500 and logs it
        reply = Broken(traceback.format_exc())
    return msgspec.json.encode(reply)


def encode(request: Explain) -> bytes:
    return msgspec.msgpack.encode(request)


def decode(payload: bytes) -> list[Explanation]:
    """Raises what the child raised; PlanBroke for what no row should bring about."""
    reply: Reply = _replies.decode(payload)
    match reply:
        case Refused(kind, detail, code, listed):
            raised: type[ModelyardError] = getattr(errors, kind)
            raise raised(detail, code=code, errors=listed)
        case Broken(said):
            raise PlanBroke(said)
        case Explained(explanations):
            return explanations


def row_of(instance: Any, index: int | None) -> Row:
    if isinstance(instance, bytes):
        return Row(index, image=instance)
    return Row(index, value=msgspec.json.encode(instance, enc_hook=_plain))


def _explained(request: Explain) -> list[Explanation]:
    try:  # here: captum is an extra, and costs a second that this child alone pays
        from core.attribution import explain
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "captum":
            raise
        detail = "The service has no captum; install it there: pip install 'modelyard[explain]'."
        raise Invalid(detail, code="explain_not_installed") from error
    predictor = _loaded(request.manifest, request.weights)
    return [explain(predictor, _instance(row), request.method, row.index) for row in request.rows]


@lru_cache(maxsize=1)
def _loaded(manifest: str, weights: str) -> Predictor:
    """The files of a version never change. That they are what was registered, the service has seen."""
    return Predictor.load(Path(manifest), Path(weights))


def _instance(row: Row) -> Any:
    return row.image if row.image is not None else msgspec.json.decode(row.value)


def _plain(value: Any) -> Any:
    """An array of numpy as nested lists."""
    return value.tolist()
