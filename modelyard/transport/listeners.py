"""One stream of server-sent events at a time, opened and closed on behalf of a story."""

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Self

import httpx2

from modelyard.transport.http import arguments, async_arguments, finished, reply_of, translated
from modelyard.transport.story import Call, Message, Reply


class Listener:
    def __init__(self) -> None:
        self._stack = ExitStack()
        self._messages: Iterator[Message] = iter(())

    def open(self, http: httpx2.Client, call: Call) -> Reply:
        """An answer without a stream (an error) is read whole; `next_message` then says None."""
        with translated(http, call):
            response = self._stack.enter_context(http.stream(**arguments(http, call)))
            if not response.is_success:
                response.read()
                return reply_of(response)
        self._messages = self._read(http, call, response)
        return finished(response)

    def next_message(self) -> Message | None:
        return next(self._messages, None)

    def close(self) -> None:
        self._messages = iter(())
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, http: httpx2.Client, call: Call, response: httpx2.Response) -> Generator[Message]:
        with translated(http, call):
            for sse in httpx2.EventSource(response):
                yield Message(event=sse.event, id=sse.id, data=sse.data)


class AsyncListener:
    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._messages: AsyncGenerator[Message, None] | None = None

    async def open(self, http: httpx2.AsyncClient, call: Call) -> Reply:
        """An answer without a stream (an error) is read whole; `next_message` then says None."""
        with translated(http, call):
            response = await self._stack.enter_async_context(http.stream(**async_arguments(http, call)))
            if not response.is_success:
                await response.aread()
                return reply_of(response)
        self._messages = self._read(http, call, response)
        return finished(response)

    async def next_message(self) -> Message | None:
        return await anext(self._messages, None) if self._messages is not None else None

    async def aclose(self) -> None:
        if self._messages is not None:
            await self._messages.aclose()
            self._messages = None
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(
        self, http: httpx2.AsyncClient, call: Call, response: httpx2.Response
    ) -> AsyncGenerator[Message, None]:
        with translated(http, call):
            async for sse in httpx2.EventSource(response):
                yield Message(event=sse.event, id=sse.id, data=sse.data)
