"""Ten times the capacity for a minute, on predictions, uploads and posted jobs.

    python -m benchmarks.overload [--seconds 60] [--times 10] [--only predict|uploads|jobs]

Starts the embedded stack in a temporary folder. What the service can do is measured first, by clients that
ask again as soon as they are answered; then so many times as many arrive, whatever becomes of those before.
Prints a table and a line a bar: the answers of the minute against the peak (0.9), how soon the rest is
refused with Retry-After (50 ms), how much memory grows (256 MiB), how soon all is as before (5 s). Exits 1
where one is missed, 130 at Ctrl-C."""

import asyncio
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from cyclopts import App

from benchmarks.overload.targets import NAMES, Name, Target, make_target
from benchmarks.overload.volley import Told, ask, closed, opened
from benchmarks.screen import machine, say
from benchmarks.serving.resident import NoService, service_pid
from benchmarks.training.memory import Peak
from deploy.embed import StackFailed, running_stack
from modelyard import Client, ModelyardError

MIB = 1024 * 1024
GOODPUT, REFUSED_WITHIN_S, GROWS_MIB, AGAIN_WITHIN_S = 0.9, 0.050, 256, 5.0
PEAK_S, CONNECTIONS = 8.0, 32
#: As before is an answer within so many times what one took when nobody else asked.
AS_BEFORE = 5.0
FAILURES = (ModelyardError, NoService, OSError, StackFailed)

app = App(name="python -m benchmarks.overload", help=__doc__)


@app.default
def main(*, seconds: float = 60, times: float = 10, only: Name | None = None) -> int:
    """Measure, print, and judge.

    Args:
        seconds: how long the overload lasts
        times: of the measured capacity
        only: one of the three
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="modelyard-overload-") as folder,
            running_stack(Path(folder) / "home") as stack,
            Client(stack.url, stack.key) as client,
        ):
            say(machine())
            outcomes = []
            for name in NAMES if only is None else (only,):
                target = make_target(name, client, stack.key, Path(folder))
                outcomes.append(
                    asyncio.run(measure(stack.url, service_pid(stack.pid), target, seconds, times))
                )
                target.clean()
    except FAILURES as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 130
    return report(outcomes)


@dataclass(frozen=True)
class Outcome:
    name: str
    peak_per_s: float
    offered_per_s: float
    told: Told
    seconds: float
    grown_mib: float
    again_s: float

    @property
    def goodput_per_s(self) -> float:
        return len(self.told.of(200, 201, 202)) / self.seconds

    @property
    def refused(self) -> list[float]:
        return sorted(answer.took_s for answer in self.told.of(429, 503))

    @property
    def refused_p50_s(self) -> float:
        return statistics.median(self.refused) if self.refused else 0.0

    def bars(self) -> list[tuple[str, bool]]:
        share, refused_ms = self.goodput_per_s / self.peak_per_s, 1000 * self.refused_p50_s
        odd = [answer for answer in self.told.answers if answer.status not in (200, 201, 202, 429, 503)]
        silent = [answer for answer in self.told.of(429, 503) if not answer.has_retry_after]
        return [
            (f"goodput {share:.2f} of the peak, bar {GOODPUT}", share >= GOODPUT),
            (
                f"refused after {refused_ms:.0f} ms (median), bar {1000 * REFUSED_WITHIN_S:.0f}",
                self.refused_p50_s <= REFUSED_WITHIN_S,
            ),
            (
                f"{len(odd)} answered otherwise, {len(silent)} refused without Retry-After",
                not odd and not silent,
            ),
            (f"memory grew by {self.grown_mib:.0f} MiB, bar {GROWS_MIB}", self.grown_mib <= GROWS_MIB),
            (
                f"as before after {self.again_s:.1f} s, bar {AGAIN_WITHIN_S:.0f}",
                self.again_s <= AGAIN_WITHIN_S,
            ),
        ]


async def measure(url: str, pid: int, target: Target, seconds: float, times: float) -> Outcome:
    quiet = await closed(url, target.make, 1, 2.0)
    usual_s = statistics.median(answer.took_s for answer in quiet.of(*target.good))
    peak = await closed(url, target.make, CONNECTIONS, PEAK_S)
    peak_per_s = len(peak.of(*target.good)) / PEAK_S
    target.clean()
    say(f"{target.name}: {peak_per_s:.0f} a second, {1000 * usual_s:.1f} ms alone; now {times:g} times that")
    with Peak(pid, is_above_start=True) as peak_memory:
        began = monotonic()
        load = asyncio.create_task(opened(url, target.make, times * peak_per_s, seconds))
        await asyncio.sleep(seconds)
        stopped = monotonic()
        again_s = await _as_before(url, target, usual_s, stopped)
        told = await load
    told.answers = [answer for answer in told.answers if answer.at <= stopped]  # those of the load's own time
    offered = (told.sent + told.unsent) / (stopped - began)
    grown_mib = peak_memory.bytes / MIB
    return Outcome(target.name, peak_per_s, offered, told, stopped - began, grown_mib, again_s)


async def _as_before(url: str, target: Target, usual_s: float, stopped: float) -> float:
    """Seconds from the end of the load to the first answer that comes as when nobody else asked."""
    while monotonic() - stopped < 60:
        answer = await ask(url, target.make(), Told())
        if answer is not None and answer.status in target.good and answer.took_s < AS_BEFORE * usual_s + 0.05:
            return monotonic() - stopped
        await asyncio.sleep(0.1)
    return float("inf")


def report(outcomes: list[Outcome]) -> int:
    rows = [
        "| | peak, a second | offered | answered | refused | lost | refused after, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        rows.append(
            f"| {one.name} | {one.peak_per_s:,.0f} | {one.offered_per_s:,.0f} | {one.goodput_per_s:,.0f} "
            f"| {len(one.refused):,} | {one.told.lost:,} {dict(one.told.why) or ''} "
            f"| {1000 * one.refused_p50_s:.0f} |"
        )
    say("\n" + "\n".join(rows) + "\n")
    is_held = True
    for one in outcomes:
        for sentence, holds in one.bars():
            say(f"{one.name}: {sentence}: {'held' if holds else 'MISSED'}")
            is_held &= holds
    return 0 if is_held else 1


if __name__ == "__main__":
    sys.exit(app())
