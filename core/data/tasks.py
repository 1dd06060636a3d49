"""Which loss is for which task, and which numbers it can take. No torch."""

from msgspec import Struct

from core.data.manifest import Manifest
from core.data.target_transforms import Log1p, TargetTransform
from core.faults import fault, show
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Task

#: The loss a task gets where the spec names none.
DEFAULT_LOSSES: dict[Task, str] = {
    "classification": "CrossEntropyLoss",
    "regression": "MSELoss",
    "multilabel": "BCEWithLogitsLoss",
}

#: The tasks of a loss; where the spec doesn't say and the target leaves it open, the first.
LOSS_TASKS: dict[str, tuple[Task, ...]] = {
    "CrossEntropyLoss": ("classification",),
    "NLLLoss": ("classification",),
    "MultiMarginLoss": ("classification",),
    "BCELoss": ("multilabel", "classification"),
    "BCEWithLogitsLoss": ("multilabel", "classification"),
    "SoftMarginLoss": ("multilabel", "classification"),
    "MultiLabelMarginLoss": ("multilabel",),
    "MultiLabelSoftMarginLoss": ("multilabel",),
    "MSELoss": ("regression",),
    "L1Loss": ("regression",),
    "SmoothL1Loss": ("regression",),
    "HuberLoss": ("regression",),
    "KLDivLoss": ("regression",),
    "PoissonNLLLoss": ("regression",),
    "GaussianNLLLoss": ("regression",),
    "HingeEmbeddingLoss": ("regression",),
    "CosineEmbeddingLoss": ("regression",),
    "MarginRankingLoss": ("regression",),
    "TripletMarginLoss": ("regression",),
}

#: Losses that also take classes as ones among zeros, one output a class.
ONE_HOT_LOSSES = frozenset(
    {
        "CrossEntropyLoss",
        "BCELoss",
        "BCEWithLogitsLoss",
        "MSELoss",
        "L1Loss",
        "SmoothL1Loss",
        "HuberLoss",
        "KLDivLoss",
    }
)

#: Losses that take two classes as one output, the score of the second.
ONE_OUTPUT_LOSSES = frozenset({"BCELoss", "BCEWithLogitsLoss", "SoftMarginLoss"})


class Pair(Struct, frozen=True):
    """A loss over `num_outputs` outputs of a Graph, which it compares with each other. Its target says 1 for
    alike (or first above second) and -1 for not."""

    num_outputs: int
    has_target: bool = True


PAIR_LOSSES: dict[str, Pair] = {
    "HingeEmbeddingLoss": Pair(1),
    "CosineEmbeddingLoss": Pair(2),
    "MarginRankingLoss": Pair(2),
    "TripletMarginLoss": Pair(3, has_target=False),
}


def check_loss_task(loss_type: str, task: Task, is_one_hot: bool, errors: list[ProblemError]) -> bool:
    """A loss that no table here knows is taken for any task."""
    tasks = LOSS_TASKS.get(loss_type)
    if tasks is None:
        return True
    if is_one_hot and loss_type in ONE_HOT_LOSSES:
        return True
    if is_one_hot:
        message = (
            f"{loss_type} takes class indices, and OneHot gives ones among zeros; take OneHot out, or choose "
            f"one of {', '.join(sorted(ONE_HOT_LOSSES))}."
        )
        fault(errors, "/loss/type", "wrong_loss", message)
        return False
    if task in tasks:
        return True
    hint = (
        ' For numbers in place of classes say "target_transform": [{"type": "OneHot"}].'
        if task == "classification" and loss_type in ONE_HOT_LOSSES
        else f" For {task} {DEFAULT_LOSSES[task]} is usual."
    )
    message = f"{loss_type} is a loss for {' or '.join(tasks)}, the task is {task}.{hint}"
    fault(errors, "/loss/type", "wrong_loss", message)
    return False


def check_range(
    loss_type: str,
    names: list[str],
    transforms: list[TargetTransform],
    manifest: Manifest,
    errors: list[ProblemError],
) -> None:
    """What the statistics of the training split tell of targets that a loss can't take."""
    for name in names:
        stats = manifest.columns.get(name)
        if stats is None:
            continue
        is_negative = stats.min is not None and stats.min < 0
        if is_negative and any(isinstance(transform, Log1p) for transform in transforms):
            message = f"Log1p takes quantities >= 0; {show(name)} goes down to {stats.min:g}. Take it out."
            fault(errors, "/target_transform", "invalid_value", message)
        elif is_negative and loss_type == "PoissonNLLLoss" and not transforms:
            message = f"PoissonNLLLoss takes counts >= 0; {show(name)} goes down to {stats.min:g}."
            fault(errors, "/target", "invalid_value", message)
        if loss_type in PAIR_LOSSES and not (
            stats.values and {value for value, _ in stats.values} <= {-1, 1}
        ):
            came = [value for value, _ in stats.values[:5]] if stats.values else "other numbers"
            message = f"{loss_type} takes 1 and -1 as its target; {show(name)} holds {came}."
            fault(errors, "/target", "invalid_value", message)
