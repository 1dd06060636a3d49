"""Following a job to its end: long polls and the event stream, across restarts of the service."""

import time
from dataclasses import replace
from typing import TypeAlias

from modelyard.errors import (
    ConnectError,
    ConnectionLost,
    ModelyardError,
    Timeout,
    TooManyRequests,
    Unavailable,
    WaitTimeout,
)
from modelyard.specs import Event, Job, ProgressUpdate
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.story import Call, Item, Listen, Message, NextMessage, Sleep, Story, Stream

Happening: TypeAlias = Event | ProgressUpdate

#: A service that restarts is away for seconds; one that is away for so long is not coming back soon.
OUTAGE_LIMIT_S = 60.0

#: Who follows wants to know soon that it is back.
MAX_PAUSE_S = 2.0

#: The service sends `: ping` so often, so a stream silent for longer than this and the timeout is dead.
PING_S = 15.0

PASSING = (ConnectError, ConnectionLost, Timeout, TooManyRequests, Unavailable)


def wait_until_terminal(job_id: str, timeout_s: float | None) -> Story[Job]:
    """Raises WaitTimeout when the job is not terminal `timeout_s` from now; it goes on."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    outage = Outage()
    wait_s: float = 0
    while True:
        call = calls.held(calls.get(path("/v1/jobs/{}", job_id)), wait_s)
        asked_s = time.monotonic()
        try:
            job = yield from calls.fetch(call, Job, max_retries=0)
        except PASSING as error:
            yield from outage.pause(error)
        else:
            outage.is_over()
            if job.terminal:
                return job
            yield from calls.breathe(asked_s, time.monotonic())
        wait_s = calls.LONG_POLL_S
        if deadline_s is not None:
            wait_s = min(wait_s, deadline_s - time.monotonic())
            if wait_s <= 0:
                raise WaitTimeout(f"job {job_id} has not ended within {timeout_s:g} s; it goes on")


def watch(job_id: str, after: int) -> Stream[Happening]:
    """Every event with a number above `after`, each once and in order, and how the job stands between.

    A stream that breaks off is opened again with the last number seen, so nothing is lost or repeated.
    """
    outage = Outage()
    while True:
        call = _events_call(job_id, after)
        opened_s = time.monotonic()
        failure: ModelyardError = ConnectionLost(f"the event stream of {job_id} ended before the job did")
        try:
            yield from calls.send(Listen(call), max_retries=0)
            while (message := (yield from _next_message())) is not None:
                outage.is_over()
                if message.event == "end":
                    return
                if message.event == "progress":
                    yield Item(calls.decode(message.data.encode(), ProgressUpdate, call))
                elif message.id.isdecimal() and int(message.id) > after:
                    yield Item(calls.decode(message.data.encode(), Event, call))
                    after = int(message.id)
        except PASSING as error:
            failure = error
        if time.monotonic() - opened_s > PING_S:  # it was alive, though it may have had nothing to say
            outage.is_over()
        yield from outage.pause(failure)


class Outage:
    """How long the service has been away, and how long to wait before the next try."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._backoff_s = calls.BACKOFF_S

    def is_over(self) -> None:
        self._since_s = None
        self._backoff_s = calls.BACKOFF_S

    def pause(self, failure: ModelyardError) -> Story[None]:
        """Sleeps. Raises `failure` once the service has been away for longer than OUTAGE_LIMIT_S."""
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        wait_s = calls.wait_before_retry(failure, self._backoff_s)
        if wait_s is None or now_s + wait_s - self._since_s > OUTAGE_LIMIT_S:
            raise failure
        self._backoff_s = min(2 * self._backoff_s, MAX_PAUSE_S)
        yield Sleep(wait_s)


def _events_call(job_id: str, after: int) -> Call:
    """Without a number seen there is nothing to name: the service then begins at the first event."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if after > 0:
        headers["Last-Event-ID"] = str(after)
    return replace(calls.get(path("/v1/jobs/{}/events", job_id)), headers=headers, held_s=PING_S)


def _next_message() -> Story[Message | None]:
    message: Message | None = yield NextMessage()
    return message
