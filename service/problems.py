"""From what went wrong to what is answered: one table, one body (RFC 9457), nobody else writes a status."""

from http import HTTPStatus
from typing import Any, get_args

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from litestar.handlers import HTTPRouteHandler
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core import errors
from core.errors import ModelyardError
from core.redaction import redact
from modelyard.specs import Problem, ProblemError
from service.open_inference.refusals import Refusal, answer_refusal, refusal_of, speaks

MEDIA_TYPE = "application/problem+json"

#: The one table. A class that is not listed answers as the nearest one above it.
#: The framework names a handler's argument; these are called otherwise in a request.
SENT_AS = {
    "job_state": "state",
    "batch_state": "state",
    "delivery_state": "state",
    "job_name": "name",
    "kind": "format",
    "key_id": "key",
    "idempotency_key": "Idempotency-Key",
}

STATUS: dict[type[ModelyardError], HTTPStatus] = {
    ModelyardError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Malformed: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Gone: HTTPStatus.GONE,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TimedOut: HTTPStatus.GATEWAY_TIMEOUT,
}

#: A 503 that names no wait of its own.
DEFAULT_RETRY_AFTER_S = 1

log = structlog.stdlib.get_logger()


def answer_problem(
    request: Request[Any, Any, Any], error: Exception
) -> Response[Problem] | Response[Refusal]:
    """The exception handler of the whole app."""
    if isinstance(error, ValidationException):
        error = _of_parameters(error, request.scope.get("route_handler"))
    problem, headers = problem_of(error)
    note(error, problem, request.method, request.url.path)
    if speaks(request.url.path):
        return answer_refusal(problem, headers)
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def encode_problem(error: Exception, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, for what is refused before the app sees it."""
    problem, headers = problem_of(error)
    if speaks(path):
        status, refusal = refusal_of(problem)
        return status, {"content-type": "application/json", **headers}, msgspec.json.encode(refusal)
    return problem.status, {"content-type": MEDIA_TYPE, **headers}, msgspec.json.encode(problem)


def note(error: Exception, problem: Problem, method: str, path: str) -> None:
    """In the log, where the operator can do something about it."""
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("unexpected_error", method=method, path=path, exc_info=error)
    elif problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.warning("unavailable", code=problem.code, reason=str(error.__cause__ or error))


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The body, and the headers that go with it. Says nothing of our inside."""
    match error:
        case ModelyardError():
            return _of_ours(error)
        case OperationalError() | InterfaceError() | PoolTimeout():
            return _of_ours(
                errors.Unavailable(
                    "The database does not answer at the moment; send the same request again.",
                    code="database_unavailable",
                )
            )
        case RecursionError():
            return _of_ours(errors.Malformed("The body nests deeper than can be read; send it flatter."))
        case ValidationException():
            return _of_ours(_of_parameters(error))
        case NotFoundException():
            return _of_ours(errors.NotFound("There is no such route; /schema lists all of them."))
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return _of_litestar(error)
        case _:
            return _problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "internal",
                "Something failed on our side. The log has it under this request's id.",
            ), {}


def _of_ours(error: ModelyardError) -> tuple[Problem, dict[str, str]]:
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers = dict(error.headers)
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    elif status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(DEFAULT_RETRY_AFTER_S)
    return _problem(status, error.code, error.detail, error.errors), headers


def _of_litestar(error: HTTPException) -> tuple[Problem, dict[str, str]]:
    """405, 413, a bad boundary, …: the framework's own, in our words where it has none."""
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    match status:
        case HTTPStatus.BAD_REQUEST:
            code = errors.Malformed.code
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            code = errors.TooLarge.code
        case _:
            pass
    return _problem(status, code, error.detail or status.description), dict(error.headers or {})


def _of_parameters(error: ValidationException, handler: object = None) -> errors.Invalid:
    """A query, path or header parameter that cannot be taken. Pointers are for bodies: these have none."""
    listed = error.extra if isinstance(error.extra, list) else []
    found = [
        ProblemError(
            "",
            "parameter",
            f"parameter {SENT_AS.get(key, key)!r}: {item.get('message', 'invalid')}{_choices(handler, key)}",
        )
        for item in listed
        if isinstance(item, dict)
        for key in [str(item.get("key", "?"))]
    ]
    said = "; ".join(one.message for one in found) or error.detail
    return errors.Invalid(f"A parameter cannot be taken: {said}.", code="invalid_parameter", errors=found)


def _choices(handler: object, key: str) -> str:
    """The valid words of a handler's argument that is an enumeration."""
    if not isinstance(handler, HTTPRouteHandler):
        return ""
    parameter = handler.parsed_fn_signature.parameters.get(key)
    types = [parameter.annotation, *get_args(parameter.annotation)] if parameter is not None else []
    words = [str(word) for kind in types for word in getattr(kind, "__members__", {}).values()]
    return f", expected one of {', '.join(words)}" if words else ""


def _problem(status: HTTPStatus, code: str, detail: str, listed: list[ProblemError] | None = None) -> Problem:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return Problem(
        type=f"urn:modelyard:problem:{code}",
        title=status.phrase,
        status=int(status),
        detail=redact(detail),
        code=code,
        instance=f"urn:modelyard:request:{request_id}" if request_id else None,
        errors=[ProblemError(redact(one.pointer), one.code, redact(one.message)) for one in listed or []],
    )
