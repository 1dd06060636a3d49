"""`/v1/jobs`: post, list, show, steer, fork, delete."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from litestar import Controller, Response, delete, get, post
from litestar.params import QueryParameter
from sqlalchemy.ext.asyncio import AsyncSession

from core import boards
from core.db.models import Event, utc_now
from core.db.models import Job as Row
from core.db.statements import checkpoints, jobs, models
from core.db.statements.jobs import TERMINAL
from core.errors import Conflict, NotFound
from core.nets.parse import MAX_SPEC_BYTES
from core.storage.keys import suspects_key
from modelyard.specs import ForkRequest, Job, JobDataset, JobSpec, JobState, Page, Wanted
from service import steering
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, IdempotencyKey, JobPath, Limit, Wait
from service.auth import Scope, needs
from service.bodies import AnyRequest, read_body, require_json
from service.files import matches
from service.forks import prepare_fork
from service.idempotency import Once
from service.parts import Parts, Wired
from service.schema import also_answers, body
from service.submit import examine, submit
from service.views import job_view

UNDER_WAY = {202: (Job, "its worker has yet to stop it")}

StateQuery = Annotated[JobState | None, QueryParameter(name="state")]
NameQuery = Annotated[str | None, QueryParameter(name="name", max_length=63)]


class Jobs(Controller):
    path = "/v1/jobs"
    tags = ("jobs",)

    @post(opt=needs(Scope.TRAIN), status_code=202, operation_class=body("application/json", JobSpec))
    async def create(
        self, request: AnyRequest, parts: Wired, idempotency_key: IdempotencyKey = None
    ) -> Response[Any]:
        """202 and the queued job; 422 with every error and its JSON pointer where it could not train."""
        require_json(request)
        owner = request.user.owner
        raw = await read_body(request, limit=MAX_SPEC_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        once = Once.of(owner, "POST /v1/jobs", idempotency_key, raw)
        async with parts.database.read() as session:
            if (earlier := await once.earlier(session)) is not None:
                return earlier
        submission = await examine(parts, owner, raw)
        return await submit(parts, owner, submission, once)

    @get(opt=needs(Scope.READ))
    async def list_all(
        self,
        request: AnyRequest,
        parts: Wired,
        job_state: StateQuery = None,
        job_name: NameQuery = None,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[Job]:
        async with parts.database.read() as session:
            query = jobs.list_jobs(
                request.user.owner, state=job_state, name=job_name, after=after, limit=limit
            )
            rows = list(await session.scalars(query))
            learned = await _datasets_of(session, rows)
        return page_of(rows, limit, lambda row: job_view(row, learned[row.dataset_id]), lambda row: row.id)

    @get("/{job_id:str}", opt=needs(Scope.READ), responses=also_answers({}, may_be_unchanged=True))
    async def show(
        self, request: AnyRequest, parts: Wired, job_id: JobPath, wait: Wait = 0
    ) -> Response[Job | None]:
        """`wait` holds the reply until the job is another than the `If-None-Match` says (or, without one,
        than it was when the request came), or has ended; 304 where the client has it already."""
        owner = request.user.owner
        known = request.headers.get("if-none-match")
        row, learned = await _one(parts, owner, job_id)
        is_news = known is not None and not matches(known, _etag(row))
        may_change = not is_news and JobState(row.state) not in TERMINAL
        if may_change and await parts.jobs_watcher.changed(row.id, row.revision, wait):
            row, learned = await _one(parts, owner, job_id)
        headers = {"ETag": _etag(row), "Cache-Control": "private, no-cache"}
        if matches(known, _etag(row)):
            return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(job_view(row, learned), headers=headers)

    @post("/{job_id:str}/cancel", opt=needs(Scope.TRAIN), status_code=200, responses=also_answers(UNDER_WAY))
    async def cancel(self, request: AnyRequest, parts: Wired, job_id: JobPath) -> Response[Job]:
        """200 and the cancelled job where it was queued; 202 where its worker has yet to stop it."""
        return await _steer(parts, request.user.owner, job_id, steering.cancel)

    @post("/{job_id:str}/pause", opt=needs(Scope.TRAIN), status_code=200, responses=also_answers(UNDER_WAY))
    async def pause(self, request: AnyRequest, parts: Wired, job_id: JobPath) -> Response[Job]:
        """200 and the paused job where it was queued; 202 where its worker has yet to save it and stop."""
        return await _steer(parts, request.user.owner, job_id, steering.pause)

    @post("/{job_id:str}/resume", opt=needs(Scope.TRAIN), status_code=200, responses=also_answers(UNDER_WAY))
    async def resume(self, request: AnyRequest, parts: Wired, job_id: JobPath) -> Response[Job]:
        """Back to the queue, to go on where it stopped; a job that was only asked to pause runs on."""
        return await _steer(parts, request.user.owner, job_id, steering.resume)

    @post(
        "/{job_id:str}/fork",
        opt=needs(Scope.TRAIN),
        status_code=202,
        operation_class=body("application/json", ForkRequest),
    )
    async def fork(
        self, request: AnyRequest, parts: Wired, job_id: JobPath, idempotency_key: IdempotencyKey = None
    ) -> Response[Any]:
        """202 and a new job: the spec of this one as it was posted, on the same version of its dataset, with
        a JSON merge patch (RFC 7396). `from` gives it the weights of a checkpoint to begin with; the
        optimizer and the schedule begin anew. 422 with every error, its pointer into the patched spec."""
        require_json(request)
        owner = request.user.owner
        raw = await read_body(request, limit=MAX_SPEC_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        once = Once.of(owner, f"POST /v1/jobs/{job_id[:80]}/fork", idempotency_key, raw)
        async with parts.database.read() as session:
            if (earlier := await once.earlier(session)) is not None:
                return earlier
        row, learned = await _one(parts, owner, job_id)
        return await submit(parts, owner, await prepare_fork(parts, owner, row, learned, raw), once)

    @delete("/{job_id:str}", opt=needs(Scope.TRAIN))
    async def remove(self, request: AnyRequest, parts: Wired, job_id: JobPath) -> None:
        """Only a job that has ended, and that no version of a model comes from, nor a fork under way."""
        async with parts.database.write() as session:
            row = (await session.scalars(jobs.lock_job(job_id, owner=request.user.owner))).one_or_none()
            if row is None:
                raise unknown_job(job_id)
            if JobState(row.state) not in TERMINAL:
                raise Conflict(f"{job_id} is {row.state}; cancel it first.", code="job_not_terminal")
            versions = (await session.execute(models.versions_of_job(job_id))).all()
            if versions:
                named = ", ".join(f"{model}@{version}" for model, version in versions)
                raise Conflict(f"{job_id} trained {named}, which needs its checkpoint.", code="job_in_use")
            await session.scalars(checkpoints.lock_checkpoints_of(job_id))  # before asking who needs them
            forks = list(await session.scalars(checkpoints.forks_needing(job_id)))
            if forks:
                named = ", ".join(forks)
                raise Conflict(f"{named} has yet to begin with a checkpoint of {job_id}.", code="job_in_use")
            files = [
                key for keys in (await session.execute(checkpoints.files_of(job_id))).all() for key in keys
            ]
            folder = boards.run_folder(parts.settings.resolved_home(), row.name, job_id)
            files.append(suspects_key(job_id, row.fence))
            await session.execute(checkpoints.delete_checkpoints(job_id))
            await session.delete(row)
            await session.commit()
        await asyncio.to_thread(_delete_files, parts, files)
        await asyncio.to_thread(boards.forget, parts.storage, folder, job_id)


async def _steer(
    parts: Parts, owner: str, job_id: str, ask: Callable[[Row, datetime], Event | None]
) -> Response[Job]:
    """The job as it then is; 202 where its worker has yet to stop."""
    async with parts.database.write() as session:
        row = (await session.scalars(jobs.lock_job(job_id, owner=owner))).one_or_none()
        if row is None:
            raise unknown_job(job_id)
        if (event := ask(row, utc_now())) is not None:
            session.add(event)
        learned = await _datasets_of(session, [row])
        await session.commit()
    if event is not None and row.state == JobState.QUEUED:
        parts.sweeper.poke(row.pool)
    is_under_way = event is None and row.wanted != Wanted.RUN
    status = HTTPStatus.ACCEPTED if is_under_way else HTTPStatus.OK
    return Response(job_view(row, learned[row.dataset_id]), status_code=status)


async def _one(parts: Parts, owner: str, job_id: str) -> tuple[Row, JobDataset]:
    async with parts.database.read() as session:
        row = await require_job(session, owner, job_id)
        return row, (await _datasets_of(session, [row]))[row.dataset_id]


async def require_job(session: AsyncSession, owner: str, job_id: str) -> Row:
    row = (await session.scalars(jobs.get_job(owner, job_id))).one_or_none()
    if row is None:
        raise unknown_job(job_id)
    return row


def unknown_job(job_id: str) -> NotFound:
    return NotFound(f"You have no job {job_id[:100]}; GET /v1/jobs lists them.")


async def _datasets_of(session: AsyncSession, rows: Iterable[Row]) -> dict[str, JobDataset]:
    found = await session.execute(jobs.datasets_of(sorted({row.dataset_id for row in rows})))
    return {row.id: JobDataset(row.name, row.version, row.sha256) for row in found}


def _etag(row: Row) -> str:
    return f'"{row.revision}"'


def _delete_files(parts: Parts, keys: list[str]) -> None:
    for key in keys:
        parts.storage.delete(key)
