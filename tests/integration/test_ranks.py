"""Two processes that train one net: the same weights as one, the same run after a death, and nobody left."""

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from core.nets import artifacts
from core.nets.plan import Source, check
from tests import house as homes
from tests import ranks
from tests.attempts import WHOLE, arrays, c, seq
from tests.numerics.test_trainer import assert_equal_to_the_bit
from workers import children
from workers.children import Child
from workers.house import House
from workers.messages import AnyReport, EpochEnded, Noted, Saved, Started, Stop, Stopped, TooLarge, Verified
from workers.ranks import Ranks
from workers.tasks import train_one

NUMBERS = arrays([7], classes=3, train=27, validation=4)
#: Neither dropout nor batch norm, which see the rows of their own rank.
NET = seq(c("Linear", out_features=16), c("ReLU"), c("Linear", out_features=3))
SGD = c("SGD", lr=0.1, momentum=0.9)
#: Sums of float32 in another order, over a dozen steps.
TOLERANCE = 2e-6


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> None:
    children.preload()


def spec_of(model: dict[str, Any] = NET, optimizer: dict[str, Any] = SGD, **words: Any) -> dict[str, Any]:
    """27 rows in batches of 8 leave a last one of 3: of 2 and 1 rows on two devices."""
    loss = words.pop("loss", c("CrossEntropyLoss"))
    scheduler = words.pop("scheduler", None)
    trainer = {"epochs": 3, "batch_size": 8, "shuffle": True} | words
    return {"model": model, "optimizer": optimizer, "loss": loss, "scheduler": scheduler, "trainer": trainer}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=tolerance, msg=name)


SPECS = {
    "SGD with momentum": spec_of(),
    "AdamW": spec_of(optimizer=c("AdamW", lr=0.01)),
    "accumulated": spec_of(accumulate=2),
    "clipped": spec_of(clip_grad_norm=0.3),
    "averaged": spec_of(ema={"decay": 0.8}),
    "a schedule of steps": spec_of(scheduler=c("OneCycleLR", max_lr=0.2, interval="step")),
    "a summed loss": spec_of(loss=c("CrossEntropyLoss", reduction="sum"), optimizer=c("SGD", lr=0.01)),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_two_devices_give_the_weights_and_metrics_of_one(spec: dict[str, Any], tmp_path: Path) -> None:
    one = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "one", devices=1))
    two = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "two", devices=2))
    assert isinstance(two[-1], Verified), two[-1]
    assert_close(ranks.weights(two), ranks.weights(one))
    metrics = [[report.metrics for report in run if isinstance(report, EpochEnded)] for run in (one, two)]
    for ours, theirs in zip(*metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert [report.step for report in two if isinstance(report, Saved)] == [
        report.step for report in one if isinstance(report, Saved)
    ]


def test_a_parameter_that_thaws_trains_from_then_on_on_both(tmp_path: Path) -> None:
    """Gathered gradients are another set from epoch 1 on, and again from epoch 2."""
    spec = spec_of() | {
        "freeze": [r"0\..*"],
        "unfreeze": [{"match": r"0\.bias", "epoch": 1}, {"match": r"0\.weight", "epoch": 2}],
    }
    one = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "one", devices=1))
    two = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "two", devices=2))
    assert_close(ranks.weights(two), ranks.weights(one))


def test_weighted_classes_weigh_in_all_rows_of_a_step(tmp_path: Path) -> None:
    """torch divides by the weights of the rows that it sees; a rank's share makes up for it."""
    spec = spec_of(loss=c("CrossEntropyLoss", class_weights=[1.0, 1.0, 8.0]))
    one = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "one", devices=1))
    two = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "two", devices=2))
    assert_close(ranks.weights(two), ranks.weights(one))


#: Four steps an epoch: eight batches, the last of three rows.
BY_STEPS = WHOLE | {"trainer": WHOLE["trainer"] | {"batch_size": 6, "checkpoint": {"every_steps": 1}}}
IMAGES = arrays([1, 6, 6], classes=3, dtype="uint8", train=45, validation=4)
STEPS = 12


def ends_of(reports: list[AnyReport]) -> dict[int, dict[str, float]]:
    return {report.step: report.metrics for report in reports if isinstance(report, EpochEnded)}


def assert_same_end(run: list[AnyReport], other: list[AnyReport]) -> None:
    """The files but for the seconds that it took."""
    saved, expected = ranks.last(run, Saved), ranks.last(other, Saved)
    assert saved.weights.sha256 == expected.weights.sha256
    states = [artifacts.load(Path(each.state.path)) for each in (saved, expected)]
    for state in states:
        state["cursor"]["seconds"] = 0.0
    assert_equal_to_the_bit(*states)


