"""What an example of a component is: a job of one step with that component in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from tests.attempts import Component, Data, arrays, c, seq

#: One batch of so many rows; as many stand in the split `val`.
ROWS = 8

LINEAR = c("Linear", out_features=1)
FEATURES = 6


@dataclass(frozen=True)
class Example:
    """`plain` is torch's own module of the same keywords, with what its weights are called in the job's net
    before `prefix`. `files` makes the uploads that the spec names, by id. With `is_still` a step may leave
    the weights as they are."""

    spec: Component
    data: Data
    plain: Callable[[], nn.Module] | None = None
    prefix: str = ""
    files: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    rows: int = ROWS
    is_deep: bool = False


def features(*, classes: int | None = None, width: int = 1, size: int = FEATURES) -> Data:
    return arrays([size], classes=classes, width=width, train=ROWS, validation=ROWS)


def regression(**fields: Component) -> Example:
    """A line through numbers."""
    return Example({"model": LINEAR} | fields, features())


def classification(num_classes: int = 3, **fields: Component) -> Example:
    model = seq(c("Linear", out_features=num_classes))
    return Example({"model": model} | fields, features(classes=num_classes))
