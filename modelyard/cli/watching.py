"""Following a job on a terminal: a bar with live numbers; plain lines where the output is piped on."""

from collections.abc import Iterator

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from modelyard.cli.session import Session, number, numbers
from modelyard.errors import JobFailed
from modelyard.resources.following import Happening
from modelyard.resources.jobs import JobHandle
from modelyard.specs import Event, Job, JobState, ProgressUpdate

SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130

#: The numbers of the live line, where the job reports them.
LIVE = ("train_loss", "val_loss", "val_accuracy")


def follow(session: Session, job: JobHandle) -> int:
    """Shows what happens until the job ends. Returns 0 where it succeeded, 1 where it did not, 130 on
    Ctrl-C, after which the job goes on."""
    try:
        if session.out.is_terminal:
            _show_live(session, job)
        else:
            for line in _lines(job.watch()):
                session.say(line)
        return _tell_outcome(session, job.refresh())
    except KeyboardInterrupt:
        session.remark(f"left; job {job.id} goes on; see `modelyard jobs watch` and `jobs cancel`")
        return INTERRUPTED


def _show_live(session: Session, job: JobHandle) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _Numbers())
    with Progress(*columns, console=session.out, transient=False) as bar:
        seen = job.job
        task = bar.add_task(seen.state, total=1.0)
        _update(bar, task, ProgressUpdate(state=seen.state, progress=seen.progress, metrics=seen.metrics))
        for happening in job.watch():
            match happening:
                case ProgressUpdate():
                    _update(bar, task, happening)
                case Event(type="warning" | "rewound"):
                    bar.console.print(_line(happening))
                case Event(type="state", data={"state": str(state)}):
                    bar.update(task, description=state)
                case Event():
                    pass  # the bar shows it


def _update(bar: Progress, task: TaskID, update: ProgressUpdate) -> None:
    done = update.progress
    parts = [f"epoch {done.epoch}/{done.epochs}"] if done.epochs else []
    parts += [f"{name} {number(update.metrics[name])}" for name in LIVE if name in update.metrics]
    if done.samples_per_second is not None:
        parts.append(f"{done.samples_per_second:,.0f}/s")
    if done.eta_seconds is not None and done.fraction < 1:
        parts.append(f"eta {_duration(done.eta_seconds)}")
    bar.update(task, description=update.state, completed=done.fraction, numbers="  ".join(parts))


class _Numbers(TextColumn):
    """The live line. Text, so that no name of a metric is read as markup."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: object) -> Text:
        return Text(getattr(task, "fields", {}).get("numbers", ""))


def _lines(happenings: Iterator[Happening]) -> Iterator[str]:
    return (_line(happening) for happening in happenings if isinstance(happening, Event))


def _line(event: Event) -> str:
    return f"{event.at.astimezone():%H:%M:%S} {event.type} {_words(event)}".rstrip()


def _words(event: Event) -> str:
    """What an event says in a line: its plain values, and the numbers of its metrics."""
    words = []
    for name, value in event.data.items():
        match value:
            case dict() if name == "metrics":
                words.append(numbers(value))
            case bool() | int() | str() if name == event.type:
                words.append(str(value))
            case bool() | int() | str():
                words.append(f"{name} {value}")
            case float():
                words.append(f"{name} {number(value)}")
            case _:
                pass  # structures are for programs; `jobs show --json` has them
    return "  ".join(words)


def _tell_outcome(session: Session, job: Job) -> int:
    if job.state is JobState.SUCCEEDED:
        registered = f" as {job.registered.model}@{job.registered.version}" if job.registered else ""
        session.say(f"succeeded{registered}  {numbers(job.metrics)}".rstrip())
        return SUCCEEDED
    if job.state is JobState.FAILED:
        session.remark(f"modelyard: {JobFailed(job)}")
    else:
        session.remark(f"modelyard: job {job.id} is {job.state}")
    return FAILED


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
