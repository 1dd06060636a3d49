"""Asking a model about a whole dataset or a file of rows: `POST /v1/batch-predictions`."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from modelyard.specs.jobs import JobDataset, JobError
from modelyard.specs.uploads import UploadId

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"

OutputFormat = Literal["parquet", "csv", "jsonl"]


class BatchState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Rows come from exactly one of `dataset` and `upload`. Without `split` all splits of the dataset are
    answered, in their order."""

    model: Annotated[
        str,
        Meta(
            pattern=rf"^{NAME}(@{NAME})?$",
            description="`name`, or `name@` and a version, an alias or `latest`: what it means now is kept",
        ),
    ]
    dataset: Annotated[str, Meta(pattern=rf"^{NAME}(@[1-9][0-9]{{0,8}})?$")] | None = None
    split: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    upload: UploadId | None = None
    format: OutputFormat = "parquet"


class BatchProgress(Struct, frozen=True):
    """`rows` is null until the rows are counted; `rows_done` have an answer or an error, `errors` of them an
    error. After a loss it goes on from the rows that were kept."""

    rows_done: int = 0
    rows: int | None = None
    errors: int = 0
    fraction: float = 0.0
    rows_per_second: float | None = None


class BatchDataset(JobDataset, frozen=True):
    split: str | None = None


class BatchFile(Struct, frozen=True):
    """`size` in bytes."""

    rows: int
    size: int
    sha256: str


class BatchTransition(Struct, frozen=True):
    state: BatchState
    at: datetime
    reason: str


class BatchPrediction(Struct):
    """`output` and `errors` are there once it has succeeded: each row that came is in one of them."""

    id: str
    state: BatchState
    terminal: bool
    model: str
    version: int
    format: str
    attempt: int
    losses: int
    progress: BatchProgress
    created_at: datetime
    dataset: BatchDataset | None = None
    upload: str | None = None
    output: BatchFile | None = None
    errors: BatchFile | None = None
    error: JobError | None = None
    transitions: list[BatchTransition] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    started_at: datetime | None = None
    finished_at: datetime | None = None
