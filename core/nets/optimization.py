"""The optimizer of a job: which parameters it trains in which group, with which keywords.

A plan calls `check_optimizer` on what came, then, once the net's parameters are known, `check_groups` and
`trial.try_step`; a worker calls `build_optimizer`. Names are those of `net.named_parameters()`, which for a
tensor used twice is its first in the `state_dict`.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from core.faults import fault, first_line, join, show
from core.nets import registry
from core.nets.components.schedulers import SET_RATES
from core.nets.joint import JointOptimizer
from core.nets.lower import lift
from core.nets.matching import check_matches, check_pattern, full_matches, listed
from core.nets.refusals import REFUSALS
from core.nets.schedules import tree
from modelyard.specs import ProblemError

Component = dict[str, Any]

MAX_GROUPS = 100
#: The sides of a parameter that an optimizer is tried with.
SMALL = 2
_POINTER = "/optimizer"
_GROUPS = "param_groups"
_MAX_MATCH = 200


def check_optimizer(raw: object, errors: list[ProblemError]) -> Component | None:
    """The component with its defaults and `param_groups`, each group as it came: what it leaves out is the
    optimizer's, or, with a `type` of its own, filled in with that type's defaults. None where something is
    wrong."""
    before = len(errors)
    if not isinstance(raw, dict) or _GROUPS not in raw:
        component = registry.check_component("optimizer", raw, _POINTER, errors)
        return None if component is None else _tried(component | {_GROUPS: []}, errors)
    bare = {name: value for name, value in raw.items() if name != _GROUPS}
    component = registry.check_component("optimizer", bare, _POINTER, errors)
    groups, here = raw[_GROUPS], join(_POINTER, _GROUPS)
    if not isinstance(groups, list) or len(groups) > MAX_GROUPS:
        message = f'{_GROUPS} is a list of at most {MAX_GROUPS} objects with "match"; {show(groups)} came.'
        fault(errors, here, "invalid_value", message)
        return None
    kind = bare.get("type")
    checked = [_check_group(group, kind, join(here, place), errors) for place, group in enumerate(groups)]
    if component is None or len(errors) > before:
        return None
    return _tried(component | {_GROUPS: checked}, errors)


def check_groups(optimizer: Component, names: Collection[str], errors: list[ProblemError]) -> None:
    """Each group matches something, and no parameter stands in two. `names` are all that ever train."""
    taken: dict[str, int] = {}
    for place, group in enumerate(optimizer[_GROUPS]):
        pointer = join(_POINTER, _GROUPS, place, "match")
        found = check_matches(group["match"], names, pointer, errors)
        double = [name for name in found if name in taken]
        if double:
            message = (
                f"A parameter stands in one group; {listed(double)} is in {_GROUPS}/{taken[double[0]]} "
                "already. Make one of the patterns narrower."
            )
            fault(errors, pointer, "matches_twice", message)
        taken |= {name: place for name in found if name not in taken}


def build_optimizer(
    optimizer: Component, net: nn.Module, trained: Collection[str] | None = None
) -> Optimizer:
    """Over the parameters that ever train (all, where `trained` is None): first those that no group matches.
    Raises ValueError where there is none, and for values torch refuses."""
    named = {
        name: parameter for name, parameter in net.named_parameters() if trained is None or name in trained
    }
    groups = [
        (component, [named[name] for name in names]) for component, names, _ in grouped(optimizer, named)
    ]
    return make_optimizer(optimizer, groups)


def grouped(optimizer: Component, names: Iterable[str]) -> Iterator[tuple[Component, list[str], str]]:
    """Of each group that isn't empty: its whole component, the names in it, the pointer of what names it."""
    left = list(names)
    matched: list[list[str]] = []
    for group in optimizer.get(_GROUPS, []):
        found = set(full_matches(group["match"], left))
        matched.append([name for name in left if name in found])
        left = [name for name in left if name not in found]
    for (component, pointer), inside in zip(_whole(optimizer), [left, *matched], strict=True):
        if inside:
            yield component, inside, pointer


def make_optimizer(optimizer: Component, groups: list[tuple[Component, list[nn.Parameter]]]) -> Optimizer:
    """One of torch's own with its groups; a joint one where a group has another type."""
    made: Optimizer
    if any(component["type"] != optimizer["type"] for component, _ in groups):
        return JointOptimizer(
            [registry.construct("optimizer", component, parameters) for component, parameters in groups]
        )
    if len(groups) == 1 and not optimizer.get(_GROUPS):
        made = registry.construct("optimizer", optimizer, groups[0][1])
    else:
        made = registry.construct(
            "optimizer",
            optimizer,
            [{"params": parameters} | _lifted(component) for component, parameters in groups],
        )
    return made


