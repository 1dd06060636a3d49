"""A model: a name with versions; each version is one registered checkpoint that can predict."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from modelyard.specs.jobs import ForkedFrom


class Tensor(Struct, frozen=True):
    """-1 stands for a dimension that varies (the rows of a batch)."""

    name: str
    datatype: str
    shape: list[int]


class Signature(Struct, frozen=True):
    inputs: list[Tensor]
    outputs: list[Tensor]


class Lineage(Struct, frozen=True):
    """Everything needed to repeat the training."""

    job: str
    checkpoint: str
    dataset: str
    dataset_version: int
    dataset_sha256: str
    seed: int
    environment: dict[str, Any]
    forked_from: ForkedFrom | None = None


class ClassScores(Struct, frozen=True):
    """`support` are the rows of the class; a ratio over no rows is 0."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Evaluation(Struct, frozen=True):
    """How a version did on the `test` split, else on the rows that validate. `confusion_matrix[i][j]` are the
    rows of class i that were taken for j; None for several labels a row and for over 200 classes."""

    split: str
    per_class: list[ClassScores]
    confusion_matrix: list[list[int]] | None = None


class ModelVersion(Struct):
    """`state` is `ready`, or `rejected` when the weights read back from disk did not answer the
    golden samples as the trained net had. `evaluation` is None in a list of versions, for a regression, and
    past 1000 classes."""

    id: str
    model: str
    version: int
    state: str
    task: str
    signature: Signature
    metrics: dict[str, float | None]
    lineage: Lineage
    spec: dict[str, Any]
    created_at: datetime
    classes: list[str] | None = None
    transforms: list[dict[str, Any]] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    evaluation: Evaluation | None = None


class LoadedVersion(Struct):
    """A version in the memory of the service that answered: the bytes of its weights, the rows that wait for
    a forward, and those in the forward under way. All are 0 while it loads."""

    version: int
    state: Literal["loading", "loaded"]
    bytes: int
    waiting_rows: int
    in_flight_rows: int


class Model(Struct):
    """`loaded` is None in a list of models."""

    name: str
    created_at: datetime
    latest: int | None = None
    aliases: dict[str, int] = field(default_factory=dict)
    loaded: list[LoadedVersion] | None = None


class Unloaded(Struct):
    """`versions` were in memory, with so many `bytes` of weights. The process shrank by `returned_bytes`, as
    the machine counts: other requests count against it, and what is still being answered goes after that."""

    model: str
    versions: list[int]
    bytes: int
    returned_bytes: int
