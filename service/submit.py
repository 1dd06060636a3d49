"""From the bytes of a job to a plan or a queued job. What cannot train never reaches the queue."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core import ids
from core.db.models import Dataset, Job, Worker, utc_now
from core.db.statements import checkpoints, datasets, jobs, workers
from core.errors import Conflict, ModelyardError
from core.fault_points import reach
from core.faults import suggestion
from core.nets.plan import Checked, refusal
from core.uploads import uploads_of
from modelyard import specs
from modelyard.specs import JobState, ProblemError, Wanted
from service import planner
from service.estimates import batches_of, work_of
from service.from_upload import named_uploads, require_uploads
from service.idempotency import Once, in_flight
from service.parts import Parts
from service.planner import wrong_dataset
from service.pools import pool_of
from service.quotas import require_place
from service.views import job_view

#: So many of an owner's newest datasets are looked through for the one that was meant.
_NEAR = 200


@dataclass(frozen=True)
class Origin:
    """The job that a fork is of, and the checkpoint whose weights it begins with."""

    job: str
    checkpoint: str | None


@dataclass(frozen=True)
class Submission:
    """A spec that can train, `body` as it came, and the version it learns from."""

    body: bytes
    dataset: Dataset
    checked: Checked
    origin: Origin | None = None


class _Reference(msgspec.Struct):
    """The one field that the service reads of a body by itself. All else is read in the helper child."""

    dataset: str | None = None


async def examine(parts: Parts, owner: str, body: bytes, *, start: str | None = None) -> Submission:
    """`start` is the path of the weights that a fork begins with. Raises Malformed, Invalid with all errors
    at once, or Conflict while the dataset is being read."""
    # Without the word, or an escape that may hide it, no upload is named.
    may_name = b"upload" in body or b"\\u" in body
    reference, named = (None if may_name else _reference_of(body)), dict[str, str]()
    if reference is None:
        read = await _read(parts, body)
        reference, named = read.reference, read.uploads
    try:
        dataset = await find_dataset(parts, owner, reference)
    except ModelyardError:
        await _read(parts, body)  # bytes that are no spec at all are told before the dataset
        raise
    manifest = msgspec.json.encode(dataset.manifest)
    name = f"{dataset.name}@{dataset.version}"
    files, missing = await named_uploads(parts, owner, named)
    request = planner.Examine(
        body, name, manifest, parts.settings.plan_max_parameters, files=files, missing=missing, start=start
    )
    reply = planner.decode(await parts.helper.ask(planner.encode(request)))
    assert isinstance(reply, planner.Passed)
    return Submission(body, dataset, reply.checked)


def _reference_of(body: bytes) -> str | None:
    """A quick look, which skips over everything else: None where only a thorough one can tell."""
    try:
        reference = msgspec.json.decode(body, type=_Reference).dataset
    except (msgspec.DecodeError, RecursionError):
        return None
    return reference if reference is not None and planner.REFERENCE.fullmatch(reference) else None


async def _read(parts: Parts, body: bytes) -> planner.Named:
    """What the spec names. Raises Malformed for what is no strict JSON, Invalid where none is named."""
    reply = planner.decode(await parts.helper.ask(planner.encode(planner.Read(body))))
    assert isinstance(reply, planner.Named)
    return reply


async def submit(parts: Parts, owner: str, submission: Submission, once: Once) -> Response[Any]:
    """Writes the job, its first event and the remembered reply in one transaction, then wakes a worker.
    Raises Conflict where the same Idempotency-Key is being answered elsewhere."""
    async with parts.database.write() as session:
        if (earlier := await once.earlier(session)) is not None:
            return earlier
        await require_place(session, parts, owner)
        dataset = (await session.scalars(datasets.lock_dataset(submission.dataset.id))).one()
        if dataset.state != "ready":
            raise Conflict(f"{dataset.name}@{dataset.version} was deleted meanwhile.", code="dataset_deleted")
        await require_uploads(session, owner, submission.checked.spec)
        await _require_start(session, submission.origin)
        known = list(await session.scalars(workers.list_workers()))
        pool = pool_of(submission.checked.spec["trainer"]["device"], {worker.pool for worker in known})
        _require_slots(submission.checked.spec, pool, known)
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
        reach("service.accepting")
        try:
            await session.commit()
        except IntegrityError as error:
            raise in_flight() from error
    reach("service.accepted")
    parts.sweeper.poke(pool)
    return Response(reply, status_code=HTTPStatus.ACCEPTED, headers=headers)


async def find_dataset(parts: Parts, owner: str, reference: str) -> Dataset:
    match = planner.REFERENCE.fullmatch(reference)
    assert match is not None
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
        raise wrong_dataset("unknown_dataset", await _unknown(parts, owner, reference, name))
    match row.state:
        case "ready":
            return row
        case "failed":
            why = (row.error or {}).get("detail", "")
            raise wrong_dataset("dataset_failed", f"{name}@{row.version} could not be read: {why}")
        case _:
            raise Conflict(
                f"{name}@{row.version} is still being read; GET /v1/datasets/{name}?wait=30 waits for it.",
                code="dataset_not_ready",
                retry_after_s=2,
            )


async def _unknown(parts: Parts, owner: str, reference: str, name: str) -> str:
    """With what there is instead: the newest of the owner's names, or the versions of this one."""
    async with parts.database.read() as session:
        versions = list(await session.scalars(datasets.list_versions(owner, name, None, _NEAR)))
        newest = list(await session.scalars(datasets.list_datasets(owner, None, _NEAR)))
    if versions:
        numbers = ", ".join(str(row.version) for row in versions)
        return f"you have no dataset {reference}; the newest versions of {name} are {numbers}"
    hint = suggestion(name, [row.name for row in newest])
    if hint:
        return f"you have no dataset {reference}.{hint} Or upload it first"
    return f"you have no dataset {reference}; upload it first"


