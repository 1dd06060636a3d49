"""Small jobs and predictions while somebody kills everything, every few seconds.

    python -m benchmarks.survival [--minutes 15] [--jobs 200] [--database sqlite|postgresql] [--seed 1]

Starts a broker, a database, two services and two workers of its own in a temporary folder. At random a
service, a worker, a training, the broker or the database is killed, or a worker stopped for longer than its
lease or told to drain; whoever is gone is started again. All jobs are the same, so that all must end with the
same weights. Prints a line for each fault and the tally, and exits 1 unless nothing was lost, doubled or
wrong."""

import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from cyclopts import App
from sklearn.datasets import load_digits

from benchmarks.screen import machine, say
from tests import exactness, invariants
from tests import house as homes
from tests.servers import Postgres, running_broker
from tests.site import ENDED, Process, Site, running_site

FAULT_EVERY_S = (2.0, 6.0)
#: So many jobs wait or run at once: else the last are posted when the first have long been forgotten.
AT_ONCE = 6
TRAINER = {"epochs": 4, "checkpoint": {"every_epochs": 1}}
#: After the last fault, for what is left.
REST_S = 300.0

app = App(name="python -m benchmarks.survival", help=__doc__)


@dataclass
class Tally:
    accepted: dict[str, str] = field(default_factory=dict)  # ids by their keys
    posts: Counter[str] = field(default_factory=Counter)
    predictions: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


