"""What the splits beside train hold of a target: told before a worker reads their rows. No torch."""

from typing import Any

from core.data.manifest import Manifest
from core.data.target_transforms import Log1p, binning, renamed
from core.data.targets import Targets, is_labelled, label_of
from core.faults import fault, show
from modelyard.specs import ProblemError


def check_elsewhere(targets: Targets, manifest: Manifest, errors: list[ProblemError]) -> None:
    """Every row of every split is read, whichever of them the job uses."""
    for name in targets.names:
        for split, missing in manifest.splits_missing.items():
            if name in missing:
                message = f"{show(name)} is missing in {missing[name]} rows of {split}; leave those rows out."
                fault(errors, "/target", "missing_targets", message)
        if is_labelled(name, manifest):
            continue
        for split, unseen in manifest.splits_unseen.items():
            wrong = [value for value in unseen.get(name, []) if not _is_known(value, targets)]
            if wrong:
                message = (
                    f"{show(name)} has values in {split} that no row of train has, and that a "
                    f"{targets.task} can't tell: {show(wrong)}. Leave those rows out, or add such to train."
                )
                fault(errors, "/target", "unseen_targets", message)


def _is_known(value: Any, targets: Targets) -> bool:
    """Whether a value that no training row has is a target all the same."""
    match targets.task:
        case "classification":
            is_binned = binning(targets.transforms) is not None
            return is_binned or renamed(label_of(value), targets.transforms) in (targets.classes or [])
        case "multilabel":
            return value in (0, 1)
        case "regression":
            is_log = any(isinstance(transform, Log1p) for transform in targets.transforms)
            return not is_log or value >= 0
