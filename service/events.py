"""A job's events as a stream (Server-Sent Events): numbered ones from the database, progress between them."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from core.db.models import Job
from core.db.statements import jobs
from core.db.statements.jobs import TERMINAL
from modelyard.specs import JobState
from service.auth import Principal
from service.parts import Parts
from service.views import event_view

MEDIA_TYPE = "text/event-stream"
PING_S = 15.0
PAGE = 200
RECONNECT_MS = 1000

PING = ": ping\n\n"


async def stream(parts: Parts, who: Principal, job_id: str, after: int) -> AsyncIterator[str]:
    """Every event with seq > `after`, in order, without a gap; ends with `event: end` once the job is
    terminal and all was sent. Ends without it when the service stops: the client comes back with the
    last id it saw. Ends so too once the key is revoked or has expired."""
    with parts.traffic.event_stream():
        told: dict[str, Any] | None = None
        yield f"retry: {RECONNECT_MS}\n\n"
        while await parts.gate.still_admits(who):
            # The job first: what its state implies was committed before, so the events read after show it.
            async with parts.database.read() as session:
                job = (await session.scalars(jobs.get_job(who.owner, job_id))).one_or_none()
                if job is None:  # deleted meanwhile
                    return
                events = list(await session.scalars(jobs.events_after(job_id, after, PAGE)))
            for event in events:
                after = event.seq
                yield message(event.type, event_view(event), number=event.seq)
            if (now := _progress(job)) != told:
                told = now
                yield message("progress", told)
            if len(events) == PAGE:
                continue
            if JobState(job.state) in TERMINAL:
                yield message("end", {"state": job.state})
                return
            if parts.stopping.is_set():
                return
            if not await parts.jobs_watcher.changed(job_id, job.revision, PING_S):
                yield PING


def message(kind: str, data: object, *, number: int | None = None) -> str:
    """JSON has no line breaks of its own, so one `data:` line holds it."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {kind}\ndata: {msgspec.json.encode(data).decode()}\n\n"


def _progress(job: Job) -> dict[str, Any]:
    return {"state": job.state, "progress": job.progress, "metrics": job.metrics}
