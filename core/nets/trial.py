"""One real step of optimizer and schedule on a handful of numbers, so that torch says what it refuses."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from core.faults import fault, first_line
from core.nets.clock import Clock
from core.nets.matching import listed
from core.nets.memory import LiveTensors, OptimizerBytes
from core.nets.optimization import SMALL, Component, grouped, make_optimizer, small_parameter
from core.nets.refusals import REFUSALS
from core.nets.schedules import build_scheduler, resolve_schedule, tree
from modelyard.specs import ProblemError

#: A schedule is tried for this many steps, and sets no more learning rates than this altogether.
MAX_TRIED_STEPS = 1000
MAX_TRIED_RATES = 20_000


def try_step(
    optimizer: Component, shapes: Mapping[str, Sequence[int]], errors: list[ProblemError]
) -> OptimizerBytes:
    """What the optimizer keeps and what its step holds for parameters of these shapes, by name; those that
    torch refuses are noted. Nothing of their size is allocated: each number of dimensions is tried once."""
    state_bytes = scratch_bytes = 0
    for component, names, pointer in grouped(optimizer, shapes):
        if not _suits(component, {name: shapes[name] for name in names}, pointer, errors):
            continue
        for dims in {len(shapes[name]) for name in names}:
            parameter = small_parameter(dims)
            alike = [shapes[name] for name in names if len(shapes[name]) == dims]
            # Computed for one parameter after the other, but with `foreach` for all at once.
            at_once = alike if component.get("foreach") else [max(alike, key=math.prod)]
            known = [parameter, *([] if parameter.grad is None else [parameter.grad])]
            try:
                made = make_optimizer(component, [(component, [parameter])])
                with LiveTensors(known, partial(_grown_to, shapes=at_once)) as live:
                    made.step()
            except REFUSALS as error:
                message = f"torch refuses {component['type']}: {first_line(error)}."
                fault(errors, pointer, "invalid_value", message)
                break
            scratch_bytes = max(scratch_bytes, live.peak - live.now)
            state = [value for value in made.state[parameter].values() if isinstance(value, Tensor)]
            for shape in alike:
                state_bytes += sum(_grown_bytes(value, shape) for value in state)
    return OptimizerBytes(state_bytes, scratch_bytes)


def try_schedule(
    scheduler: Component,
    optimizer: Component,
    names: Collection[str],
    clock: Clock,
    monitored: Collection[str],
    errors: list[ProblemError],
) -> Component | None:
    """`schedules.resolve_schedule`, and then its first steps over as many groups as the optimizer has with
    the parameters `names`. None where it is wrong."""
    resolved = resolve_schedule(scheduler, clock, monitored, errors)
    if resolved is None:
        return None
    groups = [(component, [small_parameter(2)]) for component, _, _ in grouped(optimizer, names)]
    before = len(errors)
    try:
        _step(resolved, make_optimizer(optimizer, groups), clock, errors)
    except REFUSALS as error:
        message = f"torch refuses {resolved['type']}: {first_line(error)}."
        fault(errors, "/scheduler", "invalid_value", message)
    return resolved if len(errors) == before else None


def _suits(
    component: Component, shapes: Mapping[str, Sequence[int]], pointer: str, errors: list[ProblemError]
) -> bool:
    """Muon orthogonalises its steps, and only a matrix can be."""
    others = [name for name, shape in shapes.items() if len(shape) != 2]
    if component["type"] != "Muon" or not others:
        return True
    message = (
        f"Muon trains matrices alone; {listed(others)} aren't any. Give them an optimizer of their own: "
        'param_groups: [{"match": …, "type": "AdamW"}].'
    )
    fault(errors, pointer, "shape", message)
    return False


def _grown_to(state: Tensor, shapes: Iterable[Sequence[int]]) -> int:
    return sum(_grown_bytes(state, shape) for shape in shapes)


def _grown_bytes(state: Tensor, shape: Sequence[int]) -> int:
    """The bytes of a small parameter's state for one of `shape`: a dimension of the state is as long as the
    parameter's, or 1 where the optimizer sums over it (Adafactor). A count of steps stays one number."""
    if state.dim() != len(shape):
        return state.numel() * state.element_size()
    sides = [long if side == SMALL else 1 for side, long in zip(state.shape, shape, strict=True)]
    return math.prod(sides) * state.element_size()


def _step(scheduler: Component, optimizer: Optimizer, clock: Clock, errors: list[ProblemError]) -> None:
    made = build_scheduler(scheduler, optimizer, clock)
    # torch warns about a schedule that is stepped before its optimizer.
    optimizer.step()
    if made is None:
        return
    parts = len(list(tree(scheduler))) * len(optimizer.param_groups)
    for count in range(min(clock.total(scheduler["interval"]), MAX_TRIED_STEPS, MAX_TRIED_RATES // parts)):
        if isinstance(made, ReduceLROnPlateau):
            made.step(0.0)
        else:
            made.step()
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        if not all(map(math.isfinite, rates)):
            message = (
                f"The learning rate is {rates} after {count + 1} {scheduler['interval']}s; make it smaller."
            )
            fault(errors, "/scheduler", "invalid_value", message)
            return
