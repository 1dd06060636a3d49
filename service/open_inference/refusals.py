"""Errors as this protocol's clients read them: `error` is a string, whatever failed."""

from http import HTTPStatus

from litestar import Response
from msgspec import Struct

from modelyard.specs import Problem

PREFIX = "/v2"

#: Its clients know no finer statuses. Anything else is answered as everywhere.
_STATUS = {
    HTTPStatus.UNPROCESSABLE_ENTITY: HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT: HTTPStatus.BAD_REQUEST,
    HTTPStatus.GONE: HTTPStatus.NOT_FOUND,
}


class Refusal(Struct, frozen=True):
    """The body of every error under /v2. `code` is the stable word to match on."""

    error: str
    code: str


def speaks(path: str) -> bool:
    """Whether a request to `path` is in this protocol."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def refusal_of(problem: Problem) -> tuple[int, Refusal]:
    """The status, and the body."""
    status = _STATUS.get(HTTPStatus(problem.status), HTTPStatus(problem.status))
    return int(status), Refusal(problem.detail, problem.code)


def answer_refusal(problem: Problem, headers: dict[str, str]) -> Response[Refusal]:
    status, refusal = refusal_of(problem)
    return Response(refusal, status_code=status, media_type="application/json", headers=headers)