async def estimate(parts: Parts, submission: Submission) -> float | None:
    """Seconds that the training will take; None where none like it has ended in its pool."""
    checked = submission.checked
    work = work_of(checked, _rows_of(submission.dataset))
    return await parts.estimator.seconds(checked.spec["trainer"]["device"], work, batches_of(checked))


def _rows_of(dataset: Dataset) -> int:
    """At least the training's own: only where a batch holds all rows does it matter how many there are."""
    assert dataset.manifest is not None, "it is ready"
    return sum(dataset.manifest["splits"].values())


def _learned(dataset: Dataset) -> specs.JobDataset:
    return specs.JobDataset(dataset.name, dataset.version, dataset.sha256)


async def _require_start(session: AsyncSession, origin: Origin | None) -> None:
    """Locks the checkpoint that a fork begins with until the transaction ends. Raises Invalid where it was
    collected meanwhile."""
    if origin is None or origin.checkpoint is None:
        return
    rows = await session.scalars(checkpoints.lock_checkpoints([origin.checkpoint]))
    if not any(row.state == "ready" for row in rows):
        message = (
            f"{origin.checkpoint} was collected or deleted meanwhile; "
            f"GET /v1/jobs/{origin.job}/checkpoints lists what is kept."
        )
        raise refusal([ProblemError("/from", "unknown_checkpoint", message)])


def _require_slots(spec: dict[str, Any], pool: str, known: list[Worker]) -> None:
    """Raises Invalid where every known worker of the pool has fewer slots than the job wants devices."""
    wanted = spec["trainer"]["devices"]
    largest = max((worker.slots for worker in known if worker.pool == pool), default=wanted)
    if wanted > largest:
        message = (
            f"The largest worker of the pool {pool} has {largest} slots, one a device; {wanted} devices "
            f"came. Ask for at most {largest}, or start a worker with more slots."
        )
        raise refusal([ProblemError("/trainer/devices", "too_large", message)])


def _row(owner: str, submission: Submission, pool: str) -> Job:
    now = utc_now()
    origin = submission.origin
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
        devices=spec["trainer"]["devices"],
        forked_from=origin.job if origin is not None else None,
        start_checkpoint_id=origin.checkpoint if origin is not None else None,
        dataset_id=submission.dataset.id,
        upload_ids=sorted(set(uploads_of(spec).values())),
        submitted=msgspec.json.decode(submission.body),
        spec=spec,
        work=work_of(submission.checked, _rows_of(submission.dataset)),
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
