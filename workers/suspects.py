"""Which rows a trained net doubts: one pass over training and validation rows with the weights it will serve.

Wrong labels of a classification by `core.nets.wrong_labels`; of all else the rows with the greatest losses.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor, nn

from core.nets.modules.losses import OneHotTargets
from core.nets.objective import meet
from core.nets.randomness import permutation
from core.nets.readout import HOLDS, Outputs, read_out, restored
from core.nets.wrong_labels import Doubts, doubts
from core.predict import Predictor
from core.storage.durable import StoredFile, describe
from modelyard.specs import Suspect, Suspects
from workers.messages import Register, Verified
from workers.registration import Data
from workers.training import Training

# N rows that are looked at, B rows in the batch, C classes or targets

#: So many rows are looked at, at most.
MAX_ROWS = 100_000
#: It takes this part of the training's time, at most: a forward pass is a third of a step, so all rows of a
#: net of convolutions would be a twelfth of five epochs. A short training may be judged as long as `LEAST_S`.
SHARE = 0.04
LEAST_S = 2.0
#: Their scores stand in memory: 128 MiB of them.
MAX_SCORES = 2**25
#: Of each split so many are told.
MAX_KEPT = 500


class Judged(Struct, frozen=True):
    """`rows_N` are numbers in the dataset; `answers_NC` what the net says of them, `targets` as the loss saw
    them, `loss_N` float32. All on the CPU."""

    rows_N: Tensor
    answers_NC: Tensor
    targets: Tensor
    loss_N: Tensor


def write(
    verified: Verified, chosen: Register, training: Training, data: Data, trained_s: float, scratch: Path
) -> StoredFile:
    """JSON: `Suspects` by split, judged by the weights that were chosen in a training of `trained_s`."""
    net = Predictor.load(Path(verified.manifest.path), Path(chosen.weights)).net
    path = scratch / "suspects.json"
    judged = judge(net, training, data, max(LEAST_S, SHARE * trained_s))
    path.write_bytes(msgspec.json.encode(ranked(judged, data)))
    return describe(path)


def judge(net: nn.Module, training: Training, data: Data, budget_s: float) -> Judged:
    """In the training's precision, with the transforms of evaluation, until the budget is spent."""
    rows_N = chosen_rows(data)
    device, began = training.device, time.monotonic()
    net = net.to(device).to(memory_format=_format_of(training.net)).eval()
    loss_of_rows = by_row(training.loss)
    answers, losses, targets = list[Tensor](), list[Tensor](), list[Tensor]()
    with torch.inference_mode():
        for batch in data.evaluation(rows_N, device).in_order():
            with torch.autocast(device.type, training.autocast, enabled=training.autocast is not None):
                outputs = net(*batch.inputs)
                loss_B = loss_of_rows(outputs, meet(outputs, batch.targets))
            # Host-device syncs: without them the clock would not see what a GPU has yet to do.
            losses.append(loss_B.float().cpu())
            answers.append(read_out(data.readout, outputs).reshape(batch.rows, -1).float().cpu())
            targets.append(batch.targets.cpu())
            training.between()
            if time.monotonic() - began > budget_s:
                break
    loss_N = torch.cat(losses)
    return Judged(rows_N[: len(loss_N)], torch.cat(answers), torch.cat(targets), loss_N)


def chosen_rows(data: Data) -> Tensor:
    """Rows that train or validate in an order of its own, so that any first part stands for all."""
    rows_N = torch.cat([data.rows.train, data.rows.validation])
    most = min(MAX_ROWS, MAX_SCORES // max(1, len(data.targets.classes or [])))
    return rows_N[permutation(0, 0, len(rows_N))[:most]]


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
    validation = set(data.rows.validation.tolist())
    spans = {split: data.manifest.rows_of(split) for split in data.manifest.splits}
    made = {}
    for split, span in spans.items():
        rows_N = judged.rows_N[order_N]
        places = order_N[(rows_N >= span.start) & (rows_N < span.stop)]
        if len(places):
            likely = int(found.is_likely_N[places].sum()) if found is not None else None
            items = [
                _suspect(place, split, judged, found, data, validation)
                for place in places[:MAX_KEPT].tolist()
            ]
            made[split] = Suspects(split, len(places), likely, items)
    return made


def _suspect(
    place: int, split: str, judged: Judged, found: Doubts | None, data: Data, validation: set[int]
) -> Suspect:
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
        is_validation=row in validation,
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
