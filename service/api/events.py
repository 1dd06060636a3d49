"""`/v1/jobs/{id}/events`, `/metrics`, `/checkpoints`: what a job says while it runs."""

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter
from litestar.response import Stream

from core.db.statements import checkpoints, jobs
from core.errors import Invalid
from modelyard.specs import Checkpoint, Event, Metric, Page
from service import events
from service.api.jobs import require_job
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, AfterMetric, JobPath, Limit
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.parts import Wired
from service.schema import page_or_stream
from service.views import checkpoint_view, event_view, metric_view

MAX_NUMBER = 2**53

AfterEvent = Annotated[int | None, QueryParameter(ge=0, le=MAX_NUMBER, description="the last event seen")]
Names = Annotated[str | None, QueryParameter(max_length=4000, description="metric names, joined by commas")]


class Events(Controller):
    path = "/v1/jobs/{job_id:str}"
    tags = ("jobs",)
    opt = needs(Scope.READ)

    @get("/events", operation_class=page_or_stream())
    async def events(
        self,
        request: AnyRequest,
        parts: Wired,
        job_id: JobPath,
        after: AfterEvent = None,
        limit: Limit = DEFAULT_LIMIT,
    ) -> Page[Event] | Stream:
        """A page in the order of `seq`; with `Accept: text/event-stream` a stream that goes on after
        `Last-Event-ID` (or `after`), pings every 15 s and ends with `event: end`."""
        owner = request.user.owner
        if request.accept.best_match(["application/json", events.MEDIA_TYPE]) == events.MEDIA_TYPE:
            seen = _last_event_id(request.headers.get("last-event-id"), after or 0)
            async with parts.database.read() as session:
                await require_job(session, owner, job_id)
            content = events.stream(parts, request.user, job_id, seen)
            # As a header: the handler's media type would win over that of a stream.
            headers = {"content-type": events.MEDIA_TYPE, "cache-control": "no-store"}
            return Stream(content, headers=headers)
        async with parts.database.read() as session:
            await require_job(session, owner, job_id)
            rows = list(await session.scalars(jobs.events_after(job_id, after or 0, limit + 1)))
        return page_of(rows, limit, event_view, lambda row: str(row.seq))

    @get("/metrics")
    async def metrics(
        self,
        request: AnyRequest,
        parts: Wired,
        job_id: JobPath,
        names: Names = None,
        after: AfterMetric = None,
        limit: Limit = DEFAULT_LIMIT,
    ) -> Page[Metric]:
        """In the order of step, then name."""
        chosen = [name for name in (names or "").split(",") if name]
        async with parts.database.read() as session:
            await require_job(session, request.user.owner, job_id)
            query = jobs.metrics_after(job_id, chosen or None, _metric_cursor(after), limit + 1)
            rows = list(await session.scalars(query))
        return page_of(rows, limit, metric_view, lambda row: f"{row.step}:{row.name}")

    @get("/checkpoints")
    async def list_checkpoints(
        self,
        request: AnyRequest,
        parts: Wired,
        job_id: JobPath,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[Checkpoint]:
        owner = request.user.owner
        async with parts.database.read() as session:
            await require_job(session, owner, job_id)
            rows = list(await session.scalars(checkpoints.list_checkpoints(owner, job_id, after, limit)))
        return page_of(rows, limit, checkpoint_view, lambda row: row.id)


def _last_event_id(header: str | None, otherwise: int) -> int:
    """A browser sends the last id back by itself. What is no id of ours starts where `after` says."""
    if header is not None and header.isascii() and header.isdigit() and int(header) <= MAX_NUMBER:
        return int(header)
    return otherwise


def _metric_cursor(after: str | None) -> tuple[int, str] | None:
    if after is None:
        return None
    step, colon, name = after.partition(":")
    if not (colon and step.isascii() and step.isdigit() and len(step) <= 15):
        raise Invalid(f"after: expected the `next` of the page before, got {after!r}.", code="invalid_cursor")
    return int(step), name
