"""A dataset: a name with immutable versions, as clients read it."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct, field

from modelyard.specs.common import Name, Problem


class DatasetState(StrEnum):
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


#: What an upload may be; `auto` looks at the bytes and the layout.
Format = Literal["auto", "image_folder", "image_csv", "table", "arrays", "idx", "text"]


class TorchvisionSource(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="torchvision"):
    """One of torchvision's own datasets, fetched by a worker. `options` are arguments of its class."""

    dataset: str
    options: dict[str, str | int] = field(default_factory=dict)


class DatasetSource(Struct, frozen=True, forbid_unknown_fields=True):
    """A new version of `name` from somewhere else than the request."""

    name: Name
    source: TorchvisionSource


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
    """`source` is where a worker fetched it from; until then `bytes` is 0 and `sha256` empty."""

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
    source: dict[str, Any] | None = None


class Sample(Struct):
    """One row as JSON: images as nested CHW lists of 0..255, labels by class name."""

    index: int
    values: dict[str, Any]


class Samples(Struct):
    split: str
    items: list[Sample]
