"""What happens to a job, in order, and the numbers it reports."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from modelyard.specs.jobs import JobState, Progress


class Event(Struct):
    """`seq` counts from 1 in each job without a gap.

    Types: `state`, `started`, `epoch`, `checkpoint`, `registered`; and what one should read: `warning`,
    `rewound`, `inexact_resume`, `out_of_memory`, `went_astray`, `storage_full`.
    """

    seq: int
    type: str
    at: datetime
    data: dict[str, Any] = field(default_factory=dict)


class Metric(Struct):
    """`value` is null where it was not a finite number; then `non_finite` names it."""

    name: str
    step: int
    epoch: int
    value: float | None
    at: datetime
    non_finite: str | None = None


class ProgressUpdate(Struct):
    """The data of the unnumbered `event: progress` in a job's event stream: how it stands now."""

    state: JobState
    progress: Progress
    metrics: dict[str, float | None] = field(default_factory=dict)
