"""Between our words and httpx2's: requests, replies, and every error of httpx2 as one of ours."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from modelyard.errors import ConnectError, ConnectionLost, Timeout, TransportError, UnexpectedReply
from modelyard.transport.story import Body, Call, Reply

#: Pieces in which bodies are sent and received.
CHUNK_BYTES = 1024 * 1024

#: The first row that fits wins, so the narrower stand before the wider.
OURS_FOR: tuple[tuple[type[httpx2.RequestError], type[TransportError], str], ...] = (
    (httpx2.ConnectError, ConnectError, "nobody answers"),
    (httpx2.ConnectTimeout, ConnectError, "nobody answers"),
    (httpx2.ProxyError, ConnectError, "the proxy does not let the call through"),
    (httpx2.TimeoutException, Timeout, "no answer in time"),
    (httpx2.NetworkError, ConnectionLost, "the connection broke off"),
    (httpx2.RemoteProtocolError, ConnectionLost, "the connection broke off"),
    (httpx2.SSEError, UnexpectedReply, "the answer is no event stream"),
    (httpx2.DecodingError, UnexpectedReply, "the answer's content encoding is damaged"),
    (httpx2.TooManyRedirects, UnexpectedReply, "the answer is a circle of redirects"),
    (httpx2.RequestError, TransportError, "the call could not be sent"),
)

HINT_OF = {
    ConnectError: "start the service with `modelyard up`, or set MODELYARD_URL to where it runs",
    Timeout: "give the client a larger timeout_s, or look whether the service is overloaded",
}


@contextmanager
def translated(http: httpx2.Client | httpx2.AsyncClient, call: Call) -> Iterator[None]:
    try:
        yield
    except httpx2.RequestError as error:
        ours, what = next((ours, what) for theirs, ours, what in OURS_FOR if isinstance(error, theirs))
        hint = f"; {HINT_OF[ours]}" if ours in HINT_OF else ""
        cause = f" ({error})" if str(error) else ""
        raise ours(f"{call.method} {call.path} at {http.base_url}: {what}{cause}{hint}") from error


def arguments(http: httpx2.Client, call: Call) -> dict[str, Any]:
    content = call.content if isinstance(call.content, bytes) else call.content.chunks()
    return _arguments(http, call) | {"content": content or None}


def async_arguments(http: httpx2.AsyncClient, call: Call) -> dict[str, Any]:
    content = call.content if isinstance(call.content, bytes) else _in_threads(call.content)
    return _arguments(http, call) | {"content": content or None}


def reply_of(response: httpx2.Response) -> Reply:
    """Of a response whose body has been read."""
    return Reply(response.status_code, _headers_of(response), response.content)


def finished(response: httpx2.Response) -> Reply:
    """Of a response whose body went elsewhere."""
    return Reply(response.status_code, _headers_of(response), b"")


def _arguments(http: httpx2.Client | httpx2.AsyncClient, call: Call) -> dict[str, Any]:
    headers = dict(call.headers)
    if not isinstance(call.content, bytes) and call.content.size_bytes is not None:
        headers["Content-Length"] = str(call.content.size_bytes)
    timeout = http.timeout
    if timeout.read is not None:
        read_s = timeout.read + call.held_s
        timeout = httpx2.Timeout(connect=timeout.connect, read=read_s, write=timeout.write, pool=timeout.pool)
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.params),
        "headers": headers,
        "timeout": timeout,
    }


async def _in_threads(body: Body) -> AsyncIterator[bytes]:
    """The pieces of a body, each read off the event loop."""
    chunks = await asyncio.to_thread(body.chunks)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def _headers_of(response: httpx2.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
