"""The stories that all resources share: make a call, send it with retries, decode it, walk pages."""

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from modelyard.errors import (
    ApiError,
    Conflict,
    ConnectError,
    ConnectionLost,
    InvalidArgument,
    ModelyardError,
    TooManyRequests,
    Unavailable,
    UnexpectedReply,
    api_error,
)
from modelyard.specs import Page
from modelyard.transport.story import Call, Item, Listen, Receive, Reply, Sleep, Story, Stream

T = TypeVar("T")

#: First wait of the exponential backoff, its cap, and the longest Retry-After that is waited for.
BACKOFF_S = 0.25
MAX_BACKOFF_S = 8.0
MAX_RETRY_AFTER_S = 60.0

#: The longest that the service holds an answer, and the least time between two such questions.
LONG_POLL_S = 30
MIN_POLL_S = 0.05

#: The code of a 409 that says: the same request came before and is not answered yet.
IN_FLIGHT = "idempotency_in_flight"

#: Rows a page asks for.
PAGE_LIMIT = 200


def path(template: str, *names: str | int) -> str:
    """`path("/v1/jobs/{}", id)` with each name quoted.

    Raises InvalidArgument for a name that would change which route is meant.
    """
    for name in names:
        if str(name) in ("", ".", ".."):
            raise InvalidArgument(f"expected a name or an id, got {name!r}")
    return template.format(*(quote(str(name), safe="@") for name in names))


def get(path: str, **params: str | int | None) -> Call:
    return Call(method="GET", path=path, params=_given(params), is_repeatable=True)


def delete(path: str) -> Call:
    return Call(method="DELETE", path=path, is_repeatable=True)


def held(call: Call, wait_s: float | None) -> Call:
    """`call` as a long poll: the service holds its answer for `wait_s`, in whole seconds up to 30."""
    if wait_s is None:
        return call
    wait = min(max(math.ceil(wait_s), 0), LONG_POLL_S)
    return replace(call, params={**call.params, "wait": wait}, held_s=wait)


def send_json(
    method: str,
    path: str,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    is_repeatable: bool,
) -> Call:
    """A call with a JSON body; arrays of numpy and torch are sent as nested lists."""
    return Call(
        method=method,
        path=path,
        headers={"Content-Type": "application/json", **(headers or {})},
        content=msgspec.json.encode(body, enc_hook=_plain),
        is_repeatable=is_repeatable,
    )


def fetch(call: Call, reply: type[T], *, max_retries: int) -> Story[T]:
    """Send, then decode. Unknown fields are ignored, so that an older client reads a newer service."""
    answer = yield from send(call, max_retries=max_retries)
    return decode(answer.content, reply, call)


def pages(call: Call, row: type[T], *, max_retries: int) -> Stream[T]:
    """Every row of a list, page after page."""
    after: str | None = None
    while True:
        params = {"limit": PAGE_LIMIT, **call.params, **({"after": after} if after else {})}
        page: Page[T] = yield from fetch(replace(call, params=params), Page[row], max_retries=max_retries)  # type: ignore[valid-type]
        for item in page.items:
            yield Item(item)
        if page.next is None:
            return
        after = page.next


def send(effect: Call | Receive | Listen, *, max_retries: int) -> Story[Reply]:
    """Perform `effect` until it is answered with a status below 400.

    Retries only what may be repeated, only when the service never answered or asked to come back (429,
    503, or the first request with the same Idempotency-Key is still being answered), at most
    `max_retries` times. Raises TransportError or ApiError.
    """
    call = effect if isinstance(effect, Call) else effect.call
    retries_left = max_retries if _is_repeatable(call) else 0
    backoff_s = BACKOFF_S
    while True:
        try:
            answer: Reply = yield effect
            check(answer, call)
            return answer
        except (ConnectError, ConnectionLost, TooManyRequests, Unavailable, Conflict) as error:
            wait_s = wait_before_retry(error, backoff_s)
            is_final = isinstance(error, Conflict) and error.code != IN_FLIGHT
            if retries_left == 0 or wait_s is None or is_final:
                raise
        yield Sleep(wait_s)
        retries_left -= 1
        backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)


def breathe(asked_s: float, now_s: float) -> Story[None]:
    """Between two long polls: an answer that came at once is not followed by a question at once."""
    if now_s - asked_s < MIN_POLL_S:
        yield Sleep(MIN_POLL_S)


def check(answer: Reply, call: Call) -> None:
    """Raises ApiError from 400 up, UnexpectedReply for a redirect, which the service never sends."""
    if answer.status >= 400:
        raise api_error(answer.status, answer.headers, answer.content)
    if answer.status >= 300:
        raise UnexpectedReply(
            f"expected an answer to {call.method} {call.path}, got a redirect ({answer.status}) to "
            f"{answer.headers.get('location', 'nowhere')}; give the client the service's own URL"
        )


def decode(content: bytes, reply: type[T], call: Call) -> T:
    try:
        return msgspec.json.decode(content, type=reply)
    except msgspec.MsgspecError as error:
        raise UnexpectedReply(
            f"the answer to {call.method} {call.path} is not what this client reads ({error}); "
            "check that the URL is Modelyard's, and that client and service are of the same release"
        ) from error


def wait_before_retry(error: ModelyardError, backoff_s: float) -> float | None:
    """Seconds to wait: Retry-After where one came (None where it is too long), else jittered backoff."""
    if isinstance(error, ApiError) and error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= MAX_RETRY_AFTER_S else None
    return backoff_s * random.uniform(0.5, 1.0)


def _is_repeatable(call: Call) -> bool:
    return call.is_repeatable and (isinstance(call.content, bytes) or call.content.is_repeatable)


def _given(params: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _plain(value: object) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise NotImplementedError
