"""A checkpoint: the weights and the training state of a job at a step."""

from datetime import datetime

from msgspec import Struct, field


class Checkpoint(Struct):
    """`size` and `sha256` are those of the weights file. `state`: `ready`, or `collected` once its
    bytes were given back."""

    id: str
    job: str
    step: int
    epoch: int
    size: int
    sha256: str
    state: str
    is_best: bool
    created_at: datetime
    metrics: dict[str, float | None] = field(default_factory=dict)
