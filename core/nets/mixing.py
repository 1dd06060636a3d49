"""MixUp and CutMix: what is done to a batch and its labels after each image has been transformed.

They draw from torch's default generator, as dropout does: its state is in every checkpoint.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from core.data.targets import Targets
from core.data.tasks import DEFAULT_LOSSES
from core.faults import fault, first_line, join
from core.nets import registry
from core.nets.refusals import REFUSALS
from core.nets.transforms import Component, fact_of, held, is_mixing
from modelyard.specs import ProblemError

# B rows in the batch, C classes, H height, W width

#: Losses that take a probability for each class in place of a class.
TAKES_PROBABILITIES = frozenset({"CrossEntropyLoss"})


class Mixing:
    """What a pipeline ends with, for one set of classes."""

    def __init__(self, steps: Sequence[v2.Transform]) -> None:
        self._steps = steps

    @classmethod
    def from_spec(cls, resolved: Sequence[Component], num_classes: int) -> "Mixing | None":
        """None where nothing in the list mixes. Raises what torchvision raises for values it refuses."""
        steps = [
            registry.construct("transform", _for_classes(component, num_classes))
            for component in resolved
            if is_mixing(component)
        ]
        return cls(steps) if steps else None

    def __call__(self, inputs_BCHW: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
        """Float images and int64 classes; the targets come back as float32 [B, C], or as they are where a
        RandomApply leaves a batch alone."""
        inputs, targets = inputs_BCHW, targets_B
        for mix in self._steps:
            inputs, targets = mix(inputs, targets)
        return inputs, targets


def num_soft_classes(targets: Targets, loss: Component | None) -> int | None:
    """How many classes a mixed target has; None where the loss takes no probabilities. One that sees classes
    as ones among zeros does; torch's cross entropy does where it has no class to ignore."""
    if targets.task != "classification" or targets.classes is None:
        return None
    given = loss or {"type": DEFAULT_LOSSES[targets.task]}
    ignored = given.get("ignore_index", -1)
    is_entropy = str(given.get("type")) in TAKES_PROBABILITIES and isinstance(ignored, int) and ignored < 0
    return len(targets.classes) if is_entropy or targets.is_one_hot else None


def check_mixing(
    flat: Sequence[Component],
    pointers: dict[int, str],
    num_classes: int | None,
    errors: list[ProblemError],
) -> None:
    """Refuses what mixes where it can't, and fills in `num_classes`. `flat` has no Compose."""
    last = max((place for place, component in enumerate(flat) if not is_mixing(component)), default=-1)
    for place, component in enumerate(flat):
        for mixer in _mixers(component):
            pointer = pointers[id(mixer)]
            if place <= last:
                message = (
                    f"{mixer['type']} mixes the rows of a batch: it comes after all that act on one image, "
                    "and in containers of its own kind; put it at the end."
                )
                fault(errors, pointer, "invalid_value", message)
            elif num_classes is None:
                takes = ", ".join(sorted(TAKES_PROBABILITIES))
                message = (
                    f"{mixer['type']} turns classes into probabilities, which only a classification takes, "
                    f"with {takes} (without ignore_index) or one-hot targets. Leave it out."
                )
                fault(errors, pointer, "wrong_kind", message)
            elif mixer["num_classes"] not in (None, num_classes):
                message = (
                    f"{mixer['type']}.num_classes is the dataset's, {num_classes}; "
                    f"{mixer['num_classes']} came. Leave it out."
                )
                fault(errors, join(pointer, "num_classes"), "invalid_value", message)
            else:
                mixer["num_classes"] = num_classes
                _try(mixer, pointer, num_classes, errors)


def _try(mixer: Component, pointer: str, num_classes: int, errors: list[ProblemError]) -> None:
    try:
        with torch.random.fork_rng(devices=[]):
            mix = Mixing.from_spec([mixer], num_classes)
            assert mix is not None
            mix(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))
    except REFUSALS as error:
        message = f"{mixer['type']}: torchvision refuses it: {first_line(error)}."
        fault(errors, pointer, "invalid_value", message)


def _mixers(component: Component) -> Iterator[Component]:
    if fact_of(component).mixes:
        yield component
    for child in held(component):
        yield from _mixers(child)


def _for_classes(component: Component, num_classes: int) -> dict[str, Any]:
    children = held(component)
    if not children:
        return component | {"num_classes": num_classes}
    return component | {"transforms": [_for_classes(child, num_classes) for child in children]}
