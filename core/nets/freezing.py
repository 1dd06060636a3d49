"""Which parameters don't train, and from when on: a function of the epoch alone, so that a resumed run
equals an unbroken one.

A plan calls `check_freezing`; `trained_names` are the optimizer's parameters; the loop calls `begin_epoch`.
Names are those of `net.named_parameters()`.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.faults import fault, join, show
from core.nets.decode import present
from core.nets.matching import BadPattern, check_matches, full_matches
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Unfreeze


class Freezing(Struct, frozen=True):
    """Patterns of what is frozen from the start, and of what thaws at the start of an epoch."""

    freeze: list[str] = []
    unfreeze: list[Unfreeze] = []


def freezing_of(spec: JobSpec) -> Freezing:
    return Freezing(spec.freeze, spec.unfreeze)


def frozen_names(freezing: Freezing, names: Iterable[str], epoch: int = 0) -> set[str]:
    """What doesn't train in `epoch`, which counts from 0. Raises BadPattern."""
    names = list(names)
    frozen = {name for _, pattern in present(freezing.freeze) for name in full_matches(pattern, names)}
    thawed = {
        name
        for _, unfreeze in present(freezing.unfreeze)
        if unfreeze.epoch <= epoch
        for name in full_matches(unfreeze.match, names)
    }
    return frozen - thawed


def trained_names(freezing: Freezing, names: Iterable[str], epochs: int) -> list[str]:
    """What trains in one epoch at least: the rest has no place in the optimizer."""
    names = list(names)
    never = frozen_names(freezing, names, epochs - 1)
    return [name for name in names if name not in never]


def begin_epoch(net: nn.Module, freezing: Freezing, epoch: int) -> None:
    """Train mode, with what is frozen in `epoch` frozen: it has no gradient, and a batch norm all of whose
    own parameters are frozen stays in eval mode, with its running statistics."""
    net.train()
    named = dict(net.named_parameters())
    frozen = frozen_names(freezing, named, epoch)
    for name in frozen_names(freezing, named):
        named[name].requires_grad_(name not in frozen)
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and own and not any(each.requires_grad for each in own):
            module.eval()


def check_freezing(
    freezing: Freezing, names: Collection[str], epochs: int, errors: list[ProblemError]
) -> None:
    """Every pattern matches something, what thaws was frozen and thaws in time, and something trains."""
    before = len(errors)
    frozen: set[str] = set()
    for place, pattern in present(freezing.freeze):
        frozen.update(check_matches(pattern, names, join("/freeze", place), errors))
    for place, unfreeze in present(freezing.unfreeze):
        pointer = join("/unfreeze", place)
        found = check_matches(unfreeze.match, names, join(pointer, "match"), errors)
        if found and not frozen.intersection(found):
            message = (
                f"{show(unfreeze.match)} matches nothing that is frozen. Freeze it first, or leave this out."
            )
            fault(errors, join(pointer, "match"), "matches_nothing", message)
        if unfreeze.epoch >= epochs:
            message = (
                f"The job's epochs are 0 to {epochs - 1}; nothing thaws at {unfreeze.epoch}. "
                "Lower it, or train for more epochs."
            )
            fault(errors, join(pointer, "epoch"), "invalid_value", message)
    if len(errors) == before and names and len(frozen) == len(names):
        message = f"All {len(names)} parameters are frozen in the first epoch; let some of them train."
        fault(errors, "/freeze", "nothing_to_train", message)


def is_frozen(freezing: Freezing, name: str) -> bool:
    """In the first epoch. A pattern that is none freezes nothing: `check_freezing` tells it."""
    try:
        return name in frozen_names(freezing, [name])
    except BadPattern:
        return False
