"""What a client posts to train: the declarative job.

A component such as `{"type": "Conv2d", "out_channels": 8}` stays a plain mapping here: which types
exist and which keyword arguments they take is the registry's to say, from torch's own signatures.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from modelyard.specs.common import Name

#: `{"type": <class name>, <keyword argument>: <value>, …}`
Component = dict[str, Any]
#: The client's own words.
Metadata = Annotated[dict[str, Any], Meta(description="kept with the job, and never read")]

Task = Literal["classification", "regression", "multilabel"]

DatasetRef = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(@[1-9][0-9]{0,8})?$",
        description="a dataset's name, or name@version; a bare name is the newest ready version",
    ),
]
Fraction = Annotated[float, Meta(gt=0, lt=1)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Columns = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=10_000)]
#: Columns for each input of a net that has several.
NamedColumns = Annotated[dict[str, Columns], Meta(min_length=1, max_length=100)]
#: A regular expression that must match the whole of a parameter's name in the `state_dict`.
Match = Annotated[str, Meta(min_length=1, max_length=200)]


class Split(Struct, forbid_unknown_fields=True, frozen=True):
    """How rows are set aside for validation where the dataset has no `val` split of its own.

    `validation` is a fraction of the training rows, or the name of a split of the dataset. Rows of equal
    `group` (a column) stay on one side. The seed isn't the trainer's, so that forks of a job compare on the
    same rows.
    """

    validation: Fraction | Annotated[str, Meta(min_length=1, max_length=100)] = 0.1
    stratify: bool = True
    group: Annotated[str, Meta(min_length=1)] | None = None
    seed: Seed = 0


class Unfreeze(Struct, forbid_unknown_fields=True, frozen=True):
    """From `epoch` on (counted from 0) the parameters that `match` train again."""

    match: Match
    epoch: Annotated[int, Meta(ge=1, le=1_000_000)]


class Transforms(Struct, forbid_unknown_fields=True, frozen=True):
    """`eval` left out is `train` without its random transforms."""

    train: list[Component] = field(default_factory=list)
    eval: list[Component] | UnsetType = UNSET


class CheckpointPolicy(Struct, forbid_unknown_fields=True, frozen=True):
    """When to save and what to keep: the newest `keep`, and the best by `monitor`.

    Exactly one of `every_epochs`, `every_steps`, `every_minutes`; none of them is every epoch. Counted in
    steps or minutes, an epoch that is the best so far is saved as well.
    """

    every_epochs: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    every_steps: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    every_minutes: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    monitor: Annotated[str, Meta(min_length=1, max_length=100)] = "val_loss"
    mode: Literal["min", "max"] = "min"
    keep: Annotated[int, Meta(ge=1, le=100)] = 2


class EarlyStopping(Struct, forbid_unknown_fields=True, frozen=True):
    """Ends the job once `monitor` has not got better by more than `min_delta` for `patience` epochs."""

    monitor: Annotated[str, Meta(min_length=1, max_length=100)] = "val_loss"
    mode: Literal["min", "max"] = "min"
    patience: Annotated[int, Meta(ge=1, le=1_000_000)] = 3
    min_delta: Annotated[float, Meta(ge=0, le=1e9)] = 0.0


class Ema(Struct, forbid_unknown_fields=True, frozen=True):
    """An exponential moving average of the weights: it is what is validated, saved and served."""

    decay: Annotated[float, Meta(gt=0, lt=1)] = 0.999


class Trainer(Struct, forbid_unknown_fields=True, frozen=True):
    """How the loop runs.

    `batch_size` is that of a batch over all `devices`; one optimizer step takes `accumulate` batches.
    `precision` auto is bf16 where the device computes it in hardware and the net is large enough to gain.
    `deterministic` asks for the same bits again, at the price of speed: fp32, contiguous, neither fused nor
    compiled. `max_steps` and `max_seconds` end a job well: it validates, saves and succeeds.
    """

    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] = 5
    batch_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    shuffle: bool = True
    drop_last: bool = False
    sampler: Component | None = None
    num_workers: Annotated[int, Meta(ge=0, le=256)] = 0
    seed: Seed = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Meta(ge=1, le=1024)] = 1
    compile: Literal["auto"] | bool = "auto"
    accumulate: Annotated[int, Meta(ge=1, le=10_000)] = 1
    clip_grad_norm: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    ema: Ema | None = None
    deterministic: bool = False
    max_steps: Annotated[int, Meta(ge=1, le=1_000_000_000_000)] | None = None
    max_seconds: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    log_every_steps: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    early_stopping: EarlyStopping | None = None
    checkpoint: CheckpointPolicy = CheckpointPolicy()


class JobSpec(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/jobs`. Only `name`, `dataset` and `model` are required."""

    name: Name
    dataset: DatasetRef
    model: Component
    task: Task | None = None
    split: Split = Split()
    inputs: Columns | NamedColumns | None = None
    target: Annotated[str, Meta(min_length=1)] | Columns | None = None
    target_transform: list[Component] = field(default_factory=list)
    prepare: list[Component] | None = None
    transforms: Transforms = Transforms()
    initialize: list[Component] = field(default_factory=list)
    freeze: list[Match] = field(default_factory=list)
    unfreeze: list[Unfreeze] = field(default_factory=list)
    loss: Component | None = None
    optimizer: Component = field(default_factory=lambda: {"type": "AdamW", "lr": 1e-3})
    scheduler: Component | None = None
    metrics: list[str | Component] = field(default_factory=list)
    trainer: Trainer = Trainer()
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    metadata: Metadata = field(default_factory=dict)
