"""Which rows a trained net doubts: one pass over training and validation rows with the weights it will serve.

Wrong labels of a classification by `core.nets.wrong_labels`; of all else the rows with the greatest losses.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor, nn

from core.nets.modules.losses import OneHotTargets
from core.nets.objective import meet
from core.nets.readout import HOLDS, Outputs, read_out, restored
from core.nets.wrong_labels import Doubts, doubts
from core.predict import Predictor
from core.storage.durable import StoredFile, describe
from modelyard.specs import Suspect, Suspects
from workers.messages import Register, Verified
from workers.registration import Data
from workers.trainer import Training

# N rows that are looked at, B rows in the batch, C classes or targets

#: So many rows are looked at, at most: the first of each part, in proportion.
MAX_ROWS = 100_000
#: Their scores stand in memory: 128 MiB of them.
MAX_SCORES = 2**25
#: Of each split so many are told.
MAX_KEPT = 500


class Judged(Struct, frozen=True):
    """`rows_N` are numbers in the dataset, the first `num_training` of them trained; `answers_NC` what the
    net says of them, `targets` as the loss saw them, `loss_N` float32. All on the CPU."""

    rows_N: Tensor
    num_training: int
    answers_NC: Tensor
    targets: Tensor
    loss_N: Tensor


def write(verified: Verified, chosen: Register, training: Training, data: Data, scratch: Path) -> StoredFile:
    """JSON: `Suspects` by split, judged by the weights that were chosen."""
    net = Predictor.load(Path(verified.manifest.path), Path(chosen.weights)).net
    path = scratch / "suspects.json"
    path.write_bytes(msgspec.json.encode(ranked(judge(net, training, data), data)))
    return describe(path)


def judge(net: nn.Module, training: Training, data: Data) -> Judged:
    """In the training's precision, with the transforms of evaluation."""
    rows_N, num_training = chosen_rows(data)
    device = training.device
    batches = data.evaluation(rows_N, device)
    net = net.to(device, memory_format=_format_of(training.net)).eval()
    loss_of_rows = by_row(training.loss)
    answers, losses, targets = list[Tensor](), list[Tensor](), list[Tensor]()
    with torch.inference_mode():
        for batch in batches.in_order():
            with torch.autocast(device.type, training.autocast, enabled=training.autocast is not None):
                outputs = net(*batch.inputs)
                losses.append(loss_of_rows(outputs, meet(outputs, batch.targets)).float())
            answers.append(read_out(data.readout, outputs).reshape(batch.rows, -1).float())
            targets.append(batch.targets)
            training.between()
        return Judged(
            rows_N,
            num_training,
            torch.cat(answers).cpu(),
            torch.cat(targets).cpu(),
            torch.cat(losses).cpu(),
        )


def chosen_rows(data: Data) -> tuple[Tensor, int]:
    """All that train, then all that validate, or as many of each from their start; how many are of the
    first."""
    train, validation = data.rows.train, data.rows.validation
    most = min(MAX_ROWS, MAX_SCORES // max(1, len(data.targets.classes or [])))
    share = min(1.0, most / (len(train) + len(validation)))
    train, validation = (rows[: round(len(rows) * share)] for rows in (train, validation))
    return torch.cat([train, validation]), len(train)


def by_row(loss: nn.Module) -> Callable[[Outputs, Tensor], Tensor]:
    """What the loss says of each row: [B], the mean over what a row has several of."""
    alone = copy.deepcopy(loss)
    plain: Any = alone.loss if isinstance(alone, OneHotTargets) else alone
    if hasattr(plain, "reduction"):
        plain.reduction = "none"
        return lambda outputs, targets: _means(alone(outputs, targets), len(targets))
    return lambda outputs, targets: _one_by_one(alone, outputs, targets)  # a plugin's


def ranked(judged: Judged, data: Data) -> dict[str, Suspects]:
    """Of each split of the dataset that has rows here, the most doubtful first."""
    found = None
    if data.targets.task == "classification":
        found = doubts(judged.answers_NC, judged.targets)
        # Stable sorts from the least key to the greatest: likely ones first, and among them the least score.
        order_N = torch.argsort(found.score_N, stable=True)
        order_N = order_N[torch.argsort(found.is_likely_N[order_N].logical_not().byte(), stable=True)]
    else:
        order_N = torch.argsort(judged.loss_N.nan_to_num(nan=torch.inf), descending=True, stable=True)
    spans = {split: data.manifest.rows_of(split) for split in data.manifest.splits}
    made = {}
    for split, span in spans.items():
        rows_N = judged.rows_N[order_N]
        places = order_N[(rows_N >= span.start) & (rows_N < span.stop)]
        if len(places):
            likely = int(found.is_likely_N[places].sum()) if found is not None else None
            items = [_suspect(place, split, judged, found, data) for place in places[:MAX_KEPT].tolist()]
            made[split] = Suspects(split, len(places), likely, items)
    return made


def _suspect(place: int, split: str, judged: Judged, found: Doubts | None, data: Data) -> Suspect:
    row = int(judged.rows_N[place])
    label, predicted = _told(place, judged, found, data)
    return Suspect(
        row=row,
        split=split,
        index=row - data.manifest.rows_of(split).start,
        label=label,
        predicted=predicted,
        loss=float(judged.loss_N[place]),
        score=float(found.score_N[place]) if found is not None else None,
        is_likely=bool(found.is_likely_N[place]) if found is not None else False,
        is_validation=place >= judged.num_training,
    )


def _told(place: int, judged: Judged, found: Doubts | None, data: Data) -> tuple[Any, Any]:
    """Label and prediction in the dataset's words."""
    classes, target, answer_C = data.targets.classes, judged.targets[place], judged.answers_NC[place]
    if found is not None and classes is not None:
        return classes[int(target)], classes[int(found.predicted_N[place])]
    if classes is not None:
        held = [
            [name for name, holds in zip(classes, part.tolist(), strict=True) if holds >= HOLDS]
            for part in (target, answer_C)
        ]
        return held[0], held[1]
    scaling = data.readout.scaling
    own = target if scaling is None else restored(scaling, target.reshape(1, -1))
    return _number(own), _number(answer_C)


def _number(values: Tensor) -> float | list[float]:
    numbers: list[float] = values.reshape(-1).tolist()
    return numbers[0] if len(numbers) == 1 else numbers


def _means(values: Tensor, rows: int) -> Tensor:
    return values.reshape(rows, -1).mean(dim=1)


def _one_by_one(loss: nn.Module, outputs: Outputs, targets: Tensor) -> Tensor:
    def row(place: int) -> Outputs:
        here = slice(place, place + 1)
        return tuple(part[here] for part in outputs) if isinstance(outputs, tuple) else outputs[here]

    return torch.stack([loss(row(place), targets[place : place + 1]) for place in range(len(targets))])


def _format_of(net: nn.Module) -> torch.memory_format:
    lies_so = any(
        parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
        for parameter in net.parameters()
    )
    return torch.channels_last if lies_so else torch.contiguous_format
