"""The learning rate schedule of a job: what it leaves out filled in, and what torch makes of it.

A plan calls `trial.try_schedule`, which begins with `resolve_schedule`; a worker calls `build_scheduler`.
"""

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from core.faults import fault, join, show, suggestion
from core.nets import expression, registry
from core.nets.clock import Clock, Interval
from core.nets.components.schedulers import HOLDERS, OF_CLOCK, PER_STEP
from core.nets.expression import ExpressionError
from modelyard.specs import ProblemError

Component = dict[str, Any]

MAX_SCHEDULERS = 50
#: An expression is tried at no more places than this, and all of a spec's together.
MAX_POINTS = 10_000
_POINTER = "/scheduler"
_PLATEAU = "ReduceLROnPlateau"


def resolve_schedule(
    scheduler: Component, clock: Clock, monitored: Collection[str], errors: list[ProblemError]
) -> Component | None:
    """A checked component with `interval` everywhere and OneCycleLR's `total_steps`; `monitored` are the
    metrics that each epoch ends with. None where something is wrong."""
    before = len(errors)
    parts = list(tree(scheduler))
    if len(parts) > MAX_SCHEDULERS:
        message = f"A schedule has at most {MAX_SCHEDULERS} parts; {len(parts)} came. Take some out."
        fault(errors, _POINTER, "too_large", message)
        return None
    by_step = any(part["type"] in PER_STEP for part, _ in parts)
    interval: Interval = scheduler["interval"] or ("step" if by_step else "epoch")
    for part, pointer in parts:
        _check_interval(part, interval, pointer, errors)
        _check_monitor(part, monitored, pointer, errors)
    _check_expressions(parts, clock, interval, errors)
    resolved = _resolve(scheduler, interval, clock.total(interval), _POINTER, errors)
    return resolved if len(errors) == before else None


def advise_schedule(scheduler: Component | None, clock: Clock) -> Iterator[str]:
    """Of a resolved schedule: the parts that the job ends before."""
    if scheduler is not None:
        yield from _never_begun(scheduler, clock.total(scheduler["interval"]), _POINTER)


def build_scheduler(scheduler: Component | None, optimizer: Optimizer, clock: Clock) -> LRScheduler | None:
    """Of a resolved component. Whether it is stepped once an epoch or once a step stands in its `interval`.
    Raises what torch raises."""
    if scheduler is None:
        return None

    def build(component: Component) -> LRScheduler:
        arguments = (optimizer, clock) if component["type"] in OF_CLOCK else (optimizer,)
        made: LRScheduler = registry.construct("scheduler", component, *arguments, build=build)
        return made

    return build(scheduler)


def tree(scheduler: Component, pointer: str = _POINTER) -> Iterator[tuple[Component, str]]:
    """The schedule and all it holds, each with its pointer."""
    yield scheduler, pointer
    for place, child in enumerate(held(scheduler)):
        yield from tree(child, join(pointer, "schedulers", place))


def held(scheduler: Component) -> list[Component]:
    return scheduler["schedulers"] if scheduler["type"] in HOLDERS else []


def _never_begun(scheduler: Component, total: int, pointer: str) -> Iterator[str]:
    """`total` is how often this schedule is stepped."""
    for place, milestone in enumerate(scheduler["milestones"] if scheduler["type"] == "SequentialLR" else []):
        if milestone >= total:
            yield (
                f"{join(pointer, 'milestones', place)}: what follows {milestone} never begins; this schedule "
                f"ends after {total} {scheduler['interval']}s. Lower it, or train longer."
            )
    if held(scheduler):
        for place, (child, share) in enumerate(_shares(scheduler, total)):
            yield from _never_begun(child, share, join(pointer, "schedulers", place))


def _check_interval(part: Component, interval: Interval, pointer: str, errors: list[ProblemError]) -> None:
    if pointer == _POINTER or part["interval"] in (None, interval):
        return
    came = show(part["interval"])
    message = f"What a schedule holds is stepped with it, by {interval}; {came} came. Leave it out."
    fault(errors, join(pointer, "interval"), "invalid_value", message)


