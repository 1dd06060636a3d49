"""Following a job on a terminal: its curves and a bar; plain lines where the output is piped on."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from modelyard.cli.panels import LOSSES, History, has_room, panels
from modelyard.cli.session import Session, number, numbers
from modelyard.errors import JobFailed
from modelyard.resources.following import PASSING, Happening
from modelyard.resources.jobs import JobHandle
from modelyard.specs import Event, Job, JobState, ProgressUpdate

SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130

#: The numbers of the live line, where there is no room for curves.
LIVE = ("train_loss", "val_loss", "val_accuracy")

#: Events that stay on the screen, above what is drawn.
TOLD = {"warning", "rewound", "inexact_resume", "out_of_memory", "went_astray", "storage_full"}

#: The screen is drawn anew so often a second, and new numbers are asked for no more often than this.
REFRESHES = 4
READ_EVERY_S = 0.5


def follow(session: Session, job: JobHandle) -> int:
    """Shows what happens until the job ends. Returns 0 where it succeeded, 1 where it did not, 130 on
    Ctrl-C, after which the job goes on."""
    try:
        if can_draw(session.out):
            _show_live(session, job)
        else:
            for line in _lines(job.watch()):
                session.say(line)
        return _tell_outcome(session, job.refresh())
    except KeyboardInterrupt:
        session.remark(
            f"left; job {job.id} goes on: `modelyard jobs watch {job.id}` shows it again, "
            f"`modelyard jobs cancel {job.id}` stops it"
        )
        return INTERRUPTED


def can_draw(console: Console) -> bool:
    """A terminal that can be drawn over, in an encoding that has the characters."""
    is_drawable = console.is_terminal and not console.is_dumb_terminal
    return is_drawable and console.encoding.lower().startswith("utf")


def _show_live(session: Session, job: JobHandle) -> None:
    watched = _Watched(session.out, job)
    with Live(get_renderable=watched.render, console=session.out, refresh_per_second=REFRESHES) as live:
        for happening in job.watch():
            match happening:
                case ProgressUpdate():
                    watched.progressed(happening)
                case Event(type=kind) if kind in TOLD:
                    live.console.print(_line(happening))
                case Event(type="state", data={"state": str(state)}):
                    watched.bar.update(watched.task, description=state)
                case Event():
                    pass  # the bar and the curves show it
            if isinstance(happening, Event):
                watched.happened(happening)
        watched.read_metrics()


class _Watched:
    """What is drawn: the curves so far and the bar below them. Numbers come from the job's metrics, of which
    none is lost where the stream of events breaks off."""

    def __init__(self, console: Console, job: JobHandle) -> None:
        self._console, self._job = console, job
        trainer = job.job.spec.get("trainer") or {}
        self._history = History((trainer.get("checkpoint") or {}).get("monitor") or LOSSES[1])
        self._read_at = -READ_EVERY_S
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _Numbers())
        self.bar = Progress(*columns, console=console)
        seen = job.job
        self.task = self.bar.add_task(seen.state, total=1.0)
        self.progressed(ProgressUpdate(state=seen.state, progress=seen.progress, metrics=seen.metrics))

    def progressed(self, update: ProgressUpdate) -> None:
        _update(self.bar, self.task, update, () if has_room(self._console) else LIVE)
        now = time.monotonic()
        if update.progress.step and now - self._read_at >= READ_EVERY_S:
            self._read_at = now
            self.read_metrics()

    def happened(self, event: Event) -> None:
        match event:
            case Event(type="rewound", data={"step": int(step)}):
                self._history.rewind(step)
            case _:
                pass

    def read_metrics(self) -> None:
        """What is new, and the last step once more: an epoch's end adds to it."""
        with contextlib.suppress(*PASSING):  # the next time then
            self._history.add(self._job.metrics(self._history.names, self._history.last_step))

    def render(self) -> RenderableType:
        if not has_room(self._console):
            return self.bar
        # Room for what the terminal echoes on Ctrl-C: a line that wraps would leave traces.
        return Group(panels(self._history, self._console), Constrain(self.bar, self._console.width - 4))


def _update(bar: Progress, task: TaskID, update: ProgressUpdate, names: Sequence[str]) -> None:
    done = update.progress
    parts = [f"epoch {done.epoch}/{done.epochs}"] if done.epochs else []
    parts += [f"{name} {number(update.metrics[name])}" for name in names if name in update.metrics]
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