@app.default
def main(
    *,
    minutes: float = 15,
    jobs: int = 200,
    database: Literal["sqlite", "postgresql"] = "sqlite",
    seed: int = 1,
) -> int:
    """Soak, print, and judge.

    Args:
        minutes: how long something is killed every few seconds
        jobs: posted over that time
        database: where the rows are
        seed: of what is killed, and when
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left running
    say(f"{machine()}; {jobs} jobs in {minutes:g} minutes on {database}, seed {seed}")
    try:
        with house_of_cards(database) as (site, postgres):
            first = site.submit(**TRAINER)
            site.wait(first)
            unbroken = exactness.outcome(site.house, first)
            tally = soak(site, postgres, minutes * 60, jobs, random.Random(seed))
            return judge(site, tally, unbroken)
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 130


@contextmanager
def house_of_cards(database: str) -> Iterator[tuple[Site, Postgres | None]]:
    with ExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="modelyard-soak-", ignore_cleanup_errors=True)
        )
        folder, postgres = Path(name), None
        url = f"sqlite:///{folder / 'modelyard.db'}"
        if database == "postgresql":
            postgres = Postgres(folder)
            stack.callback(postgres.server.cleanup)
            url = postgres.url(postgres.create())
        broker = stack.enter_context(running_broker(folder / "broker"))
        site = stack.enter_context(running_site(folder / "site", url, broker.url, max_losses=50, slots=1))
        site.broker = broker
        for _ in range(2):
            site.service()
        for _ in range(2):
            site.worker()
        yield site, postgres


def soak(site: Site, postgres: Postgres | None, seconds: float, jobs: int, rng: random.Random) -> Tally:
    tally, stop = Tally(), threading.Event()
    asking = [
        threading.Thread(target=post_jobs, args=(site, tally, stop, seconds, jobs), daemon=True),
        threading.Thread(target=predict, args=(site, tally, stop), daemon=True),
    ]
    for thread in asking:
        thread.start()
    with invariants.fences_only_rise(site.house):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(rng.uniform(*FAULT_EVERY_S))
            break_something(site, postgres, tally, rng)
            site.revive()
        say(f"{sum(tally.faults.values())} faults; what is left may end in peace")
        rest_until = time.monotonic() + REST_S
        while time.monotonic() < rest_until and not is_over(site, tally, jobs):
            site.revive()
            time.sleep(0.2)
        stop.set()
        for thread in asking:
            thread.join(60)
    return tally


def is_over(site: Site, tally: Tally, jobs: int) -> bool:
    return len(tally.accepted) == jobs and all(job.state in ENDED for job in homes.read_jobs(site.house))


# Who asks


def post_jobs(site: Site, tally: Tally, stop: threading.Event, seconds: float, jobs: int) -> None:
    """Evenly over the time, each until it is accepted."""
    pause_s = seconds / jobs
    for number in range(jobs):
        while not stop.is_set() and not post(site, tally, f"soak-{number}", number % 2):
            stop.wait(0.3)
        stop.wait(pause_s)


def post(site: Site, tally: Tally, key: str, service: int) -> bool:
    try:
        reply = site.client(service).post(
            "/v1/jobs", json=site.spec(**TRAINER), headers={"Idempotency-Key": key}
        )
    except httpx2.HTTPError as error:
        tally.posts[type(error).__name__] += 1
        return False
    tally.posts[str(reply.status_code)] += 1
    if reply.status_code == 202:
        tally.accepted[key] = reply.json()["id"]
    elif reply.status_code not in (409, 503):  # in flight elsewhere; the database is away
        say(f"a post was answered {reply.status_code}: {reply.text}")
        tally.posts["undue"] += 1
    return reply.status_code == 202


def predict(site: Site, tally: Tally, stop: threading.Event) -> None:
    """Of both services in turn; every answer is that of the first."""
    picture = homes.png((load_digits().images[0] * 255 / 16).astype("uint8"))
    headers = {"Content-Type": "image/png"}
    expected: Any = None
    number = 0
    while not stop.wait(0.05):
        number += 1
        try:
            url = "/v1/models/digits@1/predict?top_k=10"
            reply = site.client(number % 2).post(url, content=picture, headers=headers, timeout=10)
        except httpx2.HTTPError:
            tally.predictions["service gone"] += 1
            continue
        if reply.status_code in (429, 503):
            tally.predictions["refused"] += 1
            continue
        answer = (reply.status_code, reply.json().get("predictions"))
        expected = expected or answer
        tally.predictions["right" if answer == expected else "wrong"] += 1


# Who breaks


def break_something(site: Site, postgres: Postgres | None, tally: Tally, rng: random.Random) -> None:
    acts: dict[str, Callable[[], None]] = {
        "a service killed": lambda: rng.choice(site.services).kill(),
        "a worker killed": lambda: rng.choice(site.workers).kill(),
        "a training killed": lambda: kill_child(rng.choice(site.workers)),
        "a worker drained": lambda: drain(rng.choice(site.workers)),
        "a worker stopped beyond its lease": lambda: stop_for(rng.choice(site.workers), 4.5),
        "a service stopped for a moment": lambda: stop_for(rng.choice(site.services), 2.0),
        "the broker killed": lambda: site.broker.restart(rng.uniform(0, 3)),
    }
    if postgres is not None:
        acts["the database killed"] = lambda: postgres.restart(rng.uniform(0, 2))
    what = rng.choice(sorted(acts))
    say(what)
    tally.faults[what] += 1
    acts[what]()


def kill_child(worker: Process) -> None:
    """One that trains, where there is one."""
    for pid in worker.trainers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def drain(worker: Process) -> None:
    worker.end()


def stop_for(process: Process, seconds: float) -> None:
    with process.paused():
        time.sleep(seconds)


# What became of it


def judge(site: Site, tally: Tally, unbroken: exactness.Outcome) -> int:
    ids = list(tally.accepted.values())
    rows = {job.id: job for job in homes.read_jobs(site.house)}
    lost = [one for one in ids if one not in rows or rows[one].state not in ENDED]
    doubled = len(ids) - len(set(ids)) + len(rows) - 1 - len(ids)
    ended = Counter(job.state for job in rows.values())
    done = [one for one in ids if one in rows and rows[one].state == "succeeded"]
    wrong = [one for one in done if exactness.outcome(site.house, one) != unbroken]
    attempts = sum(job.attempt for job in rows.values())
    broken = ""
    try:
        invariants.require(site.house, [one for one in ids if one not in lost])
    except AssertionError as error:
        broken = str(error)
    say(f"faults: {in_words(tally.faults)}")
    say(f"posts: {in_words(tally.posts)}; predictions: {in_words(tally.predictions)}")
    say(f"{len(ids)} jobs accepted, {in_words(ended)}, in {attempts} attempts; at first 1 more")
    verdicts = [
        ("jobs lost", len(lost)),
        ("jobs doubled", doubled),
        ("jobs that did not succeed", len(ids) - len(done)),
        ("jobs with other weights, state or metrics", len(wrong)),
        ("wrong predictions", tally.predictions["wrong"]),
        ("posts answered otherwise than 202, 409 or 503", tally.posts["undue"]),
        ("broken invariants", len(broken.splitlines())),
    ]
    for line in broken.splitlines()[:20]:
        say(f"  {line}")
    for what, count in verdicts:
        say(f"{what}: {count}, bar 0: {'held' if count == 0 else 'missed'}")
    return 0 if all(count == 0 for _, count in verdicts) and ids and tally.predictions["right"] else 1


def in_words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(app())
