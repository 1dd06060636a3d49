"""The client's tree of errors, and that no lower-level error is forgotten."""

import inspect
import re
from collections.abc import Iterator

import httpx2
import pytest

from modelyard import errors
from modelyard.errors import ApiError, ModelyardError, api_error
from modelyard.specs import Problem, ProblemError
from modelyard.transport.http import OURS_FOR


def subclasses(kind: type) -> Iterator[type]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    drawn: list[tuple[int, str]] = [
        (len(match[1]) // 4, match[2])
        for match in re.finditer(r"^    ([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    ]
    path: list[str] = []
    parent_of: dict[str, str | None] = {}
    for depth, name in drawn:
        path[depth:] = [name]
        parent_of[name] = path[depth - 1] if depth else None
    real = {kind.__name__: kind.__bases__[0].__name__ for kind in subclasses(ModelyardError)}
    assert parent_of == {"ModelyardError": None, **real}


def test_every_error_is_exported() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert kinds <= set(errors.__all__)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Gone),
        (412, errors.PreconditionFailed),
        (413, errors.PayloadTooLarge),
        (415, errors.UnsupportedMediaType),
        (422, errors.Invalid),
        (429, errors.TooManyRequests),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (503, errors.Unavailable),
        (418, ApiError),
        (499, ApiError),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[ApiError]) -> None:
    error = api_error(status, {}, b"<html>a proxy's page</html>")
    assert type(error) is kind
    assert error.status == status
    assert "a proxy's page" in str(error)


def test_an_api_error_says_title_detail_and_each_pointer() -> None:
    problem = Problem(
        type="about:blank",
        title="Invalid",
        status=422,
        detail="the job cannot train",
        code="invalid",
        errors=[
            ProblemError("/model/layers/1/out_features", "range", "expected at least 1, got 0"),
            ProblemError("", "missing", "expected a dataset"),
        ],
    )
    assert str(errors.Invalid(422, problem)).splitlines() == [
        "Invalid: the job cannot train",
        "  /model/layers/1/out_features: expected at least 1, got 0",
        "  (body): expected a dataset",
    ]


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (" 0 ", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), (None, None)]
)
def test_retry_after_is_read_in_seconds(header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert api_error(503, headers, b"").retry_after_s == seconds


def test_every_error_of_the_http_library_becomes_one_of_ours() -> None:
    theirs = {httpx2.RequestError, *subclasses(httpx2.RequestError)}
    for kind in theirs:
        row = next(row for row in OURS_FOR if issubclass(kind, row[0]))
        is_named = row[0] is not httpx2.RequestError
        assert is_named or kind in {
            httpx2.RequestError,
            httpx2.TransportError,
            httpx2.ProtocolError,
            httpx2.LocalProtocolError,
            httpx2.UnsupportedProtocol,
        }, f"{kind.__name__} is covered by no row of its own"
