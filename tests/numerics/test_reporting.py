"""What a running training reports: gradients' norms and rates as torch has them, and times as a clock has."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.attempts import Component, arrays, attempt_of, c, seq
from tests.fakes import FakeLink
from workers import messages, trainer
from workers.cursor import Cursor
from workers.reporting import KEPT_PER_LENGTH, REPORT_EVERY_S, Reporting, learning_rates, total_steps
from workers.trainer import EpochEnded, Stepped
from workers.training import Training

NET = seq(c("Flatten"), c("Linear", out_features=8), c("ReLU"), c("Linear", out_features=3))
ROWS, BATCH = 44, 8
#: The last batch of an epoch has four rows.
STEPS = 6


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def begun(folder: Path, optimizer: Component | None = None, **trainer_spec: Any) -> tuple[Training, Cursor]:
    manifest, rows = arrays([4], classes=3, train=ROWS)()
    spec = {"model": NET, "optimizer": optimizer or c("SGD", lr=0.1), "trainer": trainer_spec}
    attempt = attempt_of(spec, manifest, rows, folder)
    attempt.link = FakeLink()
    _, training, cursor = attempt.begin()
    return training, cursor


def norm_by_hand(training: Training, weights: dict[str, Tensor], step: Stepped) -> float:
    inputs, targets = step.batch.inputs[0].flatten(1), step.batch.targets
    w1, b1, w2, b2 = (weights[name].clone().requires_grad_() for name in training.net.state_dict())
    loss = F.cross_entropy(F.relu(inputs @ w1.T + b1) @ w2.T + b2, targets)
    gradients = torch.autograd.grad(loss, [w1, b1, w2, b2])
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients))


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_norm_is_that_of_the_whole_gradient_before_it_is_clipped(
    tmp_path: Path, clip: float | None
) -> None:
    training, cursor = begun(tmp_path, clip_grad_norm=clip)
    reporting = Reporting(every_steps=1)
    before = {name: value.clone() for name, value in training.net.state_dict().items()}
    seen = 0
    for step in trainer.fit(training, cursor):
        if isinstance(step, Stepped):
            report = reporting.stepped(training, cursor, step)
            assert report is not None
            assert report.metrics["grad_norm"] == pytest.approx(
                norm_by_hand(training, before, step), rel=1e-5
            )
            before = {name: value.clone() for name, value in training.net.state_dict().items()}
            seen += 1
    assert seen == STEPS


def test_rates_have_the_names_of_their_groups(tmp_path: Path) -> None:
    groups = [{"match": r"3\..*", "lr": 0.5}]
    training, _ = begun(tmp_path, c("SGD", lr=0.1, param_groups=groups))
    assert sorted(learning_rates(training.optimizer)) == ["lr", "lr/1"]
    assert sorted(learning_rates(training.optimizer).values()) == [0.1, 0.5]


def reports_of(
    training: Training,
    cursor: Cursor,
    reporting: Reporting,
    clock: FakeClock,
    step_s: float,
    evaluation_s: float,
) -> list[tuple[int, messages.Stepped]]:
    """With steps and evaluations that take so long."""
    found = []
    for event in trainer.fit(training, cursor):
        if isinstance(event, EpochEnded):
            clock.now += evaluation_s
            reporting.epoch_ended()
            continue
        clock.now += step_s
        report = reporting.stepped(training, cursor, event)
        if report is not None:
            found.append((cursor.step, report))
    return found


def test_each_so_many_steps_is_exact_whatever_the_time(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=3)
    clock = FakeClock()
    found = reports_of(training, cursor, Reporting(4, clock), clock, step_s=0.0, evaluation_s=9.0)
    assert [step for step, _ in found] == [4, 8, 12, 16]
    names = {"train_loss", "lr", "grad_norm", "samples_per_second", "memory_bytes"}
    assert all(set(report.metrics) == names for _, report in found)


def test_without_a_number_of_steps_reports_are_a_quarter_of_a_second_apart(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=4)
    clock = FakeClock()
    found = reports_of(training, cursor, Reporting(None, clock), clock, step_s=0.1, evaluation_s=0.0)
    assert [step for step, _ in found] == [1, 4, 7, 10, 13, 16, 19, 22]
    assert REPORT_EVERY_S == 0.25


def test_a_training_that_goes_on_reports_once_a_second(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=4)
    clock = FakeClock()
    reporting = Reporting(None, clock)
    clock.now += 10
    found = reports_of(training, cursor, reporting, clock, step_s=0.3, evaluation_s=0.0)
    assert [step for step, _ in found] == [1, 5, 9, 13, 17, 21]


def test_of_a_long_training_ever_fewer_numbers_are_kept(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=100)
    clock = FakeClock()
    reporting = Reporting(None, clock)
    clock.now += 20 * KEPT_PER_LENGTH  # so long it has trained already
    found = reports_of(training, cursor, reporting, clock, step_s=1.0, evaluation_s=0.0)
    assert len(found) == 100 * STEPS
    kept = [step for step, report in found if report.metrics]
    # Every twentieth part of a thousandth: 21 s apart, since at 20,001 s twenty are not enough.
    assert kept == list(range(1, 100 * STEPS + 1, 21))


def test_samples_a_second_are_rows_that_trained_over_the_time_of_their_steps(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=2)
    clock = FakeClock()
    found = dict(reports_of(training, cursor, Reporting(4, clock), clock, step_s=0.5, evaluation_s=60.0))
    assert found[4].samples_per_second == 4 * BATCH / 2.0
    # Steps 5 to 8: the ragged batch is in them, and an evaluation whose minute is not.
    assert found[8].samples_per_second == pytest.approx((3 * BATCH + 4) / 2.0)
    assert found[8].metrics["samples_per_second"] == found[8].samples_per_second


def test_a_resumed_attempt_counts_only_the_rows_that_it_trained_itself(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path)
    for _ in trainer.fit(training, cursor):
        if cursor.step == 3:
            break
    clock = FakeClock()
    reporting = Reporting(1, clock, epoch_rows=cursor.rows)
    found = dict(reports_of(training, cursor, reporting, clock, step_s=0.5, evaluation_s=0.0))
    assert [found[step].samples_per_second for step in (4, 5, 6)] == [BATCH / 0.5, BATCH / 0.5, 4 / 0.5]


def test_what_is_left_counts_evaluations_by_what_the_first_ones_took(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=3)
    clock = FakeClock()
    found = dict(reports_of(training, cursor, Reporting(1, clock), clock, step_s=2.0, evaluation_s=5.0))
    assert total_steps(training) == 18
    assert found[2].eta_seconds == 16 * 2.0  # no evaluation is known yet
    assert found[7].eta_seconds == 11 * 2.0 + 2 * 5.0
    assert found[18].eta_seconds == 5.0


def test_what_is_left_is_bounded_by_the_limits(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path, epochs=100, max_steps=9)
    clock = FakeClock()
    found = dict(reports_of(training, cursor, Reporting(1, clock), clock, step_s=2.0, evaluation_s=5.0))
    assert found[8].eta_seconds == 1 * 2.0 + 5.0
    training, cursor = begun(tmp_path, epochs=100, max_seconds=1000)
    found = {}
    reporting = Reporting(1, clock)
    for event in trainer.fit(training, cursor):
        assert isinstance(event, Stepped)
        clock.now += 50.0
        report = reporting.stepped(training, cursor, event)
        assert report is not None
        assert report.eta_seconds <= 1000
        break


def test_memory_is_what_the_process_had_at_most(tmp_path: Path) -> None:
    training, cursor = begun(tmp_path)
    step = next(iter(trainer.fit(training, cursor)))
    assert isinstance(step, Stepped)
    report = Reporting(1).stepped(training, cursor, step)
    assert report is not None
    peak = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    assert report.metrics["memory_bytes"] == pytest.approx(int(peak.split()[1]) * 1024, rel=0.05)
