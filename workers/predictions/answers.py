"""A few rows -> as many records: an answer each, or why there is none."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from msgspec import UNSET

from core.data.instances import BadInstance
from core.faults import first_line
from core.nets.artifacts import VersionManifest
from core.predict import MAX_FORWARD_ROWS, Predictor
from modelyard.specs import Prediction
from workers.predictions.rows import Instance
from workers.trainer import is_out_of_memory

#: Of float32 that one forward takes; large images go through a few at a time.
FORWARD_BYTES = 32 * 1024 * 1024

Record = dict[str, Any]


class Answering:
    """`columns` are those of an answer, beside the row's number and its split."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.manifest = predictor.manifest
        self.columns = columns_of(predictor.manifest)
        row_bytes = 4 * max(1, math.prod(self.manifest.row_shape))
        #: A function of the version alone: a row is always among the same ones, so its answer is the same to
        #: the bit whatever was killed before it.
        self.rows = max(1, min(MAX_FORWARD_ROWS, FORWARD_BYTES // row_bytes))

    def answer(self, instances: Sequence[Instance]) -> list[Record]:
        """One record for each, in order."""
        readable = [one for one in instances if not isinstance(one, BadInstance)]
        found = iter(self._predicted(readable))
        return [
            _unanswered(one.code, one.detail) if isinstance(one, BadInstance) else next(found)
            for one in instances
        ]

    def _predicted(self, instances: Sequence[Any]) -> list[Record]:
        """What the net can't take as a whole goes through in halves, down to the row that is at fault. Raises
        what says that not even one row finds room."""
        if not instances:
            return []
        try:
            answers = self._predictor.predict(instances, top_k=self._top_k)
            assert len(answers) == len(instances)
            return [self._record(answer) for answer in answers]
        except Exception as error:
            if len(instances) == 1:
                if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                    raise  # no row is at fault
                said = f"the net refuses the row: {type(error).__name__}: {first_line(error)}"
                return [_unanswered("forward_failed", said)]
        half = len(instances) // 2  # here nothing holds on to what the failed forward had made
        return self._predicted(instances[:half]) + self._predicted(instances[half:])

    @property
    def width(self) -> int:
        """How many numbers an answer has at most."""
        return max(len(self.manifest.classes or []), self.manifest.signature.outputs[0].shape[-1], 1)

    @property
    def _top_k(self) -> int:
        """All scores where each label has its own."""
        return len(self.manifest.classes or []) if self.manifest.task == "multilabel" else 1

    def _record(self, answer: Prediction) -> Record:
        if answer.error is not UNSET:
            return _unanswered(answer.error.code, answer.error.detail)
        if answer.value is not UNSET:
            return {"value": answer.value}
        if answer.labels is not UNSET:
            assert answer.top is not UNSET
            by_index = sorted(answer.top, key=lambda scored: scored.index)
            return {"labels": answer.labels, "scores": [scored.score for scored in by_index]}
        return {"label": answer.label, "index": answer.index, "score": answer.score}


def columns_of(manifest: VersionManifest) -> dict[str, pa.DataType]:
    match manifest.task:
        case "multilabel":
            return {"labels": pa.list_(pa.string()), "scores": pa.list_(pa.float64())}
        case _ if manifest.classes is not None:
            return {"label": pa.string(), "index": pa.int64(), "score": pa.float64()}
        case _:
            values = manifest.signature.outputs[0].shape[-1]
            return {"value": pa.float64() if values == 1 else pa.list_(pa.float64())}


def _unanswered(code: str, message: str) -> Record:
    return {"code": code, "message": message}
