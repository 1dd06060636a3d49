"""The warnings a good colleague would give about a spec that will run."""

from collections.abc import Iterator

from core.data.manifest import Manifest
from core.data.targets import Targets
from core.nets.components.layers import LINEAR_BETWEEN, SPOILS_SCORES, WEIGHTED
from core.nets.walk import Step


def advise(steps: list[Step], targets: Targets, manifest: Manifest) -> Iterator[str]:
    yield from _last_layer(steps, targets)
    yield from _linear_chains(steps)
    yield from _unseen_classes(targets, manifest)


def _last_layer(steps: list[Step], targets: Targets) -> Iterator[str]:
    last = steps[-1]
    why = SPOILS_SCORES.get(last.component["type"])
    if targets.task == "classification" and why is not None:
        yield f"{last.pointer}: {last.component['type']} before CrossEntropyLoss: {why}. Take the layer out."


def _linear_chains(steps: list[Step]) -> Iterator[str]:
    before: Step | None = None
    for step in steps:
        kind = step.component["type"]
        if kind in WEIGHTED:
            if before is not None and before.component["type"] == kind:
                yield (
                    f"{step.pointer}: {kind} follows {kind} at {before.pointer} with no activation between; "
                    "two linear maps are one. Put a ReLU between."
                )
            before = step
        elif kind not in LINEAR_BETWEEN:
            before = None


def _unseen_classes(targets: Targets, manifest: Manifest) -> Iterator[str]:
    counts = manifest.class_counts.get("train")
    if targets.classes is None or not counts or len(counts) != len(targets.classes):
        return
    unseen = [name for name, count in zip(targets.classes, counts, strict=True) if count == 0]
    if unseen:
        shown = ", ".join(repr(name) for name in unseen[:5]) + (", …" if len(unseen) > 5 else "")
        yield f"{len(unseen)} classes have no training rows ({shown}); the net can't learn them."
