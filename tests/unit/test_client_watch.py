"""Watching a job over streams that break: nothing is lost, nothing comes twice."""

import time

import pytest

from modelyard import AsyncClient, Client, errors
from modelyard.specs import Event, JobState, ProgressUpdate
from tests.unit.scripted_service import (
    Answer,
    Request,
    ScriptedService,
    a_job,
    an_event,
    event_stream,
    problem,
    sse,
)

EVENTS = "/v1/jobs/job_1/events"
END = sse("end", {"state": "succeeded"})


@pytest.fixture(autouse=True)
def running_job(service: ScriptedService) -> None:
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))


def numbers(client: Client, after: int = 0) -> list[int]:
    return [
        happening.seq
        for happening in client.jobs.handle("job_1").watch(after)
        if isinstance(happening, Event)
    ]


def test_a_stream_is_read_to_its_end(client: Client, service: ScriptedService) -> None:
    now = {
        "state": "running",
        "progress": {"epoch": 1, "epochs": 2, "fraction": 0.5},
        "metrics": {"train_loss": 0.25},
    }
    text = (
        "retry: 1000\n\n: ping\n\n"
        + an_event(1, "state", state="running")
        + sse("progress", now)
        + an_event(2)
        + END
    )
    service.on("GET", EVENTS, event_stream(text))
    first, progress, second = client.jobs.handle("job_1").watch()
    assert isinstance(first, Event)
    assert (first.type, first.data) == ("state", {"state": "running"})
    assert isinstance(progress, ProgressUpdate)
    assert (progress.state, progress.progress.fraction) == (JobState.RUNNING, 0.5)
    assert progress.metrics == {"train_loss": 0.25}
    assert isinstance(second, Event)
    assert service.requests[-1].headers["accept"] == "text/event-stream"
    assert "last-event-id" not in service.requests[-1].headers


@pytest.mark.parametrize("cut", [0.2, 0.4, 0.5, 0.55, 0.6, 0.8, 0.99])
def test_a_stream_that_breaks_anywhere_goes_on_where_it_was(
    client: Client, service: ScriptedService, cut: float
) -> None:
    def serve(request: Request) -> Answer:
        after = int(request.headers.get("last-event-id", 0))
        text = "".join(an_event(seq, text="x" * 50) for seq in range(after + 1, 7)) + END
        if len(service.requests_for("GET", EVENTS)) < 4:
            return event_stream(text[: int(len(text) * cut)], breaks_off=True)
        return event_stream(text)

    service.on("GET", EVENTS, serve)
    assert numbers(client) == [1, 2, 3, 4, 5, 6]
    assert len(service.requests_for("GET", EVENTS)) == 4


def test_a_stream_that_ends_politely_before_the_job_goes_on_too(
    client: Client, service: ScriptedService
) -> None:
    service.on("GET", EVENTS, event_stream(an_event(1)), event_stream(an_event(2) + END))
    assert numbers(client) == [1, 2]
    assert service.requests[-1].headers["last-event-id"] == "1"


def test_events_that_come_again_are_passed_on_once(client: Client, service: ScriptedService) -> None:
    again = "".join(an_event(seq) for seq in (1, 2, 3))
    service.on(
        "GET", EVENTS, event_stream(an_event(1) + an_event(2), breaks_off=True), event_stream(again + END)
    )
    assert numbers(client) == [1, 2, 3]


def test_watching_may_begin_after_a_number(client: Client, service: ScriptedService) -> None:
    service.on("GET", EVENTS, event_stream(an_event(8) + END))
    assert numbers(client, after=7) == [8]
    assert service.requests[-1].headers["last-event-id"] == "7"


def test_a_kind_of_message_that_is_not_known_is_passed_over(client: Client, service: ScriptedService) -> None:
    service.on(
        "GET", EVENTS, event_stream(sse("weather", {"sun": 1}) + an_event(1) + sse("weather", 3) + END)
    )
    assert numbers(client) == [1]


def test_a_service_that_restarts_is_waited_for(client: Client, service: ScriptedService) -> None:
    away = [problem(503, "unavailable", "starting", Retry_After="0")] * 6
    service.on(
        "GET", EVENTS, event_stream(an_event(1), breaks_off=True), *away, event_stream(an_event(2) + END)
    )
    assert numbers(client) == [1, 2]


def test_a_service_that_stays_away_ends_the_watching(
    client: Client, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.resources.following.OUTAGE_LIMIT_S", 0.2)
    service.on("GET", EVENTS, event_stream(an_event(1)), event_stream(""))
    started_s = time.monotonic()
    with pytest.raises(errors.ConnectionLost, match="ended before the job did"):
        numbers(client)
    assert time.monotonic() - started_s < 2


def test_a_refusal_is_not_tried_again(client: Client, service: ScriptedService) -> None:
    service.on("GET", EVENTS, problem(404, "not_found", "no such job"))
    with pytest.raises(errors.NotFound, match="no such job"):
        numbers(client)
    assert len(service.requests_for("GET", EVENTS)) == 1


def test_who_stops_watching_closes_the_stream(client: Client, service: ScriptedService) -> None:
    service.on("GET", EVENTS, event_stream(an_event(1) + an_event(2) + END))
    for _ in range(150):  # more than the pool of connections holds
        watching = client.jobs.handle("job_1").watch()
        assert isinstance(next(watching), Event)
        watching.close()  # type: ignore[attr-defined]


async def test_the_async_client_resumes_a_broken_stream(service: ScriptedService) -> None:
    text = an_event(2) + END
    service.on("GET", EVENTS, event_stream(an_event(1) + text[:20], breaks_off=True), event_stream(text))
    async with AsyncClient(service.url, "k") as client:
        handle = await client.jobs.handle("job_1")
        seen = [happening.seq async for happening in handle.watch() if isinstance(happening, Event)]
    assert seen == [1, 2]
    assert service.requests[-1].headers["last-event-id"] == "1"
