"""A model: a name with versions; each version is one registered checkpoint that can predict."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field


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


class ModelVersion(Struct):
    """`state` is `ready`, or `rejected` when the weights read back from disk did not answer the
    golden samples as the trained net had."""

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


class Model(Struct):
    name: str
    created_at: datetime
    latest: int | None = None
    aliases: dict[str, int] = field(default_factory=dict)


class AliasUpdate(Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/models/{name}/aliases/{alias}`."""

    version: Annotated[int, Meta(ge=1)]
