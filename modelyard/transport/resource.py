"""What a resource is: its methods are stories, and the client's runner makes them block or be awaited."""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from modelyard.transport import calls
from modelyard.transport.story import (
    AsyncRunner,
    Call,
    Listen,
    Receive,
    Reply,
    Story,
    Stream,
    SyncRunner,
)

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=SyncRunner | AsyncRunner)


class Resource(Generic[R]):
    """Something on the service that has methods."""

    def __init__(self, runner: R) -> None:
        self._runner = runner

    def _send(self, effect: Call | Listen | Receive) -> Story[Reply]:
        return calls.send(effect, max_retries=self._runner.max_retries)

    def _fetch(self, call: Call, reply: type[T]) -> Story[T]:
        return calls.fetch(call, reply, max_retries=self._runner.max_retries)

    def _pages(self, call: Call, row: type[T]) -> Stream[T]:
        return calls.pages(call, row, max_retries=self._runner.max_retries)


class operation(Generic[P, T]):
    """A method that returns once: `T` on a sync client, an awaitable of `T` on an async one."""

    def __init__(self, tell: Callable[Concatenate[Any, P], Story[T]]) -> None:
        @functools.wraps(tell)
        def face(resource: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return resource._runner.run(tell(resource, *args, **kwargs))

        self._face = face
        self.__doc__ = tell.__doc__

    @overload
    def __get__(self, resource: Resource[SyncRunner], owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, resource: Resource[AsyncRunner], owner: Any = None
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Any, owner: Any = None) -> Any:
        return self._face if resource is None else MethodType(self._face, resource)


class streaming(Generic[P, T]):
    """A method that yields many: an iterator of `T` on a sync client, an async iterator on an async one."""

    def __init__(self, tell: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        @functools.wraps(tell)
        def face(resource: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return resource._runner.iterate(tell(resource, *args, **kwargs))

        self._face = face
        self.__doc__ = tell.__doc__

    @overload
    def __get__(self, resource: Resource[SyncRunner], owner: Any = None) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(
        self, resource: Resource[AsyncRunner], owner: Any = None
    ) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, resource: Any, owner: Any = None) -> Any:
        return self._face if resource is None else MethodType(self._face, resource)