def _check_monitor(
    part: Component, monitored: Collection[str], pointer: str, errors: list[ProblemError]
) -> None:
    if part["type"] != _PLATEAU:
        return
    if pointer != _POINTER:
        message = f"{_PLATEAU} needs a metric at each step, and what holds it has none. Let it stand alone."
        fault(errors, pointer, "invalid_value", message)
    elif part["monitor"] not in monitored:
        hint = suggestion(part["monitor"], monitored)
        message = f"{show(part['monitor'])} won't be measured.{hint} Valid are: {', '.join(monitored)}."
        fault(errors, join(pointer, "monitor"), "unknown_metric", message)


def _check_expressions(
    parts: list[tuple[Component, str]], clock: Clock, interval: Interval, errors: list[ProblemError]
) -> None:
    """Each is parsed, and has a finite value at every count of steps, or at as many as `MAX_POINTS` allow."""
    texts = [found for part, pointer in parts for found in _expressions(part, pointer)]
    total = clock.total(interval)
    stride = max(1, -(-total * len(texts) // MAX_POINTS))
    for text, pointer in texts:
        try:
            parsed = expression.parse(text)
            for count in (*range(0, total, stride), total):
                parsed.at(*clock.read(count, interval))
        except ExpressionError as error:
            fault(errors, pointer, "invalid_value", f"{_sentence(error)}. Mend the expression.")


def _expressions(part: Component, pointer: str) -> Iterator[tuple[str, str]]:
    """The texts of a schedule, each with its pointer."""
    given = part.get("lr_lambda")
    if isinstance(given, str):
        yield given, join(pointer, "lr_lambda")
    elif given is not None:
        for place, text in enumerate(given):
            yield text, join(pointer, "lr_lambda", place)


def _sentence(error: ExpressionError) -> str:
    text = str(error)
    return text[0].upper() + text[1:]


def _resolve(
    scheduler: Component, interval: Interval, total: int, pointer: str, errors: list[ProblemError]
) -> Component:
    """`total` is how often this schedule is stepped."""
    filled = scheduler | {"interval": interval}
    if scheduler["type"] in HOLDERS:
        filled["schedulers"] = [
            _resolve(child, interval, share, join(pointer, "schedulers", place), errors)
            for place, (child, share) in enumerate(_shares(scheduler, total))
        ]
    if scheduler["type"] == "OneCycleLR":
        filled["total_steps"] = _one_cycle_steps(scheduler, interval, total, pointer, errors)
    return filled


def _shares(scheduler: Component, total: int) -> Iterator[tuple[Component, int]]:
    """Chained schedules run side by side, sequential ones from milestone to milestone."""
    children = scheduler["schedulers"]
    milestones = scheduler.get("milestones", [])
    if len(milestones) + 1 != len(children):
        yield from ((child, total) for child in children)  # chained, or what torch refuses
    else:
        for child, (start, end) in zip(children, pairwise([0, *milestones, total]), strict=True):
            yield child, max(1, end - start)


def _one_cycle_steps(
    scheduler: Component, interval: Interval, total: int, pointer: str, errors: list[ProblemError]
) -> int | None:
    given: int | None = scheduler["total_steps"]
    where = "total_steps"
    if given is None and scheduler["epochs"] is not None and scheduler["steps_per_epoch"] is not None:
        given, where = scheduler["epochs"] * scheduler["steps_per_epoch"], "epochs"
    if given is None:
        return total
    if given < total:
        message = (
            f"OneCycleLR ends after {given} {interval}s, and this job steps it {total} times. "
            f"Set total_steps to {total}, or leave total_steps, epochs and steps_per_epoch out."
        )
        fault(errors, join(pointer, where), "invalid_value", message)
    return None if where == "epochs" else given
