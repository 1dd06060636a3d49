"""The async client tells the stories of the blocking one."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from modelyard import AsyncClient, errors
from tests.unit.scripted_service import (
    Answer,
    Request,
    ScriptedService,
    a_dataset,
    a_job,
    failed_job,
    problem,
    succeeded_job,
    weights,
)


async def test_the_async_client_tells_the_same_stories(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("modelyard.transport.calls.BACKOFF_S", 0.01)
    data = bytes(2_500_000)
    (tmp_path / "d.csv").write_bytes(data)
    service.on(
        "PUT", "/v1/datasets/d", problem(503, "busy", "busy", Retry_After="0"), Answer(202, a_dataset())
    )
    service.on("POST", "/v1/jobs", Answer(202, a_job(state="queued")))
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()), Answer(200, failed_job()))
    service.on("GET", "/v1/checkpoints/c/weights", weights(data))
    pages = [
        Answer(200, {"items": [a_job(id="job_2")], "next": "x"}),
        Answer(200, {"items": [a_job()], "next": None}),
    ]
    service.on("GET", "/v1/jobs", *pages)
    async with AsyncClient(service.url, "k") as client:
        dataset = await client.datasets.push("d", tmp_path / "d.csv")
        handle = await client.jobs.submit({"name": "m"})
        with pytest.raises(errors.JobFailed):
            await handle.wait()
        listed = [job.id async for job in client.jobs.list()]
        await client.checkpoints.download("c", tmp_path / "w.pt")
    assert dataset.version == 1
    assert service.requests_for("PUT", "/v1/datasets/d")[-1].body == data
    assert listed == ["job_2", "job_1"]
    assert (tmp_path / "w.pt").read_bytes() == data


async def test_async_waits_leave_the_event_loop_free(service: ScriptedService) -> None:
    def slow(_: Request) -> Answer:
        time.sleep(0.3)
        return Answer(200, json.loads(json.dumps(succeeded_job())))

    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()), slow)
    async with AsyncClient(service.url, "k") as client:
        handle = await client.jobs.handle("job_1")
        waiting = asyncio.ensure_future(handle.wait())
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
    assert waiting.result().state == "succeeded"
    assert ticks > 10
