"""The service's pure parts: keys, ranges, pointers, stillness, and what runs on an event loop alone."""

import asyncio
import binascii
import hashlib
import threading
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from core import errors
from core.errors import Invalid, Malformed, Unauthenticated, Unavailable
from modelyard.specs import AliasUpdate, PredictRequest
from service.bodies import decode, pointer_of
from service.caller import WhileThere, heard_from
from service.files import matches, parse_range
from service.inference.engine import Engine
from service.keys import ALPHABET, digest_of, new_key
from service.problems import problem_of
from service.startup import is_loopback
from service.stillness import Stillness
from service.watch import Watcher

# Keys


def test_a_new_key_has_the_documented_form_and_checksum() -> None:
    prefix, secret, checksum = new_key().split("_")
    assert (prefix, len(secret), len(checksum)) == ("mdy", 22, 6)
    number = 0
    for character in checksum:
        number = number * 62 + ALPHABET.index(character)
    assert number == binascii.crc32(secret.encode())


def test_keys_do_not_repeat() -> None:
    assert len({new_key() for _ in range(1000)}) == 1000


def test_the_digest_is_the_sha256_of_the_whole_key() -> None:
    key = new_key()
    assert digest_of(key) == hashlib.sha256(key.encode()).digest()


@given(position=st.integers(4, 25), character=st.sampled_from(ALPHABET))
def test_one_changed_character_is_refused_without_a_query(position: int, character: str) -> None:
    key = "mdy_0123456789ABCDEFGHIJKL_" + new_key()[-6:]
    key = _with_checksum(key[4:26])
    changed = key[:position] + character + key[position + 1 :]
    if changed != key:
        with pytest.raises(Unauthenticated):
            digest_of(changed)
    digest_of(key)


def _with_checksum(secret: str) -> str:
    number, digits = binascii.crc32(secret.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return f"mdy_{secret}_{digits}"


# Files


@given(content=st.binary(min_size=1, max_size=50), start=st.integers(0, 60), length=st.integers(0, 60))
def test_a_range_means_the_bytes_that_rfc_9110_says(content: bytes, start: int, length: int) -> None:
    wanted = parse_range(f"bytes={start}-{start + length}", len(content))
    assert wanted is not None
    assert content[slice(*wanted)] == content[start : start + length + 1]
    suffix = parse_range(f"bytes=-{length}", len(content))
    assert suffix is not None
    assert content[slice(*suffix)] == (content[-length:] if length else b"")


@pytest.mark.parametrize("header", ["bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", ""])
def test_what_is_no_single_range_is_answered_with_all(header: str) -> None:
    assert parse_range(header, 10) is None


def test_etags_are_compared_as_a_list_and_weakly() -> None:
    assert matches('"a", W/"b"', '"b"')
    assert matches("*", '"b"')
    assert not matches('"a"', '"b"')
    assert not matches(None, '"b"')


# Bodies


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ("Expected `int`, got `str` - at `$.top_k`", "/top_k"),
        ("Expected `int` - at `$.a[0].b[12]`", "/a/0/b/12"),
        ("Expected `int` - at `$.a/b.c~d`", "/a~1b/c~0d"),
        ("Expected `int` - at `$.a[...].b`", "/a"),
        ("Object missing required field `version`", ""),
    ],
)
def test_msgspecs_path_is_a_json_pointer(message: str, pointer: str) -> None:
    assert pointer_of(message)[0] == pointer


def test_decoding_is_strict() -> None:
    assert decode(b'{"version": 3}', AliasUpdate).version == 3
    for body in (b'{"version": "3"}', b'{"version": 3, "more": 1}', b"{}", b"[]", b'{"version": 3.5}'):
        with pytest.raises(Invalid):
            decode(body, AliasUpdate)
    for body in (b"", b"{", b"\xff", b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        with pytest.raises(Malformed):
            decode(body, PredictRequest)


# Addresses


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("h", False),
    ],
)
def test_loopback_is_what_the_machine_alone_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# Stillness


def test_what_moves_is_not_still_and_what_stands_is_reported_once() -> None:
    watch: Stillness[str, int] = Stillness()
    assert watch.still({"a": 1, "b": 1}, 0, 60) == []
    assert watch.still({"a": 1, "b": 2}, 59, 60) == []
    assert watch.still({"a": 1, "b": 2}, 60, 60) == [("a", 1)]
    assert watch.still({"a": 1, "b": 2}, 61, 60) == []
    assert watch.still({"b": 2}, 119, 60) == [("b", 2)]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 30)), max_size=40))
def test_nothing_is_reported_before_it_stood_for_the_limit(looks: list[tuple[int, float]]) -> None:
    watch: Stillness[str, int] = Stillness()
    at = changed_at = 0.0
    last: int | None = None
    for state, pause in looks:
        at += pause
        if state != last:
            last, changed_at = state, at
        if watch.still({"x": state}, at, 60):
            assert at - changed_at >= 60
            changed_at = at


# Watcher


class Revisions:
    def __init__(self) -> None:
        self.rows = {"a": 1, "b": 1}
        self.queries: list[list[str]] = []
        self.error: Exception | None = None

    async def __call__(self, ids: list[str]) -> dict[str, int]:
        self.queries.append(ids)
        if self.error is not None:
            raise self.error
        return {row_id: self.rows[row_id] for row_id in ids if row_id in self.rows}


