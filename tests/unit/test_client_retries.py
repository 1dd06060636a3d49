"""What the client sends again, and what it says when no answer comes."""

import time

import pytest

from modelyard import Client, errors
from tests.unit.scripted_service import (
    AT,
    Answer,
    Request,
    ScriptedService,
    problem,
)


@pytest.mark.parametrize("status", [429, 503])
def test_a_call_that_is_refused_for_now_waits_as_long_as_it_was_told(
    client: Client, service: ScriptedService, status: int
) -> None:
    service.on(
        "GET",
        "/v1/models/m",
        problem(status, "busy", "busy", Retry_After="1"),
        Answer(200, {"name": "m", "created_at": AT}),
    )
    started_s = time.monotonic()
    client.models.get("m")
    assert 1 <= time.monotonic() - started_s < 2


def test_a_wait_longer_than_a_minute_is_the_callers_to_take(client: Client, service: ScriptedService) -> None:
    service.on("GET", "/v1/models/m", problem(429, "quota", "your quota", Retry_After="3600"))
    with pytest.raises(errors.TooManyRequests) as caught:
        client.models.get("m")
    assert caught.value.retry_after_s == 3600
    assert len(service.requests) == 1


def test_three_retries_and_no_more(client: Client, service: ScriptedService) -> None:
    service.on("GET", "/v1/models/m", problem(503, "unavailable", "down"))
    with pytest.raises(errors.Unavailable):
        client.models.get("m")
    assert len(service.requests) == 4


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500])
def test_what_will_not_change_by_itself_is_asked_once(
    client: Client, service: ScriptedService, status: int
) -> None:
    service.on("GET", "/v1/models/m", problem(status, "no", "no", Retry_After="0"))
    with pytest.raises(errors.ApiError):
        client.models.get("m")
    assert len(service.requests) == 1


def test_a_call_with_an_effect_is_sent_once(client: Client, service: ScriptedService) -> None:
    service.on("POST", "/v1/jobs/job_1/cancel", problem(503, "unavailable", "down", Retry_After="0"))
    with pytest.raises(errors.Unavailable):
        client.jobs.cancel("job_1")
    assert len(service.requests) == 1


def test_nobody_at_the_address_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedService().running() as gone:
        url = gone.url
    with Client(url, "k", max_retries=0) as client, pytest.raises(errors.ConnectError, match="modelyard up"):
        client.health()


def test_a_silent_service_is_a_timeout(service: ScriptedService) -> None:
    def slow(_: Request) -> Answer:
        time.sleep(0.5)
        return Answer(200, {})

    service.on("GET", "/health/ready", slow)
    with Client(service.url, "k", timeout_s=0.1) as client, pytest.raises(errors.Timeout, match="timeout_s"):
        client.health()


@pytest.mark.parametrize(
    "answer",
    [Answer(200, b"<html>"), Answer(200, {"other": 1}), Answer(302, None, {"Location": "http://elsewhere"})],
)
def test_an_answer_that_is_not_modelyards_is_named_as_such(
    client: Client, service: ScriptedService, answer: Answer
) -> None:
    service.on("GET", "/v1/models/m", answer)
    with pytest.raises(errors.UnexpectedReply):
        client.models.get("m")
