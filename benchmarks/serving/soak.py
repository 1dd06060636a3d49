"""Predictions at full load while everything moves: an alias flips ten times a second, models load and are
evicted, one is damaged on disk.

    python -m benchmarks.serving.soak [--minutes 10]

Starts the embedded stack in a temporary folder, with room for half of the models that are asked. Processes of
their own ask over raw sockets, and compare every answer with what plain PyTorch says of the version that the
reply names. Prints a line a minute with the service's memory, and a line a bar: no wrong answer, no request
without an answer, refusals only where they are due, and memory that grows under 5 % after the first minute.
Exits 1 where one is missed, 2 where it could not be told, 130 at Ctrl-C."""

import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cyclopts import App

from benchmarks.screen import machine, say
from benchmarks.serving import crowd
from benchmarks.serving.alone import ForwardFailed
from benchmarks.serving.resident import Curve, NoService, service_pid
from benchmarks.serving.soaked import CACHE_BYTES, FLIPPED, Soaked, make_models
from benchmarks.serving.tally import Tally
from benchmarks.serving.trained import NotTrained
from deploy.embed import RunningStack, StackFailed, running_stack
from modelyard import Client, ModelyardError

FLIP_EVERY_S = 0.1
SAMPLE_EVERY_S = 2.0
ALIAS = "production"
FAILURES = (crowd.ClientFailed, ForwardFailed, ModelyardError, NoService, NotTrained, OSError, StackFailed)

app = App(name="python -m benchmarks.serving.soak", help=__doc__)


@app.default
def main(*, minutes: float = 10, processes: int = 2, connections: int = 32) -> int:
    """Soak, print, and judge.

    Args:
        minutes: how long; memory is judged from three minutes on
        processes: clients, each on its own
        connections: of all clients together
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left running
    try:
        with (
            tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder,
            running_stack(Path(folder) / "home", model_cache_bytes=str(CACHE_BYTES)) as stack,
            Client(stack.url, stack.key) as client,
        ):
            say(f"{machine()}; making the models")
            soaked = make_models(client, Path(folder), stack.home)
            order = crowd.Order(stack.url, stack.key, soaked, connections // processes)
            outcome = soak(stack, client, order, processes, minutes * 60)
    except FAILURES as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 130
    return judge(outcome, soaked)


@dataclass(frozen=True)
class Outcome:
    tally: Tally
    curve: Curve
    flips: int
    has_restarted: bool


def soak(stack: RunningStack, client: Client, order: crowd.Order, processes: int, seconds: float) -> Outcome:
    pid = service_pid(stack.pid)
    curve, tally, minute, flips = Curve(pid), Tally(), Tally(), 0
    began = time.monotonic()
    next_sample, next_minute = began, began + 60
    with crowd.at_work(order, processes) as tallies:
        while (now := time.monotonic()) < began + seconds:
            client.models.set_alias(FLIPPED, ALIAS, flips % 2 + 1)
            flips += 1
            if now >= next_sample:
                curve.add(now - began)
                next_sample += SAMPLE_EVERY_S
            if now >= next_minute:
                minute = tallies.taken()
                tally.add(minute)
                say(f"minute {round((now - began) / 60)}: {minute}; {flips} flips; {curve.last_mb:,.0f} MB")
                next_minute += 60
            time.sleep(max(0.0, now + FLIP_EVERY_S - time.monotonic()))
    tally.add(tallies.taken())
    curve.add(time.monotonic() - began)
    return Outcome(tally, curve, flips, has_restarted=service_pid(stack.pid) != pid)


def judge(outcome: Outcome, soaked: Soaked) -> int:
    tally, curve = outcome.tally, outcome.curve
    say(f"\n{curve.table()}\n")
    say(f"{tally}; {outcome.flips} flips")
    for note in tally.notes:
        say(f"  {note}")
    unseen = [name for name in soaked.names() if not tally.answers.get(name)]
    verdicts = [
        none_of("wrong answers", tally.wrong),
        none_of("requests without an answer", tally.lost),
        none_of("refusals of models that are well, but 429 and 503 with Retry-After", tally.undue),
        none_of("versions that never answered", len(unseen)),
        (f"the damaged version was refused {tally.damaged} times, expected some", tally.damaged > 0),
        (f"the service restarted: {outcome.has_restarted}", not outcome.has_restarted),
    ]
    growth = curve.growth_verdict()
    if growth is None:
        say("memory was not judged: that takes three minutes")
    else:
        verdicts.append(growth)
    for sentence, is_held in verdicts:
        say(f"{sentence}: {'held' if is_held else 'missed'}")
    return 0 if all(is_held for _, is_held in verdicts) else 1


def none_of(what: str, count: int) -> tuple[str, bool]:
    return f"{what}: {count}, bar 0", count == 0


if __name__ == "__main__":
    sys.exit(app())