#: Six epochs, of which twenty steps are killed after.
LONGER = BY_STEPS | {"trainer": BY_STEPS["trainer"] | {"epochs": 6}}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("spec", "steps", "points", "devices"),
    [
        pytest.param(BY_STEPS, STEPS, 4, 2, id="two"),
        pytest.param(BY_STEPS, STEPS, 4, 3, id="three", marks=pytest.mark.deep),
        pytest.param(LONGER, 2 * STEPS, 20, 2, id="two at twenty points", marks=pytest.mark.deep),
    ],
)
def test_a_run_killed_at_any_step_and_resumed_equals_an_unbroken_one_to_the_bit(
    spec: dict[str, Any], steps: int, points: int, devices: int, tmp_path: Path
) -> None:
    unbroken = ranks.run(ranks.order_of(spec, IMAGES, tmp_path / "whole", devices))
    order = ranks.order_of(spec, IMAGES, tmp_path / "broken", devices)
    for broken_at in random.Random(0).sample(range(1, steps), points):

        def kill_there(report: AnyReport, child: Child | Ranks, at: int = broken_at) -> None:
            if isinstance(report, Saved) and report.step == at:
                ranks.kill(child, rank=at % devices)

        broken = ranks.run(replace(order, scratch=str(tmp_path / f"a{broken_at}")), kill_there)
        assert not isinstance(broken[-1], Verified)
        assert ranks.last(broken, Saved).step < steps
        resumed = ranks.run(ranks.resumed(order, broken, tmp_path / f"b{broken_at}"))
        assert isinstance(resumed[-1], Verified), resumed[-1]
        assert_same_end(resumed, unbroken)
        assert ends_of(broken) | ends_of(resumed) == ends_of(unbroken)


def test_a_stop_in_the_middle_of_an_epoch_saves_it_and_the_next_attempt_goes_on_from_there(
    tmp_path: Path,
) -> None:
    spec = BY_STEPS | {"trainer": BY_STEPS["trainer"] | {"checkpoint": {"every_epochs": 1}}}
    unbroken = ranks.run(ranks.order_of(spec, IMAGES, tmp_path / "whole", devices=2))
    order = ranks.order_of(spec, IMAGES, tmp_path / "stopped", devices=2)

    def stop(report: AnyReport, child: Child | Ranks) -> None:
        if isinstance(report, Started):
            child.tell(Stop(save=True))

    stopped = ranks.run(order, stop)
    assert isinstance(stopped[-1], Stopped)
    step = ranks.last(stopped, Saved).step
    assert 1 <= step < STEPS
    resumed = ranks.run(ranks.resumed(order, stopped, tmp_path / "resumed"))
    assert_same_end(resumed, unbroken)


def test_a_stop_is_heard_wherever_it_comes(tmp_path: Path) -> None:
    """Most of an epoch is its evaluation, of which the first rank alone knows."""
    data = arrays([7], classes=3, train=64, validation=60_000)
    order = ranks.order_of(spec_of(epochs=1000), data, tmp_path, devices=2)
    for wait_s in (0.0, 0.03, 0.06, 0.1):

        def stop(report: AnyReport, child: Child | Ranks, wait_s: float = wait_s) -> None:
            if isinstance(report, Started):
                time.sleep(wait_s)
                child.tell(Stop(save=True))

        began = time.monotonic()
        reports = ranks.run(order, stop)
        assert isinstance(reports[-1], Stopped)
        assert isinstance(reports[-2], Saved)
        assert time.monotonic() - began < 10


def test_processes_without_a_supervisor_end(tmp_path: Path) -> None:
    child = ranks.start(ranks.order_of(spec_of(epochs=10_000), NUMBERS, tmp_path, devices=2))
    processes = [each.process for each in child._children]
    while not any(isinstance(report, Started) for report in child.reports()):
        child.wait(10)
    for each in child._children:
        each._connection.close()  # as its death does
    for process in processes:
        process.join(10)
        assert process.exitcode == -signal.SIGKILL


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(f"sqlite:///{tmp_path / 'db.sqlite'}", tmp_path / "home", slots=2)
    yield opened
    opened.database.close()