def advise_learning_rate(optimizer: Component, scheduler: Component | None = None) -> Iterator[str]:
    """Where a learning rate is far off for its optimizer, with the reason; nothing where the schedule sets
    rates of its own. Bounds are a decade beyond what is in use with each kind of step."""
    if scheduler is not None and any(each["type"] in SET_RATES for each, _ in tree(scheduler)):
        return
    own = {name: value for name, value in optimizer.items() if name != _GROUPS}
    groups = [
        (join(_POINTER, _GROUPS, place), group) for place, group in enumerate(optimizer.get(_GROUPS, []))
    ]
    for pointer, component in [(_POINTER, own), *groups]:
        kind, rate = component.get("type", optimizer["type"]), component.get("lr")
        low, high, why = _USUAL.get(kind, (0.0, float("inf"), ""))
        if rate is None or low < rate < high:
            continue
        side = (
            f"is high for {kind}, and the loss may grow"
            if rate >= high
            else f"is low for {kind}, and it will hardly learn"
        )
        yield f"{pointer}/lr: {rate:g} {side}: {why}."


def small_parameter(dims: int) -> nn.Parameter:
    """Two numbers long in each dimension, with a gradient of zeros."""
    parameter = nn.Parameter(torch.zeros([SMALL] * dims))
    parameter.grad = torch.zeros_like(parameter)
    return parameter


_ADAPTIVE = "a step moves each weight by about lr, whatever the gradient; 1e-4 to 1e-2 is usual"
_PLAIN = "a step is lr times the gradient; 1e-3 to 1 is usual"
#: (low, high, why): at or beyond these a learning rate is far off.
_USUAL: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"), (1e-7, 0.1, _ADAPTIVE)),
    **dict.fromkeys(("SGD", "ASGD"), (1e-6, 10.0, _PLAIN)),
    "Adagrad": (
        1e-6,
        10.0,
        "a step moves a weight by lr at first and by less with every step; 1e-2 is usual",
    ),
    "Adadelta": (1e-3, 100.0, "it finds the size of a step itself and lr only scales it; 1 is usual"),
    "Adafactor": (1e-6, 1.0, "a step is lr times the size of the weights; 1e-2 is usual"),
    "Muon": (1e-6, 1.0, "a step is lr times an orthogonal matrix; 1e-3 to 2e-2 is usual"),
}


def _check_group(group: object, kind: object, pointer: str, errors: list[ProblemError]) -> Component | None:
    """With the optimizer's own signature, or that of the group's `type`."""
    if not isinstance(group, dict):
        fault(errors, pointer, "wrong_type", f'A group is an object with a "match"; {show(group)} came.')
        return None
    match = group.get("match")
    if not isinstance(match, str) or not 1 <= len(match) <= _MAX_MATCH:
        message = (
            f"match is a pattern of 1 to {_MAX_MATCH} characters for parameter names; {show(match)} came."
        )
        fault(errors, join(pointer, "match"), "invalid_value" if "match" in group else "missing", message)
    else:
        check_pattern(match, join(pointer, "match"), errors)
    keywords = {name: value for name, value in group.items() if name != "match"}
    if _GROUPS in keywords:
        fault(
            errors,
            join(pointer, _GROUPS),
            "unknown_keyword",
            "A group has no groups of its own. Leave it out.",
        )
        return None
    if "type" not in keywords and (not isinstance(kind, str) or registry.get("optimizer", kind) is None):
        return None  # the optimizer's own type is wrong, and told
    checked = registry.check_component("optimizer", {"type": kind} | keywords, pointer, errors)
    if checked is None:
        return None
    if "type" not in keywords:
        checked = {name: checked[name] for name in keywords}
    return {"match": match} | checked


def _whole(optimizer: Component) -> Iterator[tuple[Component, str]]:
    """The optimizer itself and each of its groups, with all their keywords and their pointers."""
    own = {name: value for name, value in optimizer.items() if name != _GROUPS}
    yield own, _POINTER
    for place, group in enumerate(optimizer.get(_GROUPS, [])):
        keywords = {name: value for name, value in group.items() if name != "match"}
        yield keywords if "type" in group else own | keywords, join(_POINTER, _GROUPS, place)


def _tried(optimizer: Component, errors: list[ProblemError]) -> Component | None:
    """One real step on four numbers with each group's keywords: torch itself doesn't look into groups."""
    before = len(errors)
    for component, pointer in _whole(optimizer):
        try:
            registry.construct("optimizer", component, [small_parameter(2)]).step()
        except REFUSALS as error:
            message = f"torch refuses {component['type']}: {first_line(error)}."
            fault(errors, pointer, "invalid_value", message)
    return optimizer if len(errors) == before else None


def _lifted(component: Component) -> dict[str, Any]:
    """The keywords of a group as torch wants them."""
    entry = registry.get("optimizer", component["type"])
    if entry is None:
        raise KeyError(f"no optimizer {component['type']!r} in torch as installed")
    parameters = entry.parameters
    return {
        name: lift(parameters[name].annotation, value) for name, value in component.items() if name != "type"
    }
