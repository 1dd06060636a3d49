"""What every command shares: the client for the given options, and how results are shown."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, TypeAlias

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from modelyard.client import Client


def _console() -> Console:
    """Text of the service is shown as it is: no markup, no highlighting."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


@dataclass(frozen=True)
class Session:
    """`out` is standard output; progress bars and remarks go to standard error."""

    url: str | None = None
    key: str | None = None
    out: Console = field(default_factory=_console)

    def client(self) -> Client:
        return Client(self.url, self.key)

    def say(self, line: str) -> None:
        self.out.print(line)

    def remark(self, line: str) -> None:
        """For who watches, not for what is piped on."""
        print(line, file=sys.stderr)

    def show_json(self, value: object) -> None:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")

    def show_table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table on a terminal; tab-separated lines, without the head, where the output is piped on."""
        if not self.out.is_terminal:
            for row in rows:
                sys.stdout.write("\t".join(_cell(value) for value in row) + "\n")
            return
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.out.print(table, soft_wrap=False)

    def show_fields(self, fields: Iterable[tuple[str, object]]) -> None:
        """One `name: value` a line, without those that are empty."""
        for name, value in fields:
            if value not in (None, "", {}, []):
                self.say(f"{name}: {_cell(value)}")


#: How a command asks for the session.
Shared: TypeAlias = Annotated[Session, Parameter(parse=False)]

#: `--json`: the service's own words, for other programs.
AsJson: TypeAlias = Annotated[
    bool, Parameter(name="--json", negative="", help="print JSON, for other programs")
]


#: `--limit`: how many rows of a list to show.
Count: TypeAlias = Annotated[int, Parameter(validator=Number(gte=1))]


def numbers(values: dict[str, float | None]) -> str:
    """`train_loss 0.231  val_accuracy 0.981`."""
    return "  ".join(f"{name} {number(value)}" for name, value in values.items())


def number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case float():
            return number(value)
        case dict():
            return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
        case list() | tuple():
            return ", ".join(_cell(item) for item in value)
        case _:
            return str(value)
