"""What two runs of a job must have in common, whatever happened to one of them."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.data.manifest import Manifest
from core.nets import artifacts
from core.nets.plan import Source, check
from tests import house as homes
from workers.house import House

#: 1,350 rows train in batches of 100.
BATCHES = 14


@dataclass(frozen=True)
class Outcome:
    """`weights` is the hash of the last checkpoint's file; `state` that of all it goes on from but the clock.
    `best` is by step, epoch and value; `metrics` are those of each epoch's end."""

    state: str
    weights: str
    training_state: str
    best: tuple[int, int, float]
    metrics: list[tuple[str, int, int, float | None]]
    final: dict[str, Any]


def queue(house: House, manifest: Manifest, trainer: dict[str, Any], **spec: Any) -> str:
    raw = {
        "name": "digits",
        "dataset": "digits@1",
        "model": homes.NET,
        "trainer": {"batch_size": 100, **trainer},
        **spec,
    }
    return homes.queue_job(house, check(raw, Source("digits@1", manifest)).spec)


def outcome(house: House, job_id: str) -> Outcome:
    job = homes.read_job(house, job_id)
    last = homes.read_checkpoints(house, job_id)[0]
    assert job.best is not None
    ends = {row.step for row in homes.read_metrics(house, job_id) if row.name == "val_loss"}
    return Outcome(
        job.state,
        last.weights_sha256,
        digest(without_clock(artifacts.load(house.storage.fetch(last.state_key)))),
        (job.best["step"], job.best["epoch"], job.best["value"]),
        sorted(
            (row.name, row.step, row.epoch, row.value)
            for row in homes.read_metrics(house, job_id)
            if row.step in ends and (row.name == "train_loss" or row.name.startswith("val_"))
        ),
        {name: value for name, value in job.metrics.items() if name.startswith(("val_", "test_"))},
    )


def without_clock(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"cursor": {name: value for name, value in state["cursor"].items() if name != "seconds"}}


def digest(value: Any) -> str:
    """Of tensors by their bytes, of all else by what it prints."""
    found = hashlib.sha256()
    match value:
        case Tensor():
            found.update(f"{value.dtype}{tuple(value.shape)}".encode())
            found.update(
                value.contiguous().view(torch.uint8).numpy().tobytes()
                if value.dim()
                else repr(value.item()).encode()
            )
        case dict():
            for name in value:
                found.update(f"{name}:{digest(value[name])}".encode())
        case list() | tuple():
            for inner in value:
                found.update(digest(inner).encode())
        case _:
            found.update(repr(value).encode())
    return found.hexdigest()
