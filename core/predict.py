"""Predictor: decode -> transforms -> forward -> format. Serving, the golden check and tests use it alike."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.data import prepare
from core.data.images import decode_image, is_channels_last
from core.data.instances import BadInstance, array_from_json, pixels_from_json
from core.data.manifest import Kind
from core.data.targets import INPUT
from core.errors import Invalid
from core.faults import first_line
from core.nets import artifacts, build, plugins
from core.nets.artifacts import VersionManifest
from core.nets.readout import HOLDS, Outputs, Readout, read_out
from core.nets.refusals import REFUSALS
from core.nets.transforms import Pipeline
from modelyard.specs import Prediction, Problem, ScoredLabel

# B rows in a batch, C classes or targets

#: One row of each input of the net.
Row = tuple[Tensor, ...]

#: How versions without a `readout` of their own are read.
FORMAT_1_READOUTS = {"classification": Readout("softmax"), "regression": Readout("none")}

#: Rows in one forward; more are taken in turns, so that a request's size does not set the memory.
MAX_FORWARD_ROWS = 256

#: Smaller files of weights are read: all processes that share the pages of one would save less than it takes
#: to keep track of them.
MAPPED_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Predictor:
    """One loaded version, in `eval()`. Calls are thread-safe: nothing changes after loading."""

    manifest: VersionManifest
    net: nn.Module
    pipeline: Pipeline | None
    device: torch.device

    @classmethod
    def load(cls, manifest: Path, weights: Path, device: str = "cpu") -> "Predictor":
        """Weights of `MAPPED_BYTES` and more stay in their file, which may be deleted or replaced from then
        on, but not written to. Raises RuntimeError where their names or shapes are not the net's."""
        read = artifacts.read_manifest(manifest)
        is_mapped = weights.stat().st_size >= MAPPED_BYTES
        return cls.of(read, artifacts.load(weights, is_mapped=is_mapped), device)

    @classmethod
    def of(cls, manifest: VersionManifest, state_dict: dict[str, Tensor], device: str = "cpu") -> "Predictor":
        plugins.require(manifest.plugins)
        with torch.device("meta"):
            net = build.build_net(
                manifest.model
            )  # no memory and no random numbers for weights to be replaced
        net.load_state_dict(state_dict, strict=True, assign=True)
        pipeline = Pipeline.from_spec(manifest.transforms) if manifest.transforms else None
        return cls(manifest, net.eval().to(device), pipeline, torch.device(device))

    @classmethod
    def without_net(cls, manifest: Path) -> "Predictor":
        """Reads rows and words answers; another process has the net."""
        read = artifacts.read_manifest(manifest)
        plugins.require(read.plugins)
        pipeline = Pipeline.from_spec(read.transforms) if read.transforms else None
        return cls(read, nn.Identity(), pipeline, torch.device("cpu"))

    @property
    def size_bytes(self) -> int:
        tensors = (*self.net.parameters(), *self.net.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def predict(self, instances: Sequence[Any], top_k: int = 1) -> list[Prediction]:
        """n instances in, n predictions out, in order. A row that cannot be read holds only its error."""
        decoded = self.decoded(instances)
        rows = [row for row in decoded if not isinstance(row, BadInstance)]
        return self.predictions(decoded, self.outputs(rows) if rows else None, top_k)

    def decoded(self, instances: Sequence[Any]) -> list[Row | BadInstance]:
        """Each as a row of the net, or what is wrong with it."""
        return [self._decoded(instance) for instance in instances]

    def predictions(
        self, decoded: Sequence[Row | BadInstance], outputs_BC: Tensor | None, top_k: int
    ) -> list[Prediction]:
        """One for each that was decoded; `outputs_BC` are those of the rows among them."""
        answers = iter(self._formatted(outputs_BC, top_k) if outputs_BC is not None else [])
        return [_refusal(row) if isinstance(row, BadInstance) else next(answers) for row in decoded]

    def decode(self, instance: Any) -> Row:
        """A row for `outputs`, of the bytes of an image, a JSON instance, or an array of numpy. Raises
        BadInstance, and the one that stands in the place of an instance."""
        if isinstance(instance, BadInstance):
            raise instance
        return self.image_row(instance) if isinstance(instance, bytes) else self._from_json(instance)

    def net_inputs(self, instances: Sequence[Any]) -> list[Tensor]:
        """[B, …] of each input of the net, as `predict` makes them. Raises BadInstance for the first instance
        that cannot be read."""
        return self.batch([self.decode(instance) for instance in instances])

    def replay(self) -> float:
        """The greatest difference from the golden outputs; infinite where a sample is no longer readable."""
        if not self.manifest.golden:
            return 0.0
        try:
            rows = self.golden_rows()
        except BadInstance:
            return float("inf")
        return self.apart(self.outputs(rows))

    def golden_rows(self) -> list[Row]:
        """Raises BadInstance where a golden sample is no longer readable."""
        return [self._from_golden(sample.instance) for sample in self.manifest.golden]

    def apart(self, outputs: Tensor) -> float:
        """How far answers to the golden rows are from the golden outputs; infinite where one is no number."""
        golden = self.manifest.golden
        outputs_BC = outputs.reshape(len(golden), -1).double()
        expected_BC = torch.tensor([sample.outputs for sample in golden], dtype=torch.float64)
        difference_BC = (outputs_BC - expected_BC).abs()
        if self.manifest.task == "regression":
            difference_BC = difference_BC / (1 + expected_BC.abs())
        greatest = difference_BC.max().item()
        return greatest if np.isfinite(greatest) else float("inf")

    def outputs(self, rows: Sequence[Row]) -> Tensor:
        """[B, C] scores of classes or labels, or [B, …] values in the target's unit, on the CPU."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(rows), MAX_FORWARD_ROWS):
                parts.append(self.answers(self.batch(rows[start : start + MAX_FORWARD_ROWS])))
        return torch.cat(parts)

    def answers(self, inputs: Sequence[Tensor]) -> Tensor:
        """What `outputs` gives of one batch; to be called under `inference_mode`."""
        return self.scores(self.net(*inputs)).cpu()

    def batch(self, rows: Sequence[Row]) -> list[Tensor]:
        """One batch as the net takes it: [B, …] for each of its inputs, transformed, on its device."""
        batch = [torch.stack(part) for part in zip(*rows, strict=True)]
        return [part.to(self.device) for part in self._transformed(batch)]

    def scores(self, outputs: Outputs) -> Tensor:
        return read_out(self.readout, outputs)

    @property
    def readout(self) -> Readout:
        return self.manifest.readout or FORMAT_1_READOUTS[self.manifest.task]

    def _transformed(self, batch: list[Tensor]) -> list[Tensor]:
        if self.pipeline is None:
            return batch
        indices = torch.zeros(len(batch[0]), dtype=torch.int64)  # an eval pipeline draws nothing
        return [self.pipeline.apply_rest(batch[0], seed=0, epoch=0, indices=indices)]

    def _formatted(self, outputs_BC: Tensor, top_k: int) -> list[Prediction]:
        classes = self.manifest.classes
        if classes is not None and self.manifest.task == "multilabel":
            return [_labelled(scores, classes, top_k) for scores in outputs_BC.tolist()]
        if classes is None:
            values = outputs_BC.reshape(len(outputs_BC), -1).tolist()
            return [_valued(value) for value in values]
        scores_BK, indices_BK = outputs_BC.topk(min(top_k, len(classes)), dim=1)
        predictions = []
        for scores, indices in zip(scores_BK.tolist(), indices_BK.tolist(), strict=True):
            if not np.isfinite(scores).all():
                predictions.append(_refusal(_not_finite()))
                continue
            top = [ScoredLabel(classes[i], i, score) for i, score in zip(indices, scores, strict=True)]
            best = top[0]
            predictions.append(Prediction(label=best.label, index=best.index, score=best.score, top=top))
        return predictions

    def _decoded(self, instance: Any) -> Row | BadInstance:
        try:
            return self.decode(instance)
        except BadInstance as error:
            return error

    def _from_json(self, instance: Any) -> Row:
        manifest = self.manifest
        match manifest.kind:
            case Kind.IMAGES:
                channels = 1 if manifest.image_mode == "L" else 3
                return self.prefixed(torch.from_numpy(pixels_from_json(instance, channels)))
            case Kind.TABLE:
                wrong = prepare.check_row(instance, manifest.prepare)
                if wrong is not None:
                    raise BadInstance(wrong)
                columns = prepare.columns_from_rows([instance], manifest.prepare)
                try:
                    arrays = prepare.apply(manifest.prepare, self.inputs, columns)
                except Invalid as error:  # a tokenizer may fail on a text
                    raise BadInstance(error.detail) from error
                return tuple(torch.from_numpy(array[0]) for array in arrays)
            case Kind.ARRAYS:
                array = array_from_json(instance, manifest.raw_shape or [], manifest.raw_dtype or "float32")
                return self.prefixed(array_row(array))

    @property
    def inputs(self) -> dict[str, list[str]]:
        return self.manifest.inputs or {INPUT: [column.name for column in self.manifest.prepare]}

    def image_row(self, data: bytes) -> Row:
        if self.manifest.kind is not Kind.IMAGES:
            raise BadInstance(f"this model takes {self.manifest.kind}, not images: send JSON instances")
        try:
            pixels = decode_image(data, "L" if self.manifest.image_mode == "L" else "RGB")
        except Invalid as error:
            raise BadInstance(error.detail) from error
        return self.prefixed(torch.from_numpy(pixels))

    def _from_golden(self, instance: Any) -> Row:
        if self.manifest.kind is Kind.IMAGES:
            return self.image_row(base64.b64decode(instance))
        return self._from_json(instance)

    def prefixed(self, row: Tensor) -> Row:
        """The deterministic prefix, and the check that rows of one batch have one shape."""
        if self.pipeline is None:
            return (row,)
        expected = self.manifest.row_shape
        try:
            # before any pixel is made: a sliver of an image may be enormous once its shorter side is resized
            came = list(self.pipeline.prefix_shape(tuple(row.shape)))
        except REFUSALS as error:
            raise BadInstance(f"the transforms refuse {list(row.shape)}: {first_line(error)}") from error
        if came != expected:
            raise BadInstance(f"expected an image of shape {expected} (channels, height, width), got {came}")
        return (self.pipeline.apply_prefix(row),)


def array_row(array: Any) -> Tensor:
    """One row of an `arrays` dataset as the net's pipeline takes it: a uint8 matrix is an image of one
    channel, uint8 [H, W, C] is turned to [C, H, W], everything but uint8 images is float32."""
    row = torch.from_numpy(np.ascontiguousarray(array))
    if row.dtype == torch.uint8 and row.ndim >= 2:
        if is_channels_last(row.shape):
            return row.permute(2, 0, 1).contiguous()
        return row[None] if row.ndim == 2 else row
    return row.to(torch.float32)


def _labelled(scores: list[float], classes: list[str], top_k: int) -> Prediction:
    """`labels` are those that hold, by their place; `top` those of the highest scores."""
    if not np.isfinite(scores).all():
        return _refusal(_not_finite())
    by_score = sorted(range(len(classes)), key=lambda place: (-scores[place], place))
    return Prediction(
        labels=[name for name, score in zip(classes, scores, strict=True) if score >= HOLDS],
        top=[ScoredLabel(classes[place], place, scores[place]) for place in by_score[:top_k]],
    )


def _valued(value: list[float]) -> Prediction:
    if not np.isfinite(value).all():
        return _refusal(_not_finite())
    return Prediction(value=value[0] if len(value) == 1 else value)


def _not_finite() -> BadInstance:
    """NaN never leaves as a number."""
    detail = "the net's answer is not finite: look for values far from those it was trained on"
    return BadInstance(detail, code="non_finite_output")


def _refusal(error: BadInstance) -> Prediction:
    return Prediction(
        error=Problem(
            type="about:blank", title="Bad instance", status=422, detail=error.detail, code=error.code
        )
    )
