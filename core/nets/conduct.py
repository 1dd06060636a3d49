"""How a job's loop is to run, as a plan checks it: when it saves, when it stops early, on which devices."""

from collections.abc import Collection

import msgspec

from core.faults import fault, join, show, suggestion
from modelyard.specs import CheckpointPolicy, ProblemError, Trainer

_CHECKPOINT = "/trainer/checkpoint"


def check_conduct(trainer: Trainer, measured: Collection[str], errors: list[ProblemError]) -> Trainer:
    """With what it leaves out filled in. `measured` are the names that may be monitored; none where they
    can't be known."""
    _check_monitor(trainer.checkpoint.monitor, join(_CHECKPOINT, "monitor"), measured, errors)
    if trainer.early_stopping is not None:
        _check_monitor(trainer.early_stopping.monitor, "/trainer/early_stopping/monitor", measured, errors)
    if trainer.deterministic and trainer.precision not in ("auto", "fp32"):
        message = f"deterministic trains in fp32; {show(trainer.precision)} came. Leave one of the two out."
        fault(errors, "/trainer/precision", "invalid_value", message)
    if trainer.deterministic and trainer.compile is True:
        message = "A deterministic job is not compiled. Leave one of the two out."
        fault(errors, "/trainer/compile", "invalid_value", message)
    if trainer.batch_size < trainer.devices:
        message = (
            f"A batch of {trainer.batch_size} rows can't be shared by {trainer.devices} devices. "
            f"Make it {trainer.devices} or more."
        )
        fault(errors, "/trainer/batch_size", "invalid_value", message)
    return msgspec.structs.replace(trainer, checkpoint=_with_interval(trainer.checkpoint, errors))


def _with_interval(policy: CheckpointPolicy, errors: list[ProblemError]) -> CheckpointPolicy:
    names = ("every_epochs", "every_steps", "every_minutes")
    given = [name for name in names if getattr(policy, name) is not None]
    if len(given) > 1:
        message = f"One of {', '.join(names)} says when to save; {' and '.join(given)} came. Keep one."
        fault(errors, _CHECKPOINT, "invalid_value", message)
    return policy if given else msgspec.structs.replace(policy, every_epochs=1)


def _check_monitor(monitor: str, pointer: str, measured: Collection[str], errors: list[ProblemError]) -> None:
    if measured and monitor not in measured:
        hint = suggestion(monitor, measured)
        message = f"{show(monitor)} won't be measured.{hint} Valid are: {', '.join(measured)}."
        fault(errors, pointer, "unknown_metric", message)
