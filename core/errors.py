"""What can go wrong, without a status number: `service.problems` turns each into an answer.

ModelyardError
├── Malformed            the bytes are no request (bad JSON, duplicate keys, bad multipart)
├── Invalid              well formed, but cannot mean anything: every error with its pointer
├── Unauthenticated      no key, or a wrong one
├── Forbidden            the key lacks the scope
├── NotFound             no such thing, or another owner's
├── Conflict             the state has no such arrow, or a name is taken
├── PreconditionFailed   If-Match did not match
├── TooLarge             more bytes than the route takes
├── UnsupportedMedia     a content type or a format we do not read
├── Gone                 it was here; its bytes were collected
├── TooMany              the caller's own share is used up; wait
├── TimedOut             the caller's own deadline passed
└── Unavailable          our own capacity or a neighbour is missing; try again
    └── Overloaded       too much waits already
"""

from collections.abc import Mapping, Sequence

from modelyard.specs import ProblemError


class ModelyardError(Exception):
    """`code` is the stable word clients match on; `detail` says what was expected, what came, what to do."""

    code = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[ProblemError] = (),
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


class Malformed(ModelyardError):
    code = "malformed"


class Invalid(ModelyardError):
    code = "invalid"


class Unauthenticated(ModelyardError):
    code = "unauthenticated"


class Forbidden(ModelyardError):
    code = "forbidden"


class NotFound(ModelyardError):
    code = "not_found"


class Conflict(ModelyardError):
    code = "conflict"


class PreconditionFailed(ModelyardError):
    code = "precondition_failed"


class TooLarge(ModelyardError):
    code = "too_large"


class UnsupportedMedia(ModelyardError):
    code = "unsupported_media_type"


class Gone(ModelyardError):
    code = "gone"


class TooMany(ModelyardError):
    code = "too_many_requests"


class TimedOut(ModelyardError):
    code = "timed_out"


class Unavailable(ModelyardError):
    code = "unavailable"


class Overloaded(Unavailable):
    code = "overloaded"
