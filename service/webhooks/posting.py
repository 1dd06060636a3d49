"""One POST to a receiver that nobody trusts: to an address that was checked, bounded in time and bytes.

The name is resolved once, each of its addresses is checked, and the connection goes to exactly one of
them; TLS and `Host` still speak of the name. Written on a bare connection because an HTTP client resolves
by itself, follows redirects, reads proxies from the environment and takes in whatever comes back.
"""

import asyncio
import contextlib
import email.utils
import ipaddress
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import h11

from service.webhooks.addresses import Address, Allowed
from service.webhooks.targets import Target

#: Of an answer's head, and then of its body, which nobody reads.
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 4 * 1024
READ_BYTES = 4 * 1024

CONNECT_TIMEOUT_S = 5.0
#: For the rest of an answer whose status is known.
LINGER_S = 1.0
#: Of a name's addresses so many are tried.
MAX_ADDRESSES = 4

USER_AGENT = "Modelyard-Webhooks/1"

Resolve = Callable[[str, int], Awaitable[list[str]]]


class NotSent(Exception):
    """No answer with a status came. The message is for the webhook's owner: it names no address of ours."""


@dataclass(frozen=True)
class Answer:
    status: int
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Post:
    """How to reach receivers; `tls` checks their certificates. One for the whole process."""

    allowed: Allowed
    timeout_s: float
    resolve: Resolve
    tls: ssl.SSLContext

    async def __call__(
        self, target: Target, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Answer:
        """Raises NotSent."""
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                addresses = await self._checked(target)
                reader, writer = await self._connect(target, addresses)
                try:
                    connection = await _send(writer, target, headers, body)
                    answer = await _head(reader, connection)
                    limit.reschedule(None)  # what counts is known: the rest has a limit of its own
                    await _linger(reader, connection)
                finally:
                    writer.transport.abort()
        except TimeoutError as error:
            raise NotSent(f"no answer within {self.timeout_s:g} s") from error
        except (OSError, EOFError) as error:
            raise NotSent("the connection broke before an answer came") from error
        except h11.RemoteProtocolError as error:
            raise NotSent("what came back is no HTTP answer") from error
        return _read(answer, now)

    async def _checked(self, target: Target) -> list[str]:
        """All addresses of the host. One that is not allowed is enough to refuse them all: a name that
        mixes them wants us to take the wrong one."""
        try:
            found = await self.resolve(target.host, target.port)
        except OSError as error:
            raise NotSent("refused: the host's name does not resolve") from error
        addresses: list[Address] = [ipaddress.ip_address(address) for address in found]
        if not addresses:
            raise NotSent("refused: the host's name does not resolve")
        if not all(self.allowed.may_reach(target.host, address) for address in addresses):
            raise NotSent("refused: the host has an address that is not public")
        return found[:MAX_ADDRESSES]

    async def _connect(
        self, target: Target, addresses: list[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the first that takes the connection. An address is given to the loop, never a name."""
        tls, name = (self.tls, target.host) if target.is_tls else (None, None)
        reason: Exception | None = None
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await asyncio.open_connection(
                        address, target.port, limit=READ_BYTES, ssl=tls, server_hostname=name
                    )
            except ssl.SSLError as error:
                raise NotSent(f"TLS failed: {error.reason or 'the handshake broke'}") from error
            except (OSError, TimeoutError) as error:
                reason = error
        raise NotSent("nothing takes connections there") from reason


class Resolver:
    """As the machine resolves names, in threads of its own: one that hangs keeps nobody else waiting."""

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Raises OSError."""
        ask = partial(socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _send(
    writer: asyncio.StreamWriter, target: Target, headers: Mapping[str, str], body: bytes
) -> h11.Connection:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    request = h11.Request(
        method="POST",
        target=target.path,
        headers=[
            ("Host", target.authority),
            ("User-Agent", USER_AGENT),
            ("Accept", "*/*"),
            ("Connection", "close"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *headers.items(),
        ],
    )
    for event in (request, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(event) or b"")
    await writer.drain()
    return connection


async def _head(reader: asyncio.StreamReader, connection: h11.Connection) -> h11.Response:
    """Past what only informs (1xx), of which there may be no more than a head's bytes."""
    left = MAX_HEAD_BYTES
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            left -= len(data)
            if left < 0:
                raise NotSent(f"the answer's head is longer than {MAX_HEAD_BYTES} bytes")
            connection.receive_data(data)
        elif not isinstance(event, h11.InformationalResponse):
            raise NotSent("the connection was closed without an answer")


async def _linger(reader: asyncio.StreamReader, connection: h11.Connection) -> None:
    """A few bytes of the body are taken in, so that a receiver with a short answer is not cut off in it."""
    with contextlib.suppress(TimeoutError, OSError, h11.RemoteProtocolError):
        async with asyncio.timeout(LINGER_S):
            await _rest(reader, connection)


async def _rest(reader: asyncio.StreamReader, connection: h11.Connection) -> None:
    left = MAX_BODY_BYTES
    while left > 0:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            left -= len(data)
            connection.receive_data(data)
        elif not isinstance(event, h11.Data):
            return


def _read(answer: h11.Response, now: datetime) -> Answer:
    said = next((value for name, value in answer.headers if name == b"retry-after"), b"")
    return Answer(answer.status_code, _seconds(said.decode("latin-1").strip(), now))


def _seconds(retry_after: str, now: datetime) -> float | None:
    """`Retry-After` in seconds: a number, or a date (RFC 9110, 10.2.3). None where it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        seconds = (email.utils.parsedate_to_datetime(retry_after) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
