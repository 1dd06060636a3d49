"""The two runners: they perform the effects of a story over httpx2, one blocking, one awaiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, TypeVar, assert_never

import httpx2

from modelyard.transport.http import (
    CHUNK_BYTES,
    arguments,
    async_arguments,
    finished,
    reply_of,
    translated,
)
from modelyard.transport.listeners import AsyncListener, Listener
from modelyard.transport.story import (
    Call,
    Effect,
    InThread,
    Item,
    Listen,
    NextMessage,
    Receive,
    Reply,
    Sleep,
    Story,
    Stream,
    Telling,
)

T = TypeVar("T")


class HttpRunner:
    """Performs stories with blocking calls. May be used from several threads."""

    def __init__(self, http: httpx2.Client, max_retries: int) -> None:
        self.max_retries = max_retries
        self._http = http

    def run(self, story: Story[T]) -> T:
        with Listener() as listener, closing(Telling(story)) as telling:
            while (effect := telling.effect) is not None:
                assert not isinstance(effect, Item)
                self._advance(telling, effect, listener)
            return telling.result()

    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        with Listener() as listener, closing(Telling(stream)) as telling:
            while (effect := telling.effect) is not None:
                if isinstance(effect, Item):
                    yield effect.value
                    telling.answer(None)
                else:
                    self._advance(telling, effect, listener)

    def _advance(self, telling: Telling[Any], effect: Effect, listener: Listener) -> None:
        try:
            outcome = self._perform(effect, listener)
        except Exception as error:  # the story decides which errors it can answer
            telling.fail(error)
        else:
            telling.answer(outcome)

    def _perform(self, effect: Effect, listener: Listener) -> object:
        match effect:
            case Call():
                with translated(self._http, effect):
                    return reply_of(self._http.request(**arguments(self._http, effect)))
            case Receive():
                return self._receive(effect)
            case Listen():
                listener.close()
                return listener.open(self._http, effect.call)
            case NextMessage():
                return listener.next_message()
            case Sleep():
                time.sleep(effect.seconds)
                return None
            case InThread():
                return effect.work()
            case _:
                assert_never(effect)

    def _receive(self, effect: Receive) -> Reply:
        call = effect.call
        with (
            translated(self._http, call),
            self._http.stream(**arguments(self._http, call)) as response,
        ):
            if not response.is_success:
                response.read()
                return reply_of(response)
            effect.begin()
            for chunk in response.iter_bytes(CHUNK_BYTES):
                effect.write(chunk)
            return finished(response)


class AsyncHttpRunner:
    """Performs stories with awaits; file work goes to a thread."""

    def __init__(self, http: httpx2.AsyncClient, max_retries: int) -> None:
        self.max_retries = max_retries
        self._http = http

    async def run(self, story: Story[T]) -> T:
        async with AsyncListener() as listener:
            with closing(Telling(story)) as telling:
                while (effect := telling.effect) is not None:
                    assert not isinstance(effect, Item)
                    await self._advance(telling, effect, listener)
                return telling.result()

    async def iterate(self, stream: Stream[T]) -> AsyncIterator[T]:
        async with AsyncListener() as listener:
            with closing(Telling(stream)) as telling:
                while (effect := telling.effect) is not None:
                    if isinstance(effect, Item):
                        yield effect.value
                        telling.answer(None)
                    else:
                        await self._advance(telling, effect, listener)

    async def _advance(self, telling: Telling[Any], effect: Effect, listener: AsyncListener) -> None:
        try:
            outcome = await self._perform(effect, listener)
        except Exception as error:  # the story decides which errors it can answer
            telling.fail(error)
        else:
            telling.answer(outcome)

    async def _perform(self, effect: Effect, listener: AsyncListener) -> object:
        match effect:
            case Call():
                with translated(self._http, effect):
                    return reply_of(await self._http.request(**async_arguments(self._http, effect)))
            case Receive():
                return await self._receive(effect)
            case Listen():
                await listener.aclose()
                return await listener.open(self._http, effect.call)
            case NextMessage():
                return await listener.next_message()
            case Sleep():
                await asyncio.sleep(effect.seconds)
                return None
            case InThread():
                return await asyncio.to_thread(effect.work)
            case _:
                assert_never(effect)

    async def _receive(self, effect: Receive) -> Reply:
        call = effect.call
        with translated(self._http, call):
            async with self._http.stream(**async_arguments(self._http, call)) as response:
                if not response.is_success:
                    await response.aread()
                    return reply_of(response)
                await asyncio.to_thread(effect.begin)
                async for chunk in response.aiter_bytes(CHUNK_BYTES):
                    await asyncio.to_thread(effect.write, chunk)
                return finished(response)
