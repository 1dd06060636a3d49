"""A trained net becomes a version: its golden samples, its manifest, and the proof that both hold.

The chosen weights are read back from disk through `core.predict`, which answers the golden samples as
users will send them; what the live net answered over the training's own data path stands beside it.
"""

import base64
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from core.data.manifest import Kind, Manifest
from core.data.targets import Targets
from core.nets import artifacts, plugins
from core.nets.artifacts import Golden, VersionManifest
from core.nets.confusion import Confusion
from core.nets.readout import Readout, read_out
from core.nets.transforms import Pipeline
from core.predict import Predictor
from modelyard.specs import Evaluation, JobSpec, Signature
from modelyard.specs import Tensor as TensorInfo
from workers import evaluating
from workers.batches import Batches
from workers.loaders import Rows, raw_instance
from workers.messages import Register, Verified
from workers.training import Training

# G golden samples, C classes or targets

GOLDEN_SAMPLES = 16
#: Photos are as large as their camera made them, and the service reads the manifest whole.
GOLDEN_BYTES = 8 * 1024 * 1024
#: How far the replay of a golden sample may be from what the trained net answered: float32 sums taken
#: in another order differ by a few 1e-6.
TOLERANCE = 1e-4
#: Evaluation keeps no gradients, and its batches are of so many rows where the device has room for them.
EVALUATION_ROWS = 256


@dataclass(frozen=True)
class Data:
    """The dataset as the spec reads it."""

    arrow: Path
    manifest: Manifest
    targets: Targets
    rows: Rows
    train: Pipeline | None
    eval: Pipeline | None
    readout: Readout

    def evaluation(self, index: Tensor, device: torch.device, batch_size: int = EVALUATION_ROWS) -> Batches:
        rows = self.rows
        return Batches(rows.eval_inputs, rows.targets, index, self.eval, batch_size, seed=0, device=device)


def golden_outputs(training: Training, data: Data) -> Tensor:
    """[G, C] what the live net answers to the golden rows, in fp32 as serving runs."""
    net = training.served.eval()
    index = data.rows.validation[:GOLDEN_SAMPLES]
    with torch.inference_mode():
        batches = data.evaluation(index, training.device)
        answers = [read_out(data.readout, net(*batch.inputs)) for batch in batches.in_order()]
    outputs_GC = torch.cat(answers)
    return outputs_GC.reshape(len(index), -1).double().cpu()


def verify(chosen: Register, spec: JobSpec, training: Training, data: Data, scratch: Path) -> Verified:
    """Writes the version's manifest into scratch and replays it with the chosen weights."""
    golden_GC: Tensor = artifacts.load(Path(chosen.state))["golden"]
    manifest = version_manifest(golden_GC, spec, data)
    path = scratch / "manifest.json"
    stored = artifacts.write_manifest(manifest, path)
    predictor = Predictor.load(path, Path(chosen.weights))
    difference = predictor.replay()
    split = "test" if len(data.rows.test) else "val"
    metrics, evaluation = evaluate(predictor.net, training, data, split)
    return Verified(
        manifest=stored,
        task=manifest.task,
        signature=msgspec.to_builtins(manifest.signature),
        classes=manifest.classes,
        transforms=manifest.transforms,
        test_metrics=metrics if split == "test" else {},
        difference=difference,
        tolerance=TOLERANCE,
        evaluation=msgspec.to_builtins(evaluation),
    )


def evaluate(
    net: nn.Module, training: Training, data: Data, split: str
) -> tuple[dict[str, float], Evaluation | None]:
    """The metrics of a split and the table of its classes, by the net as it is served: in fp32."""
    device = training.device
    confusion = Confusion(
        training.measures(device), data.targets.task, data.readout, data.targets.classes, device
    )
    served = dataclasses.replace(
        training, net=net.to(device), average=None, autocast=None, measures=lambda _: confusion
    )
    rows = data.rows.test if split == "test" else data.rows.validation
    metrics = evaluating.evaluate(
        served, data.evaluation(rows, device, training.validation.batch_size), split
    )
    return metrics, confusion.evaluation(split)


def version_manifest(golden_GC: Tensor, spec: JobSpec, data: Data) -> VersionManifest:
    feature = data.manifest.features[data.targets.columns[0]]
    is_array = data.manifest.kind is Kind.ARRAYS
    return VersionManifest(
        task=data.targets.task,
        kind=data.manifest.kind,
        model=spec.model,
        row_shape=list(data.rows.eval_inputs[0].shape[1:]),
        inputs=data.targets.inputs,
        classes=data.targets.classes,
        readout=data.readout,
        transforms=spec.transforms.eval or [],
        prepare=data.rows.prepared,
        signature=signature(data, golden_GC.shape[1]),
        golden=golden_samples(golden_GC, data),
        tolerance=TOLERANCE,
        image_mode=data.manifest.image_mode,
        raw_shape=feature.shape if is_array else None,
        raw_dtype=feature.dtype if is_array else None,
        plugins=plugins.used(spec.model, spec.transforms.eval or []),
    )


def golden_samples(golden_GC: Tensor, data: Data) -> list[Golden]:
    samples: list[Golden] = []
    size_bytes = 0
    rows = data.rows.validation[: len(golden_GC)].tolist()
    for row, outputs in zip(rows, golden_GC.tolist(), strict=True):
        instance: Any = raw_instance(data.arrow, data.manifest, data.targets.columns, row)
        if isinstance(instance, bytes):
            instance = base64.b64encode(instance).decode()
            size_bytes += len(instance)
            if samples and size_bytes > GOLDEN_BYTES:
                break
        samples.append(Golden(instance, outputs))
    return samples


def signature(data: Data, num_outputs: int) -> Signature:
    """Inputs as a client sends them, in the words of the Open Inference Protocol; -1 is the batch."""
    features = data.manifest.features
    match data.manifest.kind:
        case Kind.IMAGES:
            inputs = [TensorInfo("input", "UINT8", [-1, *_image_shape(data)])]
        case Kind.ARRAYS:
            feature = features[data.targets.columns[0]]
            inputs = [TensorInfo("input", _datatype(feature.dtype), [-1, *feature.shape])]
        case Kind.TABLE:
            inputs = [
                TensorInfo(name, _datatype(features[name].dtype), [-1]) for name in data.targets.columns
            ]
    if data.targets.task == "multilabel":
        return Signature(inputs, [TensorInfo("scores", "FP32", [-1, num_outputs])])
    if data.targets.task == "classification":
        return Signature(
            inputs, [TensorInfo("scores", "FP32", [-1, num_outputs]), TensorInfo("label", "BYTES", [-1])]
        )
    return Signature(inputs, [TensorInfo("value", "FP32", [-1, num_outputs])])


def _image_shape(data: Data) -> list[int]:
    """[C, H, W] of an image as it is sent; H and W are -1 where the transforms bring any to one size."""
    channels = 1 if data.manifest.image_mode == "L" else 3
    if data.eval is not None and data.eval.takes_any_size(channels):
        return [channels, -1, -1]
    return [channels, *data.manifest.features["image"].shape[1:]]


def _datatype(dtype: str) -> str:
    names = {"string": "BYTES", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    return names.get(dtype, dtype.upper())
