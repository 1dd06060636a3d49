"""`modelyard jobs`: plan, submit, watch, pause, stop and fork trainings."""

from itertools import islice
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from modelyard.cli.files import read_mapping, write_whole
from modelyard.cli.session import AsJson, Count, Session, Shared, mib, numbers
from modelyard.cli.watching import follow
from modelyard.resources.jobs import JobHandle
from modelyard.specs import Job, JobState, Progress

app = App(name="jobs", help="Plan, submit, watch, pause, stop and fork trainings.")

SpecFile: TypeAlias = Annotated[
    str, Parameter(allow_leading_hyphen=True, help="a spec as JSON or YAML; - reads standard input")
]

PatchFile: TypeAlias = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="what to change, as JSON or YAML: fields to merge, null takes one out; - reads standard input",
    ),
]


@app.command
def submit(spec: SpecFile, *, watch: bool = False, as_json: AsJson = False, session: Shared) -> int:
    """Queue a training, and print its id.

    Args:
        watch: stay until it ends; the exit status is then 1 unless it succeeded
    """
    body = read_mapping(spec)
    with session.client() as client:
        return _queued(session, client.jobs.submit(body), watch, as_json)


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
            ("memory", mib(plan.memory_bytes)),
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
def pause(job_id: str, *, session: Shared) -> None:
    """Set a job aside; a running one saves a checkpoint and gives its place to others.

    Args:
        job_id: the job's id
    """
    with session.client() as client:
        job = client.jobs.pause(job_id)
    is_paused = job.state is JobState.PAUSED
    session.say(f"{job.id} is {job.state}" + ("" if is_paused else " and will be paused"))


@app.command
def resume(job_id: str, *, session: Shared) -> None:
    """Go on with a paused job, from its last checkpoint.

    Args:
        job_id: the job's id
    """
    with session.client() as client:
        job = client.jobs.resume(job_id)
    is_running = job.state is JobState.RUNNING
    session.say(f"{job.id} is {job.state}" + (" and goes on" if is_running else ""))


@app.command
def fork(
    job_id: str,
    patch: PatchFile | None = None,
    *,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    watch: bool = False,
    as_json: AsJson = False,
    session: Shared,
) -> int:
    """Queue a new job of another one's spec, and print its id.

    Args:
        job_id: the id of the job that it is of, in any state
        start: begin with the weights of a checkpoint: best, last or its id
        watch: stay until it ends; the exit status is then 1 unless it succeeded
    """
    body = read_mapping(patch) if patch is not None else {}
    with session.client() as client:
        return _queued(session, client.jobs.fork(job_id, body, start), watch, as_json)


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


def _queued(session: Session, job: JobHandle, watch: bool, as_json: bool) -> int:
    if as_json:
        session.show_json(job.job)
    else:
        session.say(job.id)
    for warning in job.job.warnings:
        session.remark(f"warning: {warning}")
    return follow(session, job) if watch else 0


@app.command
def suspects(
    job_id: str,
    *,
    split: str = "train",
    limit: Count = 50,
    picture: Annotated[Path | None, Parameter(help="also write a grid of them as a PNG")] = None,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """Rows that a trained net doubts: likely wrong labels, or the greatest losses.

    Args:
        job_id: the job's id
        split: of which split of its dataset
        limit: show so many at most
    """
    with session.client() as client:
        found = client.jobs.suspects(job_id, split, limit)
        if picture is not None:
            write_whole(picture, client.jobs.suspects_png(job_id, split))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("index", "label", "predicted", "score", "loss", "likely"),
        (
            (x.index, x.label, x.predicted, x.score, x.loss, "yes" if x.is_likely else None)
            for x in found.items
        ),
    )
    likely = f", {found.num_likely} with a label that is likely wrong" if found.num_likely is not None else ""
    session.remark(f"{found.num_scored} rows of {found.split} looked at{likely}")


@app.command
def eject(
    job_id: str,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("eject.zip"),
    session: Shared,
) -> None:
    """Write a job as a script of plain PyTorch that gives its weights again, with what it needs, as a zip.

    Args:
        job_id: the job's id
        output: the file to write
    """
    with session.client() as client:
        write_whole(output, client.jobs.eject(job_id))
    session.say(str(output))


@app.command
def tensorboard(
    job_id: str,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    session: Shared,
) -> None:
    """Write what TensorBoard shows of a job to a zip: unpack it and run `tensorboard --logdir` on the folder.

    Args:
        job_id: the job's id
        output: the file to write; else <job id>.zip
    """
    with session.client() as client:
        session.say(str(client.jobs.tensorboard(job_id, output or Path(f"{job_id}.zip"))))


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
            ("forked from", _origin(job)),
        )
    )
    session.show_table(("state", "at", "reason"), ((t.state, t.at, t.reason) for t in job.transitions))


def _origin(job: Job) -> str | None:
    if job.forked_from is None:
        return None
    start = job.forked_from.checkpoint
    return job.forked_from.job + (f", weights of {start}" if start is not None else "")


def _progress(done: Progress) -> str:
    return f"{done.fraction:.0%}, epoch {done.epoch} of {done.epochs}, step {done.step} of {done.steps}"
