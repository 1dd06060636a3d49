"""From the bytes of a job to a plan or a queued job. What cannot train never reaches the queue."""

import asyncio
import re
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from sqlalchemy.exc import IntegrityError

from core import ids
from core.data.manifest import Manifest
from core.db.models import Dataset, Job, utc_now
from core.db.statements import datasets, jobs, workers
from core.errors import Conflict, Invalid
from core.nets.parse import parse_spec
from core.nets.plan import Checked, Source, check
from modelyard import specs
from modelyard.specs import JobState, ProblemError, Wanted
from service.idempotency import Once, in_flight
from service.parts import Parts
from service.views import job_view, manifest_of

_REFERENCE = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})(?:@([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Submission:
    """A spec that can train, and the version it learns from."""

    dataset: Dataset
    checked: Checked


async def examine(parts: Parts, owner: str, body: bytes) -> Submission:
    """Raises Malformed, Invalid with all errors at once, or Conflict while the dataset is being read."""
    run = partial(asyncio.get_running_loop().run_in_executor, parts.planners)
    raw = await run(parse_spec, body)
    dataset = await _dataset_of(parts, owner, raw)
    manifest = await run(manifest_of, dataset)
    return Submission(dataset, await run(_check, raw, dataset, manifest, parts.settings.plan_max_parameters))


def _check(raw: object, dataset: Dataset, manifest: Manifest, max_parameters: int) -> Checked:
    source = Source(f"{dataset.name}@{dataset.version}", manifest)
    return check(raw, source, max_parameters=max_parameters)


async def submit(parts: Parts, owner: str, submission: Submission, once: Once) -> Response[Any]:
    """Writes the job, its first event and the remembered reply in one transaction, then wakes a worker.
    Raises Conflict where the same Idempotency-Key is being answered elsewhere."""
    async with parts.database.write() as session:
        if (earlier := await once.earlier(session)) is not None:
            return earlier
        dataset = (await session.scalars(datasets.lock_dataset(submission.dataset.id))).one()
        if dataset.state != "ready":
            raise Conflict(f"{dataset.name}@{dataset.version} was deleted meanwhile.", code="dataset_deleted")
        known = list(await session.scalars(workers.list_workers()))
        pool = pool_of(submission.checked.spec["trainer"]["device"], {worker.pool for worker in known})
        job = _row(owner, submission, pool)
        if not any(worker.pool == pool for worker in known):
            job.warnings = [*job.warnings, f"no worker of the pool {pool} was known; the job waits for one"]
        reply = msgspec.to_builtins(job_view(job, _learned(dataset)))
        first = jobs.add_event(job, "state", {"state": job.state, "reason": "submitted"}, job.created_at)
        session.add(job)
        await session.flush()  # the event refers to it
        session.add(first)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        once.remember(session, HTTPStatus.ACCEPTED, reply, headers)
        try:
            await session.commit()
        except IntegrityError as error:
            raise in_flight() from error
    parts.sweeper.poke(pool)
    return Response(reply, status_code=HTTPStatus.ACCEPTED, headers=headers)


def pool_of(device: str, known: set[str]) -> str:
    """`auto` goes to a GPU where one is known."""
    return "gpu" if device == "cuda" or (device == "auto" and "gpu" in known) else "cpu"


async def _dataset_of(parts: Parts, owner: str, raw: object) -> Dataset:
    reference = raw.get("dataset") if isinstance(raw, dict) else None
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        # Without a dataset nothing else can be checked, but the shape of the body can be told.
        what = "a job is a JSON object" if not isinstance(raw, dict) else "expected name or name@version"
        code = "required" if reference is None else "invalid"
        raise _wrong_dataset(code, f"{what}, got {_shown(reference if isinstance(raw, dict) else raw)}")
    name, number = match[1], match[2]
    async with parts.database.read() as session:
        if number is not None:
            row = (await session.scalars(datasets.get_version(owner, name, int(number)))).one_or_none()
        else:
            query = datasets.newest_version(owner, name, state="ready")
            row = (await session.scalars(query)).one_or_none()
            if row is None:
                row = (await session.scalars(datasets.newest_version(owner, name))).one_or_none()
    if row is None:
        raise _wrong_dataset("unknown_dataset", f"you have no dataset {reference}; upload it first")
    match row.state:
        case "ready":
            return row
        case "failed":
            why = (row.error or {}).get("detail", "")
            raise _wrong_dataset("dataset_failed", f"{name}@{row.version} could not be read: {why}")
        case _:
            raise Conflict(
                f"{name}@{row.version} is still being read; GET /v1/datasets/{name}?wait=30 waits for it.",
                code="dataset_not_ready",
                retry_after_s=2,
            )


def _wrong_dataset(code: str, message: str) -> Invalid:
    return Invalid(
        f"The job names no dataset to learn from: {message}.",
        code=code,
        errors=[ProblemError("/dataset", code, message)],
    )


def _shown(value: object) -> str:
    return repr(value)[:100]


def _learned(dataset: Dataset) -> specs.JobDataset:
    return specs.JobDataset(dataset.name, dataset.version, dataset.sha256)


def _row(owner: str, submission: Submission, pool: str) -> Job:
    now = utc_now()
    spec, plan = submission.checked.spec, submission.checked.plan
    progress = specs.Progress(epochs=spec["trainer"]["epochs"], steps=plan.steps)
    transition = {"state": JobState.QUEUED, "at": now.isoformat(), "reason": "submitted"}
    return Job(
        id=ids.job_id(),
        owner=owner,
        name=spec["name"],
        state=JobState.QUEUED,
        wanted=Wanted.RUN,
        revision=0,
        pool=pool,
        priority=spec["priority"],
        dataset_id=submission.dataset.id,
        spec=spec,
        warnings=plan.warnings,
        attempt=0,
        losses=0,
        event_seq=0,
        progress=msgspec.to_builtins(progress),
        metrics={},
        resolved={},
        transitions=[transition],
        created_at=now,
        queued_at=now,
    )
