"""A fork: a job of an earlier one's spec, patched, from the start or with the weights of a checkpoint."""

import asyncio
from dataclasses import replace

import msgspec

from core.db.models import Checkpoint, Job
from core.db.statements import checkpoints
from core.errors import Invalid
from core.faults import fault, suggestion
from core.nets.plan import refusal
from modelyard.specs import JobDataset, ProblemError
from service import planner
from service.parts import Parts
from service.submit import Origin, Submission, examine

#: So much of a check's address space may be weights.
_MAPPED = 0.75
#: Ids that a message lists.
_MAX_NAMED = 5


async def prepare_fork(parts: Parts, owner: str, job: Job, dataset: JobDataset, body: bytes) -> Submission:
    """The patched spec, checked as any other. Raises Malformed, Invalid with all errors at once, or Conflict
    while a dataset that the patch names is being read."""
    submitted = job.submitted if job.submitted is not None else job.spec
    request = planner.Fork(body, msgspec.json.encode(submitted), f"{dataset.name}@{dataset.version}")
    reply = planner.decode(await parts.helper.ask(planner.encode(request)))
    assert isinstance(reply, planner.Forked)
    errors: list[ProblemError] = []
    start = await _start_of(parts, job, reply.start, errors)
    path = await asyncio.to_thread(_local_weights, parts, start) if start is not None else None
    try:
        submission = await examine(parts, owner, reply.spec.encode(), start=path)
    except Invalid as error:
        raise refusal([*errors, *error.errors]) if errors else error from None
    if errors:
        raise refusal(errors)
    return replace(submission, origin=Origin(job.id, start.id if start is not None else None))


async def _start_of(
    parts: Parts, job: Job, named: str | None, errors: list[ProblemError]
) -> Checkpoint | None:
    """The checkpoint that `from` names; None where it names none, or where `errors` says what is wrong."""
    if named is None:
        return None
    async with parts.database.read() as session:
        kept = list(await session.scalars(checkpoints.ready_checkpoints(job.id)))
    match named:
        case "best":
            best = job.best["checkpoint"] if job.best is not None else None
            found = next((row for row in kept if row.id == best), None)
        case "last":
            found = kept[0] if kept else None
        case _:
            found = next((row for row in kept if row.id == named), None)
    if found is None:
        fault(errors, "/from", "unknown_checkpoint", _unknown(job, named, [row.id for row in kept]))
    return found


def _unknown(job: Job, named: str, kept: list[str]) -> str:
    known = ", ".join(kept[:_MAX_NAMED]) if kept else "none yet"
    hint = suggestion(named, ["best", "last", *kept])
    return (
        f"{job.id} keeps no checkpoint {named[:100]}.{hint} It keeps: {known}; leave from out to begin anew."
    )


def _local_weights(parts: Parts, start: Checkpoint) -> str | None:
    """None for what is too large for a check to look at; the worker will see whether it fits."""
    if start.weights_bytes > parts.settings.plan_memory_bytes * _MAPPED:
        return None
    try:
        return str(parts.storage.fetch(start.weights_key))
    except FileNotFoundError:  # collected since the row was read: told when the job is written
        return None