async def test_many_who_wait_cost_one_query_a_period() -> None:
    revisions = Revisions()
    watcher = Watcher(revisions, period_s=0.05)
    waiting = [asyncio.create_task(watcher.changed(row, 1, 5)) for row in "ab" * 50]
    await asyncio.sleep(0.12)
    assert revisions.queries == [["a", "b"]] * 2
    revisions.rows["a"] = 2
    await asyncio.sleep(0.08)
    assert [task.done() and task.result() for task in waiting] == [True, False] * 50
    watcher.stop()
    assert await asyncio.gather(*waiting) == [True, False] * 50


async def test_nobody_waits_and_nothing_is_asked() -> None:
    revisions = Revisions()
    watcher = Watcher(revisions, period_s=0.01)
    assert await watcher.changed("a", 1, 0.03) is False
    await asyncio.sleep(0.03)
    asked = len(revisions.queries)
    await asyncio.sleep(0.05)
    assert len(revisions.queries) == asked
    assert watcher._task is None


async def test_a_row_that_is_gone_or_already_another_is_a_change() -> None:
    watcher = Watcher(Revisions(), period_s=0.01)
    assert await watcher.changed("none", 1, 5) is True
    assert await watcher.changed("a", 0, 5) is True


async def test_a_failed_query_reaches_those_who_wait_and_the_watcher_goes_on() -> None:
    revisions = Revisions()
    revisions.error = OSError("away")
    watcher = Watcher(revisions, period_s=0.01)
    with pytest.raises(OSError, match="away"):
        await watcher.changed("a", 1, 5)
    revisions.error = None
    assert await watcher.changed("a", 0, 5) is True


async def test_waiting_is_bounded_and_ends_with_the_service() -> None:
    watcher = Watcher(Revisions(), period_s=0.01, limit=1)
    first = asyncio.create_task(watcher.changed("a", 1, 5))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await watcher.changed("b", 1, 5)
    watcher.stop()
    assert await first is False
    assert await watcher.changed("a", 0, 5) is False


# Inference


async def test_the_engine_runs_one_at_a_time_and_refuses_what_it_cannot_take() -> None:
    engine = Engine(max_waiting=3)
    running, most = 0, 0
    release = threading.Event()

    def work() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        release.wait(5)
        running -= 1
        return most

    tasks = [asyncio.create_task(engine.run(work)) for _ in range(3)]
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable):
        await engine.run(work)
    tasks[2].cancel()  # left before its turn: never computed
    release.set()
    assert await asyncio.gather(*tasks[:2]) == [1, 1]
    assert await engine.run(lambda: 5) == 5
    engine.close()


# Callers


class Connection:
    """What an ASGI server says of a request whose body was read."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.asked = 0

    async def receive(self) -> Any:
        self.asked += 1
        await self.left.wait()
        return {"type": "http.disconnect"}


async def while_there(connection: Connection | None, work: Awaitable[int], patience_s: float = 0.01) -> int:
    heard_from.set(connection.receive if connection is not None else None)
    with WhileThere(patience_s):
        return await work


async def test_what_is_done_for_a_caller_ends_when_they_leave() -> None:
    connection, has_ended = Connection(), asyncio.Event()

    async def work() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            has_ended.set()
        return 1

    waiting = asyncio.create_task(while_there(connection, work()))
    await asyncio.sleep(0.05)
    connection.left.set()
    with pytest.raises(Malformed) as caught:
        await waiting
    assert (caught.value.code, has_ended.is_set()) == ("caller_left", True)


async def test_nobody_watches_a_caller_who_is_answered_soon() -> None:
    connection = Connection()
    connection.left.set()
    assert await while_there(connection, asyncio.sleep(0, 5), patience_s=60) == 5
    assert await while_there(None, asyncio.sleep(0.02, 5)) == 5
    assert connection.asked == 0


async def test_another_cancelling_is_not_taken_for_the_callers_leaving() -> None:
    connection = Connection()
    waiting = asyncio.create_task(while_there(connection, asyncio.sleep(60, 1)))
    await asyncio.sleep(0.05)
    assert connection.asked == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await while_there(connection, asyncio.sleep(60, 1))


# Problems


def test_every_error_of_ours_has_a_status_and_a_problem() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ModelyardError)
    ]
    assert len(kinds) > 10
    for kind in kinds:
        problem, _ = problem_of(kind("what was expected"))
        assert 400 <= problem.status < 600
        assert (problem.status == 500) == (kind is errors.ModelyardError)
        assert problem.detail == "what was expected"


def test_a_database_that_is_away_is_503_with_a_wait() -> None:
    problem, headers = problem_of(OperationalError("SELECT secret", {}, Exception("refused at 10.0.0.1")))
    assert (problem.status, headers["Retry-After"]) == (503, "1")
    assert "secret" not in problem.detail
    assert "10.0.0.1" not in problem.detail


def test_an_unknown_exception_says_nothing_of_itself() -> None:
    problem, _ = problem_of(ValueError("/secret/path"))
    assert problem.status == 500
    assert "secret" not in problem.detail
