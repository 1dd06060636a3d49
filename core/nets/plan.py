"""The plan: everything about a job that can be known before it runs, and every reason why it couldn't.

`check` is pure: it reads a spec and a manifest, builds the net on the meta device, and either fills in every
default or raises with all errors at once. No row, no network, and no file but those it is given.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct

from core.data.elsewhere import check_elsewhere
from core.data.manifest import Manifest
from core.data.splits import resolve_split
from core.data.target_columns import check_quantiles
from core.data.targets import Targets, resolve_targets
from core.errors import Invalid
from core.faults import MAX_ERRORS, MAX_MESSAGE, fault, join
from core.nets import registry
from core.nets.advice import advise, advise_rows
from core.nets.build import Component, build_loss, build_net
from core.nets.clock import Clock
from core.nets.conduct import check_conduct
from core.nets.decode import decode_struct, present
from core.nets.freezing import begin_epoch, check_freezing, freezing_of, is_frozen, trained_names
from core.nets.inplace import check_inplace
from core.nets.intake import Intake, resolve_intake
from core.nets.memory import OptimizerBytes, held_bytes, step_bytes
from core.nets.meta import QuickMeta
from core.nets.metrics import check_metrics, monitored_names
from core.nets.named_files import check_tokenizers, check_weights
from core.nets.objective import check_loss, check_output, outputs_per_row, resolve_loss
from core.nets.optimization import advise_learning_rate, check_groups, check_optimizer
from core.nets.sampling import check_sampler, rows_per_epoch
from core.nets.schedules import advise_schedule
from core.nets.spelling import check_data_words, check_parameter_words
from core.nets.starting import check_initialize, parameters_of
from core.nets.steps import steps_per_epoch
from core.nets.trial import try_schedule, try_step
from core.nets.walk import Walked, walk
from modelyard.specs import JobSpec, Plan, ProblemError, ResolvedTransforms

# B rows in the batch

MAX_PARAMETERS = 2_000_000_000
#: More than `epochs` times the rows of any dataset.
MAX_STEPS = 10**18
#: In one list of what is done to columns, or to the target.
MAX_COMPONENTS = 100
NO_FILES: Mapping[str, Path] = {}
#: `/v1/models/stats` is no model.
RESERVED_NAME = "stats"


class Source(Struct, frozen=True):
    """What a job learns from; `dataset` is name@version."""

    dataset: str
    manifest: Manifest


class Checked(Struct, frozen=True):
    """`spec` is the whole job as plain values: every default, every inferred size, name@version. `work` is
    how many multiply-adds one row costs on its way forward."""

    spec: dict[str, Any]
    plan: Plan
    work: int


class _Parts(Struct, frozen=True):
    """All of a spec that can be known before its net is built. `scheduler` is as it came: its length is the
    net's to say. `rows` are those that an epoch draws."""

    spec: JobSpec
    model: Component
    loss: Component
    optimizer: Component
    scheduler: Component | None
    targets: Targets
    intake: Intake
    metrics: list[Any]
    sampler: Component | None
    rows: int

    @property
    def batch(self) -> int:
        return min(self.spec.trainer.batch_size, self.rows)


class _Training(Struct, frozen=True):
    """How the net begins and how it trains, once its parameters are known."""

    initialize: list[Component]
    scheduler: Component | None
    clock: Clock
    optimizer_bytes: OptimizerBytes