def test_a_job_on_two_devices_whose_rank_dies_is_lost_and_ends_as_an_unbroken_one(
    house: House, tmp_path: Path
) -> None:
    manifest = homes.add_digits(house, tmp_path)
    unbroken = homes.add_job(house, manifest, epochs=20, devices=2)
    train_one(house)
    assert homes.read_job(house, unbroken).state == "succeeded"
    broken = homes.add_job(house, manifest, epochs=20, devices=2)
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    while not homes.read_checkpoints(house, broken):
        time.sleep(0.01)
    last = max(process.pid or 0 for process in multiprocessing.active_children())
    os.kill(last, signal.SIGKILL)
    thread.join()
    job = homes.read_job(house, broken)
    assert (job.state, job.losses, job.error) == ("queued", 1, None)
    assert "signal 9" in job.transitions[-1]["reason"]
    assert not multiprocessing.active_children()
    train_one(house)
    job = homes.read_job(house, broken)
    assert (job.state, job.attempt, job.resolved["devices"]) == ("succeeded", 2, 2)
    assert job.metrics["test_accuracy"] > 0.8
    newest = [homes.read_checkpoints(house, each)[0].weights_sha256 for each in (broken, unbroken)]
    assert newest[0] == newest[1]
    assert not list(house.settings.scratch().glob("jobs/*/*"))


def test_a_run_on_two_devices_goes_on_on_one_and_says_that_it_is_another(tmp_path: Path) -> None:
    spec = spec_of()
    two = ranks.run(ranks.order_of(spec, NUMBERS, tmp_path / "two", devices=2))
    half = ranks.run(ranks.order_of(spec_of(max_steps=6), NUMBERS, tmp_path / "half", devices=2))
    order = ranks.resumed(ranks.order_of(spec, NUMBERS, tmp_path / "one", devices=1), half, tmp_path / "on")
    state = artifacts.load(Path(order.resume.state))
    state["cursor"]["ended"] = None  # as a checkpoint in the middle of a longer job has it
    artifacts.save(state, Path(order.resume.state))
    resumed = ranks.run(order)
    noted = [report for report in resumed if isinstance(report, Noted)]
    assert [(each.type, each.data) for each in noted] == [("inexact_resume", {"devices": [2, 1]})]
    assert_close(ranks.weights(resumed), ranks.weights(two))
    last_epoch = [max(ends_of(run).items())[1] for run in (resumed, two)]
    assert last_epoch[0] == pytest.approx(last_epoch[1], rel=1e-5)


#: A row of 8 x 8 takes 1 MiB in the forward pass and another in the backward one.
LARGE = seq(
    c("Conv2d", out_channels=1, kernel_size=1),
    c("Upsample", scale_factor=64),
    c("AdaptiveAvgPool2d", output_size=2),
    c("Flatten"),
    c("Linear", out_features=10),
)


def shut_in(pid: int) -> None:
    """Leaves a process that trains on 100 rows of `LARGE` room for 75 and both passes."""
    used = min(size_of(pid) for _ in range(60))
    resource.prlimit(pid, resource.RLIMIT_AS, (used + 150 * 2**20,) * 2)


def test_a_rank_that_runs_out_of_memory_in_a_backward_pass_has_all_take_smaller_pieces(
    tmp_path: Path,
) -> None:
    data = arrays([1, 8, 8], classes=10, train=200, validation=4)
    spec = spec_of(LARGE, epochs=100, batch_size=200, checkpoint={"every_epochs": 100})
    order = ranks.order_of(spec, data, tmp_path, devices=2)

    def heard(report: AnyReport, child: Child | Ranks) -> None:
        if isinstance(report, Started) and isinstance(child, Ranks):
            shut_in(child._children[1].process.pid or 0)

    too_large = ranks.run(order, heard)[-1]
    assert isinstance(too_large, TooLarge), too_large
    assert (too_large.pieces, too_large.data["rows_at_once"]) == (2, 50)
    short = replace(order, spec=order.spec | {"trainer": order.spec["trainer"] | {"max_steps": 3}})
    in_pieces = ranks.run(replace(short, pieces=2))
    assert_close(ranks.weights(in_pieces), ranks.weights(ranks.run(short)))


def test_a_job_one_of_whose_ranks_runs_out_of_memory_goes_on_in_the_same_attempt(
    house: House, tmp_path: Path
) -> None:
    manifest = homes.add_digits(house, tmp_path)
    trainer = {"batch_size": 200, "devices": 2, "max_steps": 14, "device": "cpu"}
    raw = {"name": "digits", "dataset": "digits@1", "model": LARGE, "trainer": trainer}
    job_id = homes.queue_job(house, check(raw, Source("digits@1", manifest)).spec)
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    while homes.read_job(house, job_id).started_at is None:
        time.sleep(0.01)
    shut_in(max(process.pid or 0 for process in multiprocessing.active_children()))
    thread.join()
    job = homes.read_job(house, job_id)
    assert (job.state, job.attempt, job.losses) == ("succeeded", 1, 0)
    told = [event.data for event in homes.read_events(house, job_id) if event.type == "out_of_memory"]
    assert [data["rows_at_once"] for data in told] == [50]


def size_of(pid: int) -> int:
    """Bytes of a process's address space, some milliseconds later."""
    time.sleep(0.01)
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
