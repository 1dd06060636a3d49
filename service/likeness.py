"""Whether two registered numbers are one measurement: of the same rows, by the same metric."""

from dataclasses import dataclass
from typing import Any

import msgspec

from core.data.splits import validation_split
from core.db.models import Checkpoint, Dataset, Version
from core.nets.metrics import metric_name
from modelyard.specs import Split
from modelyard.specs.jobspec import Component
from service.views import manifest_of

LOSS = "loss"


@dataclass(frozen=True)
class Rival:
    """A version, what it learned from, and its weights."""

    version: Version
    dataset: Dataset
    weights: Checkpoint

    @property
    def name(self) -> str:
        return name_of(self.version)


def name_of(version: Version) -> str:
    return f"{version.model}@{version.version}"


def listed_metric(version: Version, name: str) -> str | Component | None:
    """As its spec lists it; None where it does not."""
    metrics: list[str | Component] = version.spec["metrics"]
    return next((metric for metric in metrics if metric_name(metric) == name), None)


def differences(metric: str, one: Rival, other: Rival) -> list[str]:
    """What keeps `val_…` or `test_…` of the two from being one measurement; none where they are."""
    ours, theirs = _conditions(metric, one), _conditions(metric, other)
    return [what for what, value in ours.items() if value != theirs.get(what)]


def _conditions(metric: str, rival: Rival) -> dict[str, Any]:
    """All that the number depends on but the net, each under what it is called."""
    measured_on, _, name = metric.partition("_")
    spec, manifest = rival.version.spec, manifest_of(rival.dataset)
    found: dict[str, Any] = {
        "datasets": [manifest.data_sha256, manifest.splits, manifest.classes],
        "targets": [spec["task"], spec["target"], spec["target_transform"]],
        "metrics": spec["loss"] if name == LOSS else listed_metric(rival.version, name),
    }
    # What a loss weighs by and what a target is scaled by is learned on the rows that train.
    if measured_on == "val" or name == LOSS or spec["target_transform"]:
        split = msgspec.convert(spec["split"], Split)
        found["splits"] = validation_split(manifest, split) or spec["split"]
    # The loop validates in the precision that it trains in; `test_…` is measured as it is served.
    if measured_on == "val":
        found["precisions"] = rival.version.lineage["environment"].get("precision")
    return found