def check(
    raw: object,
    source: Source,
    *,
    max_parameters: int = MAX_PARAMETERS,
    files: Mapping[str, Path] = NO_FILES,
) -> Checked:
    """Raises `core.errors.Invalid` with every error found, each with a JSON pointer into the spec. `files`
    are the uploads that are at hand, by id; others are taken to be what they should be."""
    errors: list[ProblemError] = []
    warnings: list[str] = []
    parts = _check_parts(raw, source.manifest, errors, warnings)
    if parts is None:
        raise refusal(errors)
    with QuickMeta():
        walked = _walk(parts, source.manifest, max_parameters, errors)
    if walked is None:
        check_parameter_words(parts.spec, errors)
    training = _check_training(parts, walked, errors) if walked is not None else None
    check_tokenizers(parts.spec.prepare or [], files, errors)
    if walked is not None:
        check_weights(walked.model, files, errors)
    if walked is not None and not errors:
        check_inplace(walked.model, tuple(x for _, x in parts.intake.meta_batch(parts.batch)), errors)
    if errors or walked is None or training is None:
        raise refusal(errors)

    warnings += walked.warnings
    warnings += advise(walked.model, parts.loss, parts.batch, parts.targets, source.manifest)
    warnings += advise_rows(parts.spec, parts.rows, parts.targets, parts.intake.prepare, source.manifest)
    warnings += advise_schedule(training.scheduler, training.clock)
    warnings += advise_learning_rate(parts.optimizer, training.scheduler)
    resolved = _resolved(parts, walked, training, source.dataset)
    plan = Plan(
        spec=resolved,
        layers=walked.layers,
        transforms=ResolvedTransforms(**parts.intake.transforms),
        parameters=walked.parameters,
        trainable=walked.trainable,
        steps_per_epoch=training.clock.steps_per_epoch,
        steps=min(training.clock.total("step"), parts.spec.trainer.max_steps or MAX_STEPS),
        memory_bytes=_memory_bytes(parts, walked, source.manifest, training.optimizer_bytes),
        estimated_seconds=None,
        warnings=warnings,
    )
    return Checked(resolved, plan, walked.work // parts.batch)


def _check_parts(
    raw: object, manifest: Manifest, errors: list[ProblemError], warnings: list[str]
) -> _Parts | None:
    spec = decode_struct(raw, JobSpec, "", errors)
    if spec is None:
        return None
    if spec.name == RESERVED_NAME:
        message = f"{spec.name!r} can't name a model: a route of the API has this name; choose another."
        fault(errors, "/name", "reserved", message)
    model = _component("model", spec.model, "/model", errors)
    loss = _component("loss", spec.loss, "/loss", errors)
    optimizer = check_optimizer(spec.optimizer, errors)
    scheduler = _component("scheduler", spec.scheduler, "/scheduler", errors)
    transforms = _components("target_transform", spec.target_transform, errors)
    spec.target_transform = spec.target_transform if transforms is None else transforms
    targets = resolve_targets(spec, manifest, errors, warnings)
    prepare = _components("prepare", spec.prepare or [], errors)
    spec.prepare = prepare if spec.prepare is not None else None
    intake, metrics, measured = None, list[Any](), list[str]()
    if targets is not None:
        check_elsewhere(targets, manifest, errors)
        intake = resolve_intake(spec, targets, manifest, errors) if prepare is not None else None
        before = len(errors)
        metrics = check_metrics(spec, targets, manifest, errors)
        measured = monitored_names(metrics) if len(errors) == before else []
        if loss is not None or spec.loss is None:
            loss = resolve_loss(loss, targets, manifest, errors)
    spec.trainer = check_conduct(spec.trainer, measured, errors)
    rows = _training_rows(spec, manifest, errors, warnings)
    if targets is not None and rows is not None:
        check_quantiles(targets, manifest, rows, errors)
    sampler = check_sampler(spec.trainer.sampler, rows, targets, manifest, errors)
    if targets is None:
        check_data_words(spec, errors)
    # What is wrong is told already; with torch's usual in its place the net can still be looked at.
    optimizer = optimizer or check_optimizer({"type": "AdamW"}, errors)
    if model is None or targets is None or intake is None:
        check_parameter_words(spec, errors)
        return None
    if rows is None or loss is None or optimizer is None:
        check_parameter_words(spec, errors)
        return None
    rows = rows_per_epoch(sampler, rows)
    return _Parts(spec, model, loss, optimizer, scheduler, targets, intake, metrics, sampler, rows)


def _component(
    family: str, component: Component | None, pointer: str, errors: list[ProblemError]
) -> Component | None:
    return None if component is None else registry.check_component(family, component, pointer, errors)


def _components(
    family: str, components: list[Component], errors: list[ProblemError]
) -> list[Component] | None:
    """None where one is wrong or they are too many; then `errors` says why."""
    if len(components) > MAX_COMPONENTS:
        message = f"At most {MAX_COMPONENTS} are taken here; {len(components)} came. Take some out."
        fault(errors, join("", family), "too_large", message)
        return None
    checked = [
        _component(family, component, join("", family, place), errors)
        for place, component in present(components)
    ]
    found = [component for component in checked if component is not None]
    return found if len(found) == len(components) else None


def _training_rows(
    spec: JobSpec, manifest: Manifest, errors: list[ProblemError], warnings: list[str]
) -> int | None:
    rows = resolve_split(spec.split, manifest, errors, warnings)
    if rows is None or rows >= 1:
        return rows
    message = f"A job trains on the split named train; this dataset has the splits {dict(manifest.splits)}."
    fault(errors, "/dataset", "too_few_rows", message)
    return None


def _walk(
    parts: _Parts, manifest: Manifest, max_parameters: int, errors: list[ProblemError]
) -> Walked | None:
    """The net on meta up to its loss."""
    batch = parts.intake.meta_batch(parts.batch)
    freezing = freezing_of(parts.spec)
    walked = walk(
        parts.model,
        batch,
        max_parameters=max_parameters,
        num_outputs=outputs_per_row(parts.loss, parts.targets, manifest),
        is_frozen=lambda name: is_frozen(freezing, name),
        errors=errors,
    )
    if walked is None:
        return None
    target = check_output(parts.loss, parts.targets, manifest, walked.output, walked.end, errors)
    if target is not None:
        check_loss(parts.loss, parts.targets, walked.output, target, errors)
    return walked


def _check_training(parts: _Parts, walked: Walked, errors: list[ProblemError]) -> _Training | None:
    spec, trainer = parts.spec, parts.spec.trainer
    per_epoch = steps_per_epoch(
        parts.rows,
        trainer.batch_size,
        drop_last=trainer.drop_last,
        has_batch_norm=walked.has_batch_norm,
        accumulate=trainer.accumulate,
        devices=trainer.devices,
    )
    clock = Clock(trainer.epochs, per_epoch)
    parameters = parameters_of(walked.modules)
    if not parameters and not errors:
        fault(errors, "/model", "nothing_to_train", "The net has no parameters to train; add a Linear.")
    if not parameters:
        return None
    initialize = check_initialize(spec.initialize, parameters, errors)
    freezing = freezing_of(spec)
    before = len(errors)
    check_freezing(freezing, list(parameters), trainer.epochs, errors)
    if len(errors) > before:
        return None
    trained = trained_names(freezing, parameters, trainer.epochs)
    check_groups(parts.optimizer, trained, errors)
    if errors:
        return None
    optimizer_bytes = try_step(parts.optimizer, {name: parameters[name].shape for name in trained}, errors)
    scheduler = parts.scheduler
    if scheduler is not None and not errors:
        monitored = monitored_names(parts.metrics)
        scheduler = try_schedule(scheduler, parts.optimizer, trained, clock, monitored, errors)
    return _Training(initialize, scheduler, clock, optimizer_bytes)


def _memory_bytes(parts: _Parts, walked: Walked, manifest: Manifest, optimizer: OptimizerBytes) -> int:
    """Of a step when as much trains as ever will: what thaws stays thawed."""
    inputs = tuple(x for _, x in parts.intake.meta_batch(parts.batch))
    target = check_output(parts.loss, parts.targets, manifest, walked.output, walked.end, [])
    assert target is not None, "the output was checked"
    with QuickMeta(), torch.device("meta"):
        net = build_net(walked.model)
        loss = build_loss(parts.loss, is_one_hot=parts.targets.is_one_hot)
    begin_epoch(net, freezing_of(parts.spec), parts.spec.trainer.epochs - 1)
    averaged = held_bytes(net.state_dict().values()) if parts.spec.trainer.ema is not None else 0
    return averaged + step_bytes(net, loss, inputs, target, optimizer)


def _resolved(parts: _Parts, walked: Walked, training: _Training, dataset: str) -> dict[str, Any]:
    resolved: dict[str, Any] = msgspec.to_builtins(parts.spec)
    return resolved | {
        "dataset": dataset,
        "task": parts.targets.task,
        "target": parts.targets.target,
        "inputs": parts.targets.inputs_in_spec,
        "prepare": parts.intake.prepare,
        "transforms": parts.intake.transforms,
        "model": walked.model,
        "initialize": training.initialize,
        "loss": parts.loss,
        "metrics": parts.metrics,
        "optimizer": parts.optimizer,
        "scheduler": training.scheduler,
        "trainer": resolved["trainer"] | {"sampler": parts.sampler},
    }


def refusal(errors: list[ProblemError]) -> Invalid:
    """All that is wrong with a spec, as one error."""
    # Messages quote the spec, and a spec may hold a string of a mebibyte.
    errors = [
        msgspec.structs.replace(error, message=error.message[:MAX_MESSAGE]) for error in errors[:MAX_ERRORS]
    ]
    if len(errors) == 1:
        return Invalid(f"The spec can't run: {errors[0].message}", errors=errors)
    return Invalid(f"The spec can't run: {len(errors)} errors, each with its pointer.", errors=errors)
