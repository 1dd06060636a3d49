"""Everything a call of the client can raise, as one tree.

    ModelyardError
    ├── TransportError                no answer came, or none that can be read
    │   ├── ConnectError              nobody answers at the address
    │   ├── Timeout                   no answer within `timeout_s`
    │   ├── ConnectionLost            the connection broke off in the middle
    │   └── UnexpectedReply           an answer, but not one of Modelyard's
    ├── ApiError                      the service refused: status, problem, request_id
    │   ├── BadRequest            400 the bytes are no request
    │   ├── Unauthenticated       401 no key, or a wrong one
    │   ├── Forbidden             403 the key lacks the scope
    │   ├── NotFound              404 no such thing, or another owner's
    │   ├── Conflict              409 the state does not allow it, or the name is taken
    │   ├── Gone                  410 its bytes were collected
    │   ├── PreconditionFailed    412
    │   ├── PayloadTooLarge       413
    │   ├── UnsupportedMediaType  415
    │   ├── Invalid               422 well formed, but cannot mean anything
    │   ├── TooManyRequests       429 your quota
    │   └── ServerError           5xx
    │       └── Unavailable       503 the service's own capacity
    ├── JobFailed                     the job that was waited for failed: job, error
    ├── DatasetFailed                 the upload could not be read: dataset, problem
    ├── BatchPredictionFailed         the batch prediction that was waited for failed: batch, error
    ├── WaitTimeout                   what was waited for goes on longer than was asked for
    └── InvalidArgument               what was given cannot be meant; nothing was sent (also a ValueError)

Any other 4xx is a plain `ApiError`.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from modelyard.specs import BatchPrediction, Dataset, Job, JobError, JobErrorCode, Problem, ProblemError

__all__ = [
    "ApiError",
    "BadRequest",
    "BatchPredictionFailed",
    "Conflict",
    "ConnectError",
    "ConnectionLost",
    "DatasetFailed",
    "Forbidden",
    "Gone",
    "Invalid",
    "InvalidArgument",
    "JobFailed",
    "ModelyardError",
    "NotFound",
    "PayloadTooLarge",
    "PreconditionFailed",
    "ServerError",
    "Timeout",
    "TooManyRequests",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedReply",
    "UnsupportedMediaType",
    "WaitTimeout",
    "api_error",
]

#: Of a body that is no Problem, so much is shown.
SHOWN_BODY_CHARS = 300


class ModelyardError(Exception):
    """The root: `except ModelyardError` catches all that the client raises by itself."""


class TransportError(ModelyardError):
    """No answer came, or none that can be read."""


class ConnectError(TransportError):
    """Nobody answers at the address."""


class Timeout(TransportError):
    """No answer within `timeout_s`."""


class ConnectionLost(TransportError):
    """The connection broke off in the middle; whether the service acted is unknown."""


class UnexpectedReply(TransportError):
    """An answer that Modelyard does not give: another server at the address, or a damaged body."""


class ApiError(ModelyardError):
    """The service refused.

    `request_id` names the request in the service's log; `retry_after_s` is what the service asked to
    wait, where it did.
    """

    def __init__(
        self,
        status: int,
        problem: Problem,
        *,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        """The stable word to match on."""
        return self.problem.code

    @property
    def errors(self) -> list[ProblemError]:
        """What is wrong with the request, each with its JSON pointer."""
        return self.problem.errors

    def __str__(self) -> str:
        return describe(self.problem)


class BadRequest(ApiError):
    """400: the bytes are no request."""


class Unauthenticated(ApiError):
    """401: no key, or a wrong one."""


class Forbidden(ApiError):
    """403: the key lacks the scope."""


class NotFound(ApiError):
    """404: no such thing, or another owner's."""


class Conflict(ApiError):
    """409: the state does not allow it, or the name is taken."""


class Gone(ApiError):
    """410: it was here; its bytes were collected."""


class PreconditionFailed(ApiError):
    """412: what the request required is not so."""


class PayloadTooLarge(ApiError):
    """413: more bytes than the route takes."""


class UnsupportedMediaType(ApiError):
    """415: a content type or a format that the service does not read."""


class Invalid(ApiError):
    """422: well formed, but cannot mean anything; `errors` has each reason."""


class TooManyRequests(ApiError):
    """429: your quota."""


class ServerError(ApiError):
    """5xx: the service's fault."""


class Unavailable(ServerError):
    """503: the service's own capacity, or a neighbour it needs; try again later."""


class JobFailed(ModelyardError):
    """A job that was waited for ended in `failed`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.error = job.error or JobError(code=JobErrorCode.INTERNAL, message="the service gave no reason")
        super().__init__(job)

    def __str__(self) -> str:
        hint = f" {self.error.hint}" if self.error.hint else ""
        pointer = f"\n  {self.error.pointer}" if self.error.pointer else ""
        return f"job {self.job.id} failed ({self.error.code}): {self.error.message}{hint}{pointer}"


class DatasetFailed(ModelyardError):
    """An upload that was waited for could not be read."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.problem = dataset.error
        super().__init__(dataset)

    def __str__(self) -> str:
        reason = describe(self.problem) if self.problem else "the service gave no reason"
        return f"dataset {self.dataset.name}@{self.dataset.version} failed: {reason}"


class BatchPredictionFailed(ModelyardError):
    """A batch prediction that was waited for ended in `failed`."""

    def __init__(self, batch: BatchPrediction) -> None:
        self.batch = batch
        self.error = batch.error or JobError(code=JobErrorCode.INTERNAL, message="the service gave no reason")
        super().__init__(batch)

    def __str__(self) -> str:
        hint = f" {self.error.hint}" if self.error.hint else ""
        return f"batch prediction {self.batch.id} failed ({self.error.code}): {self.error.message}{hint}"


class WaitTimeout(ModelyardError):
    """What was waited for goes on longer than was asked for; it was not stopped."""


class InvalidArgument(ModelyardError, ValueError):
    """What was given to the client cannot be meant; nothing was sent."""


ERROR_OF_STATUS: Mapping[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: PreconditionFailed,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    422: Invalid,
    429: TooManyRequests,
    503: Unavailable,
}


def api_error(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error of an answer with a status of 400 or more. A body that is no Problem is quoted in one."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        problem = _problem_around(status, body)
    kind = ERROR_OF_STATUS.get(status, ServerError if status >= 500 else ApiError)
    return kind(
        status,
        problem,
        request_id=headers.get("x-request-id"),
        retry_after_s=_seconds(headers.get("retry-after")),
    )


def describe(problem: Problem) -> str:
    """Title and detail on the first line, then one line for each pointer."""
    detail = problem.detail if problem.detail != problem.title else ""
    head = ": ".join(part for part in (problem.title, detail) if part)
    return "\n".join([head, *(f"  {error.pointer or '(body)'}: {error.message}" for error in problem.errors)])


def _problem_around(status: int, body: bytes) -> Problem:
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = f"Status {status}"
    shown = body.decode(errors="replace").strip()[:SHOWN_BODY_CHARS]
    detail = shown or f"the answer with status {status} had no body"
    return Problem(type="about:blank", title=title, status=status, detail=detail, code=f"http_{status}")


def _seconds(retry_after: str | None) -> float | None:
    """Modelyard sends whole seconds; a date, which a proxy may send, is not waited for."""
    if retry_after is None or not retry_after.strip().isdecimal():
        return None
    return float(retry_after)
