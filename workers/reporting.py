"""What a running training says of itself between two steps, how often, and how long it still takes.

All that waits for the device (the loss, the gradients' norm) is read in a report and nowhere else.
"""

import math
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from workers import messages
from workers.cursor import Cursor, require_finite
from workers.trainer import Stepped
from workers.training import Training

#: At most so often somebody who looks on learns where the training is; once it has gone on for ten times as
#: long, only that often, and no more seldom than `REPORT_AT_LEAST_S`: each report is a transaction, and wakes
#: all who watch.
REPORT_EVERY_S, REPORT_AT_LEAST_S = 0.25, 1.0
REPORTS_PER_LENGTH = 10
#: Of a long training fewer numbers are kept: about a thousand of a name for each e-fold of its length.
KEPT_PER_LENGTH = 1000

Clock = Callable[[], float]


class Pace:
    """How long steps and evaluations take, measured in this attempt. The first step is not counted, where
    there is another: compiling and caches make it another one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mark = clock()
        self._steps, self._step_s = 0, 0.0
        self._evaluations, self._evaluation_s = 0, 0.0
        self._first_s: float | None = None

    def stepped(self) -> None:
        elapsed_s = self._lap()
        if self._first_s is None:
            self._first_s = elapsed_s
        else:
            self._steps, self._step_s = self._steps + 1, self._step_s + elapsed_s

    def evaluated(self) -> None:
        """And saved, where that was due: the loop stood still for it."""
        self._evaluations, self._evaluation_s = self._evaluations + 1, self._evaluation_s + self._lap()

    @property
    def trained_s(self) -> float:
        """In steps alone."""
        return (self._first_s or 0.0) + self._step_s

    def remaining_s(self, steps: int, evaluations: int) -> float:
        """Until the first evaluation is over nothing is known of what one takes, and it counts as nothing."""
        step_s = self._step_s / self._steps if self._steps else self._first_s or 0.0
        evaluation_s = self._evaluation_s / self._evaluations if self._evaluations else 0.0
        return steps * step_s + evaluations * evaluation_s

    def _lap(self) -> float:
        now = self._clock()
        elapsed_s, self._mark = now - self._mark, now
        return elapsed_s


class Reporting:
    """Told of every step and every epoch. With `every_steps` a report is due at each multiple of it; else
    four times a second at first and once a second later, with numbers to keep ever more seldom. `epoch_rows`
    of the epoch that it begins in were trained by an earlier attempt."""

    def __init__(
        self, every_steps: int | None, clock: Clock = time.monotonic, *, epoch_rows: int = 0
    ) -> None:
        self._every_steps = every_steps
        self._clock = clock
        self._began = clock()
        self._pace = Pace(clock)
        self._rows, self._epoch_rows = 0, epoch_rows
        self._trained_s = 0.0
        self._reported_at = self._kept_at = -math.inf

    def stepped(self, training: Training, cursor: Cursor, step: Stepped) -> messages.Stepped | None:
        """The report, where one is due. Raises NonFiniteLoss."""
        self._pace.stepped()
        self._rows += cursor.rows - self._epoch_rows
        self._epoch_rows = cursor.rows
        if self._every_steps is not None:
            return self._report(training, cursor, step) if cursor.step % self._every_steps == 0 else None
        now = self._clock()
        every_s = min(max(REPORT_EVERY_S, (now - self._began) / REPORTS_PER_LENGTH), REPORT_AT_LEAST_S)
        if now - self._reported_at < every_s:
            return None
        self._reported_at = now
        return self._report(training, cursor, step, is_kept=self._is_kept(now))

    def epoch_ended(self) -> None:
        """All that an epoch's end brings is done, and the next step follows."""
        self._pace.evaluated()
        self._epoch_rows = 0

    def _is_kept(self, now: float) -> bool:
        is_due = now - self._kept_at >= (now - self._began) / KEPT_PER_LENGTH
        self._kept_at = now if is_due else self._kept_at
        return is_due

    def _report(
        self, training: Training, cursor: Cursor, step: Stepped, is_kept: bool = True
    ) -> messages.Stepped:
        trained_s = self._pace.trained_s - self._trained_s
        rows = self._rows * training.crew.world
        per_second = rows / trained_s if trained_s > 0 else 0.0
        self._rows, self._trained_s = 0, self._pace.trained_s
        metrics = {"train_loss": require_finite(cursor)}
        if is_kept:
            metrics |= learning_rates(training.optimizer)
            metrics["grad_norm"] = grad_norm(training.net, step)
            metrics["samples_per_second"] = per_second
            metrics |= device_metrics(training.device)
        return messages.Stepped(
            epoch=cursor.epoch,
            step=cursor.step,
            metrics=metrics if is_kept else {},
            samples_per_second=per_second,
            eta_seconds=self._eta_s(training, cursor),
        )

    def _eta_s(self, training: Training, cursor: Cursor) -> float:
        steps = total_steps(training) - cursor.step
        evaluations = -(-total_steps(training) // training.train.steps) - cursor.epoch
        eta_s = self._pace.remaining_s(steps, evaluations)
        limit_s = training.limits.max_seconds
        return eta_s if limit_s is None else min(eta_s, max(0.0, limit_s - cursor.seconds))


def total_steps(training: Training) -> int:
    """An upper bound: the training may end before."""
    steps = training.train.steps * training.limits.epochs
    limit = training.limits.max_steps
    return steps if limit is None else min(steps, limit)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """`lr`, `lr/1`, …: those of the parameter groups, as the next step takes them."""
    groups = enumerate(optimizer.param_groups)
    return {f"lr/{place}" if place else "lr": float(group["lr"]) for place, group in groups}


def grad_norm(net: nn.Module, step: Stepped) -> float:
    """The 2-norm of the last step's gradients, before they were clipped. A host-device sync."""
    norm = step.grad_norm if step.grad_norm is not None else _total_norm(net)
    return norm.item()


def _total_norm(net: nn.Module) -> Tensor:
    return get_total_norm([p.grad for p in net.parameters() if p.grad is not None])


def device_metrics(device: torch.device) -> dict[str, float]:
    """Peak bytes: of a GPU what torch has allocated on it, else what of this process was in memory."""
    if device.type != "cuda":
        return {"memory_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}
    used = {"memory_bytes": float(torch.cuda.max_memory_allocated(device))}
    utilization = gpu_utilization(device)
    return used if utilization is None else used | {"gpu_utilization": utilization}


def gpu_utilization(device: torch.device) -> float | None:
    """Percent of the last moments in which a kernel ran; None where the driver's library does not tell."""
    try:
        return float(torch.cuda.utilization(device))
    except (ImportError, RuntimeError, OSError):  # no pynvml here, or a driver that refuses
        return None
