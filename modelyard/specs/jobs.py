"""A job: one training, as clients read it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct, field

#: What a fork changes: JSON Merge Patch, RFC 7396.
Patch = Annotated[
    dict[str, Any],
    Meta(
        description="a JSON merge patch (RFC 7396) on the spec as it was posted: null takes a field out, "
        "a list is replaced whole",
        examples=[{"optimizer": {"lr": 0.001}, "trainer": {"epochs": 20}}],
    ),
]
Start = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        description="best, last or a checkpoint's id: the new job begins with its weights",
        examples=["best"],
    ),
]


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Wanted(StrEnum):
    """What the owner last asked for."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class JobErrorCode(StrEnum):
    """Why a job failed: a closed list."""

    WORKER_LOST = "worker_lost"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE_LOSS = "non_finite_loss"
    STALLED = "stalled"
    DATASET_UNAVAILABLE = "dataset_unavailable"
    WEIGHTS_MISMATCH = "weights_mismatch"
    VERSION_REJECTED = "version_rejected"
    STORAGE_FULL = "storage_full"
    DEVICE_UNAVAILABLE = "device_unavailable"
    INTERNAL = "internal"


class JobDataset(Struct, frozen=True):
    name: str
    version: int
    sha256: str


class Progress(Struct, frozen=True):
    """`epoch` counts completed epochs; `step` optimizer steps; `fraction` is 0..1."""

    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    samples_per_second: float | None = None
    eta_seconds: float | None = None


class BestCheckpoint(Struct, frozen=True):
    checkpoint: str
    step: int
    epoch: int
    value: float | None


class Registered(Struct, frozen=True):
    model: str
    version: int


class ForkedFrom(Struct, frozen=True):
    """The job that a fork is of, and the checkpoint whose weights it began with."""

    job: str
    checkpoint: str | None = None


class JobError(Struct, frozen=True):
    code: JobErrorCode
    message: str
    hint: str = ""
    pointer: str | None = None


class Transition(Struct, frozen=True):
    state: JobState
    at: datetime
    reason: str


class Job(Struct):
    id: str
    name: str
    state: JobState
    terminal: bool
    wanted: Wanted
    dataset: JobDataset
    spec: dict[str, Any]
    attempt: int
    losses: int
    progress: Progress
    created_at: datetime
    metrics: dict[str, float | None] = field(default_factory=dict)
    best: BestCheckpoint | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    registered: Registered | None = None
    error: JobError | None = None
    transitions: list[Transition] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    forked_from: ForkedFrom | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ForkRequest(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/jobs/{id}/fork`. Without `from` the new job begins anew."""

    patch: Patch = field(default_factory=dict)
    start: Start | None = field(default=None, name="from")
