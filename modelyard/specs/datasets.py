"""A dataset: a name with immutable versions, as clients read it."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct, field

from modelyard.specs.common import Problem


class DatasetState(StrEnum):
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


#: What an upload may be; `auto` looks at the bytes and the layout.
Format = Literal["auto", "image_folder", "image_csv", "table", "arrays"]


class Feature(Struct, frozen=True):
    """One column of a dataset. `shape` is that of one row's value; -1 where rows differ."""

    dtype: str
    shape: list[int]


class RowProblem(Struct, frozen=True):
    """Something wrong in an upload. `where` names the file, or the file and row."""

    where: str
    code: str
    message: str


class Dataset(Struct):
    id: str
    name: str
    version: int
    state: DatasetState
    format: str
    bytes: int
    sha256: str
    created_at: datetime
    num_samples: int | None = None
    splits: dict[str, int] = field(default_factory=dict)
    classes: list[str] | None = None
    features: dict[str, Feature] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    error: Problem | None = None


class Sample(Struct):
    """One row as JSON: images as nested CHW lists of 0..255, labels by class name."""

    index: int
    values: dict[str, Any]


class Samples(Struct):
    split: str
    items: list[Sample]
