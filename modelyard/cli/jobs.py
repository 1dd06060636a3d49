"""`modelyard jobs`: plan, submit, watch and stop trainings."""

from itertools import islice
from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from modelyard.cli.files import read_mapping
from modelyard.cli.session import AsJson, Count, Session, Shared, numbers
from modelyard.cli.watching import follow
from modelyard.specs import Job, Progress

app = App(name="jobs", help="Plan, submit, watch and stop trainings.")

SpecFile: TypeAlias = Annotated[
    str, Parameter(allow_leading_hyphen=True, help="a spec as JSON or YAML; - reads standard input")
]


@app.command
def submit(spec: SpecFile, *, watch: bool = False, as_json: AsJson = False, session: Shared) -> int:
    """Queue a training, and print its id.

    Args:
        watch: stay until it ends; the exit status is then 1 unless it succeeded
    """
    body = read_mapping(spec)
    with session.client() as client:
        job = client.jobs.submit(body)
        if as_json:
            session.show_json(job.job)
        else:
            session.say(job.id)
        for warning in job.job.warnings:
            session.remark(f"warning: {warning}")
        return follow(session, job) if watch else 0


@app.command
def plan(spec: SpecFile, *, as_json: AsJson = False, session: Shared) -> None:
    """What a spec would train, layer by layer; nothing is queued."""
    body = read_mapping(spec)
    with session.client() as client:
        plan = client.jobs.plan(body)
    if as_json:
        session.show_json(plan)
        return
    session.show_table(
        ("layer", "type", "output", "parameters", "trainable"),
        ((x.path, x.type, str(x.output_shape), x.parameters, x.trainable) for x in plan.layers),
    )
    session.show_fields(
        (
            ("parameters", f"{plan.parameters:,} of which {plan.trainable:,} are trained"),
            ("steps", f"{plan.steps} ({plan.steps_per_epoch} an epoch)"),
            ("memory", f"{plan.memory_bytes / 2**20:.1f} MiB"),
            ("estimated", f"{plan.estimated_seconds:.0f} s" if plan.estimated_seconds else None),
        )
    )
    for warning in plan.warnings:
        session.remark(f"warning: {warning}")


@app.command
def watch(job_id: str, *, session: Shared) -> int:
    """Follow a job to its end. Ctrl-C leaves; the job goes on.

    Args:
        job_id: the job's id
    """
    with session.client() as client:
        return follow(session, client.jobs.handle(job_id))


@app.command(name="list")
def list_(
    *,
    state: str | None = None,
    name: str | None = None,
    limit: Count = 20,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """The newest jobs.

    Args:
        state: only those in this state
        name: only those that train this model
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.jobs.list(state=state, name=name), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("id", "name", "state", "dataset", "done", "created"),
        (
            (
                job.id,
                job.name,
                job.state,
                f"{job.dataset.name}@{job.dataset.version}",
                f"{job.progress.fraction:.0%}",
                job.created_at,
            )
            for job in found
        ),
    )


@app.command
def show(job_id: str, *, as_json: AsJson = False, session: Shared) -> None:
    """One job: how it stands and how it came there.

    Args:
        job_id: the job's id
    """
    with session.client() as client:
        _show(session, client.jobs.get(job_id), as_json)


@app.command
def cancel(job_id: str, *, session: Shared) -> None:
    """Stop a job; what it saved stays.

    Args:
        job_id: the job's id
    """
    with session.client() as client:
        job = client.jobs.cancel(job_id)
    session.say(f"{job.id} is {job.state}" + ("" if job.terminal else " and will be cancelled"))


@app.command
def metrics(job_id: str, *, names: list[str] | None = None, as_json: AsJson = False, session: Shared) -> None:
    """Every number that a job reported.

    Args:
        job_id: the job's id
        names: only these, such as val_loss; may be given several times
    """
    with session.client() as client:
        found = list(client.jobs.handle(job_id).metrics(names))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("name", "epoch", "step", "value", "at"),
        ((m.name, m.epoch, m.step, m.value if m.value is not None else m.non_finite, m.at) for m in found),
    )


def _show(session: Session, job: Job, as_json: bool) -> None:
    if as_json:
        session.show_json(job)
        return
    session.show_fields(
        (
            ("job", job.id),
            ("name", job.name),
            ("state", job.state),
            ("dataset", f"{job.dataset.name}@{job.dataset.version}"),
            (
                "progress",
                _progress(job.progress),
            ),
            ("metrics", numbers(job.metrics)),
            ("best", f"{job.best.checkpoint} at epoch {job.best.epoch}" if job.best else None),
            ("registered", f"{job.registered.model}@{job.registered.version}" if job.registered else None),
            ("error", f"{job.error.code}: {job.error.message} {job.error.hint}" if job.error else None),
            ("attempt", job.attempt),
        )
    )
    session.show_table(("state", "at", "reason"), ((t.state, t.at, t.reason) for t in job.transitions))


def _progress(done: Progress) -> str:
    return f"{done.fraction:.0%}, epoch {done.epoch} of {done.epochs}, step {done.step} of {done.steps}"
