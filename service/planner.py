"""What the helper child does: reads the bytes of a spec and checks it. No HTTP, no row, no file but
the uploads that the spec names.

A request is MessagePack, since it carries bytes; a reply is JSON, since a spec may hold an integer that
MessagePack cannot. Both sides of the pipe find the messages here.
"""

import re
import traceback
from pathlib import Path
from typing import Any, TypeAlias, assert_never

import msgspec
from msgspec import Struct

from core import errors
from core.data.manifest import Manifest
from core.errors import Invalid, ModelyardError
from core.faults import show
from core.merge_patch import merge_patch
from core.nets.decode import decode_struct
from core.nets.named_files import check_start
from core.nets.parse import parse_spec
from core.nets.plan import Checked, Source, check, refusal
from core.uploads import uploads_of
from modelyard.specs import ForkRequest, ProblemError

REFERENCE = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})(?:@([1-9][0-9]{0,8}))?")


class Read(Struct, frozen=True, tag=True):
    """Is this a spec at all, and what does it name? Answered with Named or Refused."""

    body: bytes


class Fork(Struct, frozen=True, tag=True):
    """What would a fork train? `spec` is the JSON of the job that it is of, `dataset` the name@version which
    that job learns from. Answered with Forked or Refused."""

    body: bytes
    spec: bytes
    dataset: str


class Examine(Struct, frozen=True, tag=True):
    """Can it train? `dataset` is name@version, `manifest` its JSON. `files` are the paths of uploads by id,
    `missing` what is wrong with uploads that have none. `start` is the path of the weights that it begins
    with. Answered with Passed or Refused."""

    body: bytes
    dataset: str
    manifest: bytes
    max_parameters: int
    files: dict[str, str] = {}
    missing: list[ProblemError] = []
    start: str | None = None


Request: TypeAlias = Read | Fork | Examine


class Named(Struct, frozen=True, tag=True):
    """`uploads` are ids by the JSON pointer that names them."""

    reference: str
    uploads: dict[str, str]


class Forked(Struct, frozen=True, tag=True):
    """`spec` is JSON; `start` is best, last or a checkpoint's id."""

    spec: str
    start: str | None


class Passed(Struct, frozen=True, tag=True):
    checked: Checked


class Refused(Struct, frozen=True, tag=True):
    """An error of `core.errors` by the name of its class."""

    kind: str
    detail: str
    code: str
    errors: list[ProblemError]


class Broken(Struct, frozen=True, tag=True):
    """A bug of ours, with its traceback for the log."""

    traceback: str


Reply: TypeAlias = Named | Forked | Passed | Refused | Broken


class PlanBroke(Exception):
    """The check raised what it should not; the message is the child's traceback."""


_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.json.Decoder(Reply)


def answer(payload: bytes) -> bytes:
    """In the child: one encoded request to one encoded reply."""
    reply: Reply
    try:
        reply = _answer(_requests.decode(payload))
        return msgspec.json.encode(reply)
    except RecursionError:
        detail = "The spec nests deeper than can be read; a net nests at most 32 levels."
        reply = Refused(errors.Malformed.__name__, detail, errors.Malformed.code, [])
    except MemoryError:
        detail = "Checking this spec takes more memory than the service gives to a plan; make it smaller."
        fault = ProblemError("", "plan_memory", detail)
        reply = Refused(Invalid.__name__, detail, "plan_memory", [fault])
    except ModelyardError as error:
        reply = Refused(type(error).__name__, error.detail, error.code, error.errors)
    except Exception:  # the child lives on; the service answers 500 and logs it
        reply = Broken(traceback.format_exc())
    return msgspec.json.encode(reply)


def encode(request: Request) -> bytes:
    return msgspec.msgpack.encode(request)


def decode(payload: bytes) -> Named | Forked | Passed:
    """Raises what the child raised; PlanBroke for what no spec should bring about."""
    match _replies.decode(payload):
        case Refused(kind, detail, code, listed):
            raised: type[ModelyardError] = getattr(errors, kind)
            raise raised(detail, code=code, errors=listed)
        case Broken(said):
            raise PlanBroke(said)
        case Passed(checked) as reply:
            checked.plan.spec = checked.spec  # sent once, see `_answer`
            return reply
        case Named() | Forked() as reply:
            return reply
        case other:
            assert_never(other)


def _answer(request: Request) -> Reply:
    raw = parse_spec(request.body)
    match request:
        case Read():
            reference = _reference_of(raw)
            assert isinstance(raw, dict), "it names a dataset"
            return Named(reference, uploads_of(raw))
        case Fork():
            return _fork(raw, request)
        case Examine():
            checked = _check(raw, request)
            checked.plan.spec = {}  # the same as the job's; a spec of a mebibyte goes through the pipe once
            return Passed(checked)


def _fork(raw: object, request: Fork) -> Forked:
    """On the version that the job learns from, unless the patch says otherwise."""
    errors: list[ProblemError] = []
    asked = decode_struct(raw, ForkRequest, "", errors)
    if asked is None or errors:
        raise refusal(errors)
    spec = msgspec.json.decode(request.spec) | {"dataset": request.dataset}
    return Forked(msgspec.json.encode(merge_patch(spec, asked.patch)).decode(), asked.start)


def _check(raw: object, request: Examine) -> Checked:
    manifest = msgspec.json.decode(request.manifest, type=Manifest)
    try:
        checked = check(
            raw,
            Source(request.dataset, manifest),
            max_parameters=request.max_parameters,
            files={upload_id: Path(path) for upload_id, path in request.files.items()},
        )
    except Invalid as error:
        raise refusal([*error.errors, *request.missing]) from error
    errors = list(request.missing)
    if request.start is not None:
        check_start(checked.spec["model"], Path(request.start), errors)
    if errors:
        raise refusal(errors)
    return checked


def _reference_of(raw: object) -> str:
    """Without a dataset nothing else can be checked, but the shape of the body can be told."""
    if not isinstance(raw, dict):
        message = f"A job is a JSON object; {show(raw)} came."
        raise Invalid(message, errors=[ProblemError("", "wrong_type", message)])
    reference: Any = raw.get("dataset")
    if isinstance(reference, str) and REFERENCE.fullmatch(reference):
        return reference
    code = "required" if reference is None else "invalid"
    raise wrong_dataset(code, f"expected name or name@version, got {_shown(reference)}")


def wrong_dataset(code: str, message: str) -> Invalid:
    return Invalid(
        f"The job names no dataset to learn from: {message}.",
        code=code,
        errors=[ProblemError("/dataset", code, message)],
    )


def _shown(value: object) -> str:
    return repr(value)[:100]
