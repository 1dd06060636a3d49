"""What whoever waits sees: a bar on a terminal, nothing elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._rows = 0

    def begin(self, what: str, *, total_bytes: int | None = None) -> None:
        """Another step, with a bar that only moves where its size is not known."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._rows = 0
        self._task = self._bar.add_task(what, total=total_bytes)

    def bytes(self, count: int) -> None:
        assert self._task is not None
        self._bar.advance(self._task, count)

    def rows(self, count: int) -> None:
        assert self._task is not None
        self._rows += count
        self._bar.update(self._task, description=f"{self._rows:,} rows")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
