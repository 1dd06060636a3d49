"""The plan: everything about a job that can be known before it runs, and every reason why it couldn't.

`check` is pure: it reads a spec and a manifest, builds the net on the meta device, and either fills in every
default or raises with all errors at once. No file, no row, no network.
"""

from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from core.data.manifest import Kind, Manifest
from core.data.prepare import resolve_prepare
from core.data.splits import training_count
from core.data.targets import Targets, resolve_targets
from core.errors import Invalid
from core.nets import registry
from core.nets.advice import advise
from core.nets.build import Component
from core.nets.components.losses import DEFAULT_LOSSES
from core.nets.decode import decode_struct
from core.nets.faults import MAX_ERRORS, MAX_MESSAGE, fault
from core.nets.images import Images, image_shapes, resolve_images
from core.nets.inplace import check_inplace
from core.nets.memory import SavedTensors, net_bytes
from core.nets.objective import check_loss, check_metrics, check_output
from core.nets.steps import steps_per_epoch
from core.nets.trial import try_optimizer
from core.nets.walk import Walked, walk
from modelyard.specs import JobSpec, Plan, ProblemError, ResolvedTransforms

# B rows in the batch

MAX_PARAMETERS = 2_000_000_000
#: `/v1/models/stats` is no model.
RESERVED_NAME = "stats"


class Source(Struct, frozen=True):
    """What a job learns from; `dataset` is name@version."""

    dataset: str
    manifest: Manifest


class Checked(Struct, frozen=True):
    """`spec` is the whole job as plain values: every default, every inferred size, name@version."""

    spec: dict[str, Any]
    plan: Plan


class _Components(Struct, frozen=True):
    """The components of a spec with their defaults; None where one is wrong. `loss` is also None where the
    task chooses it, `scheduler` where there is none."""

    model: Component | None
    loss: Component | None
    optimizer: Component | None
    scheduler: Component | None


class _Inputs(Struct, frozen=True):
    """How rows reach the net: the shape of one row, and what makes it."""

    shape: tuple[int, ...]
    prepare: list[Component]
    images: Images | None


def check(raw: object, source: Source, *, max_parameters: int = MAX_PARAMETERS) -> Checked:
    """Raises `core.errors.Invalid` with every error found, each with a JSON pointer into the spec."""
    errors: list[ProblemError] = []
    warnings: list[str] = []
    manifest = source.manifest
    spec = decode_struct(raw, JobSpec, "", errors)
    if spec is None:
        raise _invalid(errors)
    if spec.name == RESERVED_NAME:
        message = f"{spec.name!r} can't name a model: a route of the API has this name; choose another."
        fault(errors, "/name", "reserved", message)
    components = _check_components(spec, errors)
    targets = resolve_targets(spec, manifest, errors, warnings)
    inputs = _resolve_inputs(spec, targets, manifest, errors) if targets is not None else None
    rows = _training_rows(spec, manifest, errors)
    state_per_parameter = try_optimizer(components.optimizer, components.scheduler, errors)
    metrics = check_metrics(spec, targets.task, errors) if targets is not None else []
    if components.model is None or targets is None or inputs is None or rows is None:
        raise _invalid(errors)

    loss = components.loss
    if spec.loss is None:
        loss = registry.check_component("loss", {"type": DEFAULT_LOSSES[targets.task]}, "/loss", errors)
    x = torch.empty(min(spec.trainer.batch_size, rows), *inputs.shape, device="meta")
    with SavedTensors() as saved:
        saved.note(x)
        walked = walk(components.model, x, max_parameters, errors)
        if walked is not None:
            _check_end(walked, loss, targets, manifest, saved, errors)
    if walked is not None and not errors:
        check_inplace(walked, x, errors)
    if errors or walked is None:
        raise _invalid(errors)

    trainer = spec.trainer
    per_epoch = steps_per_epoch(
        rows, trainer.batch_size, drop_last=trainer.drop_last, has_batch_norm=walked.has_batch_norm
    )
    warnings += advise(walked.steps, targets, manifest)
    resolved = msgspec.to_builtins(spec) | {
        "dataset": source.dataset,
        "task": targets.task,
        "target": targets.target,
        "inputs": targets.inputs,
        "prepare": inputs.prepare,
        "transforms": {
            "train": inputs.images.train if inputs.images else [],
            "eval": inputs.images.eval if inputs.images else [],
        },
        "model": walked.model,
        "loss": loss,
        "metrics": metrics,
        "optimizer": components.optimizer,
        "scheduler": components.scheduler,
    }
    plan = Plan(
        spec=resolved,
        layers=[step.layer for step in walked.steps],
        transforms=ResolvedTransforms(**resolved["transforms"]),
        parameters=walked.parameters,
        trainable=walked.trainable,
        steps_per_epoch=per_epoch,
        steps=per_epoch * trainer.epochs,
        memory_bytes=_memory_bytes(walked, saved, state_per_parameter),
        estimated_seconds=None,
        warnings=warnings,
    )
    return Checked(resolved, plan)


