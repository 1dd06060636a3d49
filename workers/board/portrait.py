"""Some validation rows as the trained net answers them: their scores, and what its last layer is given."""

from typing import Any

import torch
from msgspec import Struct
from torch import Tensor, nn

from core.nets.measures import answered
from workers.board import pictures
from workers.board.embedding import Embedding
from workers.registration import Data
from workers.training import Training

# B rows, C classes, F features

MAX_ROWS = 1000
SPRITE_SIDE = 32
#: Classes that have a precision-recall curve.
MAX_CURVES = 30


class Portrait(Struct, frozen=True):
    """`scores_BC` beside whether a row is of the class; None for a regression. `embedding` is None where the
    net has no layer with weights, or rows give it no numbers."""

    labels: list[str]
    scores_BC: Tensor | None
    truth_BC: Tensor | None
    embedding: Embedding | None


def take(training: Training, data: Data, transforms: list[dict[str, Any]] | None) -> Portrait:
    """At most MAX_ROWS rows, evenly from all of validation, in fp32 as serving runs; fewer where a Stop
    comes."""
    net = training.served.eval()
    rows = data.rows.validation
    index = rows[torch.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).long()]
    answers, truths, features, images = [], [], list[Tensor](), list[Tensor]()
    last = LastInput(net)
    try:
        with torch.inference_mode():
            for batch in data.evaluation(index, training.device).in_order():
                # `forward` is never compiled: a hook inside would have to be compiled anew.
                outputs = net.forward(*batch.inputs)
                answer, truth = answered(data.targets.task, data.readout, outputs, batch.targets)
                answers.append(answer.cpu())
                truths.append(truth.cpu())
                if last.features_BF is not None and len(last.features_BF) == batch.rows:
                    features.append(last.features_BF.float().cpu())
                if pictures.is_picture(batch.inputs[0]):
                    images.append(pictures.seen(batch.inputs[0], transforms, SPRITE_SIDE))
                if training.crew.stop is not None:
                    break
    finally:
        last.forget()
    return _portrait(data, torch.cat(answers), torch.cat(truths), features, images)


def _portrait(
    data: Data, answers: Tensor, truth: Tensor, features: list[Tensor], images: list[Tensor]
) -> Portrait:
    classes = data.targets.classes
    labels = _labels(answers, truth, classes, data.targets.task)
    embedding = None
    if features and sum(map(len, features)) == len(labels):
        embedding = Embedding(torch.cat(features), labels, torch.cat(images) if images else None)
    if classes is None:
        return Portrait([], None, None, embedding)
    shown = classes[:MAX_CURVES]
    is_single = data.targets.task == "classification"
    truth_BC = truth[:, None] == torch.arange(len(shown)) if is_single else truth[:, : len(shown)] > 0
    return Portrait(shown, answers[:, : len(shown)], truth_BC, embedding)


def _labels(answers: Tensor, truth: Tensor, classes: list[str] | None, task: str) -> list[str]:
    """What a row is; of a regression its first value."""
    if classes is None:
        return [f"{float(row.reshape(-1)[0]):.5g}" for row in truth]
    if task == "classification":
        return [classes[int(place)] for place in truth]
    return [" ".join(name for name, holds in zip(classes, row, strict=True) if holds) for row in truth > 0]


class LastInput:
    """What the last layer with weights was given in the latest forward, [B, F]: the mean over the places of
    an image or the steps of a text."""

    def __init__(self, net: nn.Module) -> None:
        self._latest: Tensor | None = None
        leaves = [module for module in net.modules() if _has_weights(module)]
        self._hooks = [leaf.register_forward_pre_hook(self._hear) for leaf in leaves]

    @property
    def features_BF(self) -> Tensor | None:
        latest = self._latest
        if latest is None or not latest.is_floating_point() or latest.ndim < 2:
            return None
        return latest if latest.ndim == 2 else _pooled(latest)

    def forget(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hear(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            self._latest = inputs[0]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _pooled(x: Tensor) -> Tensor:
    """[B, C, H, W] over H and W, [B, T, F] over T."""
    return x.mean(dim=1) if x.ndim == 3 else x.flatten(2).mean(dim=2)
