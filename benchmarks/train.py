"""The same trainings through the service and as plain scripts: the notes' loop, a careful hand-written loop,
and Lightning.

    python -m benchmarks.train [--only mlp|cnn|photos] [--sides notes,service] [--rounds 1] [--cnn-rows 2000]

Starts the embedded stack in a temporary folder and gives every side the same images. The sides take turns, so
that what else the machine does hits all alike; a round is one run of each. Prints a Markdown table a case and
its bars; exits 1 where a bar is missed, 130 at Ctrl-C. All of it takes about half an hour on two cores."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import App

from benchmarks.screen import has_bf16, machine, say
from benchmarks.training import data, report, scripts, through_service
from benchmarks.training.cases import CASES, Case, Precision
from benchmarks.training.data import Files, MissingData
from benchmarks.training.report import Runs, Side
from benchmarks.training.results import Result
from deploy.embed import RunningStack, running_stack
from modelyard import Client
from modelyard.specs import Dataset

Kind = Literal["notes", "careful", "lightning", "service"]
KINDS: tuple[Kind, ...] = ("notes", "careful", "lightning", "service")
LABELS = {
    "notes": "the notes' loop",
    "careful": "careful loop",
    "lightning": "Lightning",
    "service": "service",
}
SCRIPTS = {"notes": "notes_loop", "careful": "careful_loop", "lightning": "lightning_loop"}

app = App(name="python -m benchmarks.train", help=__doc__)


@dataclass(frozen=True)
class Bench:
    """The stack that trains on the service's side, and what is asked of all sides."""

    stack: RunningStack
    client: Client
    folder: Path
    kinds: tuple[Kind, ...]
    rounds: int


@app.default
def main(
    *,
    only: Literal["mlp", "cnn", "photos"] | None = None,
    sides: str = ",".join(KINDS),
    rounds: int = 3,
    cnn_rows: int | None = None,
    photos: int = 1500,
) -> int:
    """Measure, print, and judge.

    Args:
        only: one case
        sides: of notes, careful, lightning, service; a bar needs notes and service
        rounds: runs of each side; the figures are their medians
        cnn_rows: training images of the CNN, all 10,000 where it is left out
        photos: images of the case with RandomResizedCrop; its memory is measured again with twice as many
    """
    kinds = tuple(kind for kind in KINDS if kind in sides.split(","))
    if not kinds or set(sides.split(",")) - set(KINDS):
        say(f"expected --sides of {', '.join(KINDS)}, got {sides!r}: name some of them, with commas between")
        return 2
    verdicts: list[tuple[str, bool]] = []
    try:
        with bench(kinds, rounds) as running:
            for case in CASES.values() if only is None else [CASES[only]]:
                verdicts += measured(running, case, cnn_rows, photos)
    except MissingData as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0 if all(is_held for _, is_held in verdicts) else 1


@contextmanager
def bench(kinds: tuple[Kind, ...], rounds: int) -> Iterator[Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder,
        running_stack(Path(folder) / "home") as stack,
        Client(stack.url, stack.key) as client,
    ):
        yield Bench(stack, client, Path(folder), kinds, rounds)


def measured(running: Bench, case: Case, cnn_rows: int | None, photos: int) -> list[tuple[str, bool]]:
    """The case's tables on the screen, and its bars."""
    say(f"\n{case.name}: {case.title}")
    if case.name == "photos":
        runs, doubled = (rounds_of(running, case, written(running, case, n)) for n in (photos, 2 * photos))
        print_table(runs, f"{photos:,} images")
        print_table(doubled, f"{2 * photos:,} images")
        grown = report.growth(runs, doubled)
        verdicts = report.bars(runs, has_bf16()) + ([grown] if grown else [])
    else:
        runs = rounds_of(running, case, written(running, case, cnn_rows))
        print_table(runs, machine())
        verdicts = report.bars(runs, has_bf16())
    for sentence, _ in verdicts:
        say(sentence)
    return verdicts


def written(running: Bench, case: Case, rows: int | None) -> Files:
    folder = running.folder / f"{case.name}-{rows}"
    folder.mkdir()
    match case.name:
        case "mlp":
            return data.write_mnist(folder)
        case "cnn":
            return data.write_cifar(folder, rows)
        case _:
            return data.write_photos(folder, rows or 0)


def rounds_of(running: Bench, case: Case, files: Files) -> Runs:
    runs = Runs(case)
    dataset = running.client.datasets.push(case.name, files.archive) if "service" in running.kinds else None
    for number in range(1, running.rounds + 1):
        for side in sides_of(running.kinds, case):
            began = time.monotonic()
            result = one(running, case, side, files, dataset)
            runs.add(side, result)
            say(
                f"  round {number}, {side.label}: {result.samples_per_s:,.0f} samples/s, "
                f"whole {result.whole_s:.1f} s ({time.monotonic() - began:.0f} s)"
            )
    return runs


def one(running: Bench, case: Case, side: Side, files: Files, dataset: Dataset | None) -> Result:
    if dataset is not None and side.kind == "service":
        return through_service.run(running.stack, running.client, case, dataset, side.precision)
    return scripts.run(SCRIPTS[side.kind], case, files.folder, side.precision)


def sides_of(kinds: tuple[Kind, ...], case: Case) -> list[Side]:
    """In the order in which they take turns. Photos are about data: the notes' loop and ours, in fp32."""
    if case.name == "photos":
        return [Side(kind, "fp32", label_of(kind, "fp32")) for kind in kinds if kind in ("notes", "service")]
    precisions: tuple[Precision, ...] = ("fp32", "auto")
    return [
        Side(kind, precision, label_of(kind, precision))
        for kind in kinds
        for precision in (precisions[:1] if kind == "notes" else precisions)
    ]


def label_of(kind: Kind, precision: Precision) -> str:
    if kind == "notes":
        return LABELS[kind]
    return f"{LABELS[kind]}, {'bf16' if precision == 'auto' and kind != 'service' else precision}"


def print_table(runs: Runs, heading: str) -> None:
    say(f"\n{heading}\n\n{report.table(runs)}\n")


if __name__ == "__main__":
    sys.exit(app())