def _check_components(spec: JobSpec, errors: list[ProblemError]) -> _Components:
    def checked(family: str, component: Component | None) -> Component | None:
        if component is None:
            return None
        return registry.check_component(family, component, f"/{pointers[family]}", errors)

    pointers = {"layer": "model", "loss": "loss", "optimizer": "optimizer", "scheduler": "scheduler"}
    return _Components(
        model=checked("layer", spec.model),
        loss=checked("loss", spec.loss),
        optimizer=checked("optimizer", spec.optimizer),
        scheduler=checked("scheduler", spec.scheduler),
    )


def _resolve_inputs(
    spec: JobSpec, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> _Inputs | None:
    before = len(errors)
    shapes = image_shapes(manifest, targets.inputs[0])
    if not shapes:
        for name, components in (("train", spec.transforms.train), ("eval", spec.transforms.eval)):
            if components:
                message = (
                    f"Transforms act on images; this dataset holds {manifest.kind.value}. Leave them out."
                )
                fault(errors, f"/transforms/{name}", "wrong_kind", message)
    if manifest.kind is not Kind.TABLE and spec.prepare:
        message = f"prepare acts on tables; this dataset holds {manifest.kind.value}. Leave it out."
        fault(errors, "/prepare", "wrong_kind", message)
    if shapes:
        images = resolve_images(spec.transforms, shapes, errors)
        inputs = _Inputs(images.shape, [], images) if images is not None else None
    elif manifest.kind is Kind.TABLE:
        prepared = resolve_prepare(spec.prepare, targets.inputs, manifest, errors)
        inputs = _Inputs((prepared.width,), prepared.components, None)
    else:
        inputs = _array_inputs(targets.inputs[0], manifest, errors)
    return inputs if len(errors) == before else None


def _array_inputs(name: str, manifest: Manifest, errors: list[ProblemError]) -> _Inputs | None:
    shape = tuple(manifest.features[name].shape)
    if shape:
        return _Inputs(shape, [], None)
    message = f"{name!r} holds one number a row, and a net takes [batch, features]; upload it as [rows, 1]."
    fault(errors, "/inputs", "shape", message)
    return None


def _training_rows(spec: JobSpec, manifest: Manifest, errors: list[ProblemError]) -> int | None:
    rows = training_count(manifest, spec.split)
    if rows >= 1:
        return rows
    message = f"A job trains on the split named train; this dataset has the splits {dict(manifest.splits)}."
    fault(errors, "/dataset", "too_few_rows", message)
    return None


def _check_end(
    walked: Walked,
    loss: Component | None,
    targets: Targets,
    manifest: Manifest,
    saved: SavedTensors,
    errors: list[ProblemError],
) -> None:
    last = walked.steps[-1]
    target: Tensor | None = check_output(targets, manifest, walked.output, last.pointer, errors)
    if target is None or loss is None:
        return
    saved.note(walked.output)
    check_loss(loss, walked.output, target, errors)
    if walked.trainable == 0:
        fault(errors, "/model", "nothing_to_train", "The net has no parameters to train; add a Linear.")


def _memory_bytes(walked: Walked, saved: SavedTensors, state_per_parameter: float) -> int:
    modules = [step.module for step in walked.steps]
    parameters, gradients, buffers = net_bytes(modules)
    activations = saved.bytes_without(tensor for module in modules for tensor in module.parameters())
    return parameters + gradients + buffers + int(gradients * state_per_parameter) + activations


def _invalid(errors: list[ProblemError]) -> Invalid:
    # Messages quote the spec, and a spec may hold a string of a mebibyte.
    errors = [
        msgspec.structs.replace(error, message=error.message[:MAX_MESSAGE]) for error in errors[:MAX_ERRORS]
    ]
    if len(errors) == 1:
        return Invalid(f"The spec can't run: {errors[0].message}", errors=errors)
    return Invalid(f"The spec can't run: {len(errors)} errors, each with its pointer.", errors=errors)
