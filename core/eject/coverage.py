"""What a script can't be written for, each with its pointer and its reason."""

from collections.abc import Iterator
from typing import Any

from core.data.manifest import Kind, Manifest
from core.data.prepare import FittedColumn
from core.data.target_transforms import Bin, Map
from core.data.targets import Targets
from core.faults import join
from core.nets import plugins
from core.nets.components.layers import GRAPH
from core.nets.components.samplers import RANDOM, SEQUENTIAL, SUBSET
from core.nets.components.schedulers import OF_CLOCK
from core.nets.pretrained import architectures_in
from core.nets.schedules import tree
from core.nets.transforms import Pipeline, held, is_mixing
from modelyard.specs import JobSpec, ProblemError

CODE = "not_ejectable"

#: The fitted steps of a column that `tables.py` writes.
STEPS = frozenset({"Imputed", "Standardized", "MinMaxed", "Clipped", "Spread"})

Found = Iterator[tuple[str, str]]


def refusals(
    spec: JobSpec, resolved: dict[str, Any], manifest: Manifest, targets: Targets
) -> list[ProblemError]:
    """Empty where a script can be written, but for what only the data tell."""
    found = [
        *_of_plugins(spec),
        *_of_model(spec.model, "/model"),
        *_of_data(spec, manifest, targets),
        *_of_training(spec, resolved),
    ]
    return [ProblemError(pointer, CODE, message) for pointer, message in found]


def step_refusals(prepared: list[FittedColumn]) -> list[ProblemError]:
    kinds = {type(step).__name__ for column in prepared for step in column.operations}
    message = "A script replays {}; this job's prepare learned {}."
    known = ", ".join(sorted(STEPS))
    return [ProblemError("/prepare", CODE, message.format(known, kind)) for kind in sorted(kinds - STEPS)]


def _of_plugins(spec: JobSpec) -> Found:
    for name, version in plugins.used(spec.model, *_lists(spec)).items():
        yield "", f"{name} comes from the plugin {version}, whose code is its own."


def _lists(spec: JobSpec) -> list[Any]:
    return [spec.transforms.train, spec.transforms.eval or [], [spec.loss] if spec.loss else []]


def _of_model(model: dict[str, Any], pointer: str) -> Found:
    if model["type"] == GRAPH:
        yield pointer, "A Graph has no nn.Sequential to be written as."
        return
    for path, component in architectures_in(model):
        if isinstance(component["weights"], dict):
            yield join(pointer, "weights"), f"The weights of {path or component['type']} are an upload."
    for key, value in model.items():
        children = value if isinstance(value, list) else [value]
        for place, child in enumerate(children):
            if isinstance(child, dict) and "type" in child:
                yield from _inside(child, join(pointer, key, place))


def _inside(child: dict[str, Any], pointer: str) -> Found:
    if child["type"] == GRAPH:
        yield pointer, "A Graph has no nn.Sequential to be written as."
    for key, value in child.items():
        for place, inner in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(inner, dict) and "type" in inner:
                yield from _inside(inner, join(pointer, key, place))


def _of_data(spec: JobSpec, manifest: Manifest, targets: Targets) -> Found:
    if len(targets.inputs) > 1:
        yield "/inputs", "A net of several inputs is a Graph."
    for place, transform in enumerate(targets.transforms):
        if isinstance(transform, Map | Bin):
            yield join("/target_transform", place), f"{type(transform).__name__} makes classes of its own."
    if set(targets.columns) & set(manifest.text_columns):
        yield "/prepare", "Texts are made into tokens by steps of ours."
    for word, components in (("train", spec.transforms.train), ("eval", spec.transforms.eval or [])):
        for place, component in enumerate(components):
            if held(component) and is_mixing(component):
                yield join("/transforms", word, place), "MixUp and CutMix are written outside of containers."
        if manifest.kind is Kind.IMAGES and len(_sizes(components, manifest)) > 1:
            yield join("/transforms", word), "Images of differing sizes get one by a random transform."


def _sizes(components: list[dict[str, Any]], manifest: Manifest) -> set[tuple[int, ...]]:
    """Of the images once they are read."""
    pipeline = Pipeline.from_spec(components)
    channels = 1 if manifest.image_mode == "L" else 3
    return {pipeline.prefix_shape((channels, height, width)) for height, width, _ in manifest.image_sizes}


def _of_training(spec: JobSpec, resolved: dict[str, Any]) -> Found:
    trainer = spec.trainer
    sampler = trainer.sampler
    if trainer.devices > 1:
        yield "/trainer/devices", f"It trained on {trainer.devices} devices at once."
    if resolved["device"] != "cpu":
        yield "/trainer/device", f"It trained on {resolved['device']}, where equal seeds give other numbers."
    if sampler is not None and not _is_written(sampler):
        yield "/trainer/sampler", f"{sampler['type']} with these values draws by functions of ours."
    for place, group in enumerate(spec.optimizer.get("param_groups", [])):
        if "type" in group:
            yield (
                join("/optimizer/param_groups", place),
                "Two optimizers are stepped as one by a class of ours.",
            )
    for part, pointer in tree(spec.scheduler) if spec.scheduler else ():
        if part["type"] in OF_CLOCK:
            yield join(pointer, "lr_lambda"), "An expression of epoch and step is read by a parser of ours."
        if part["type"] == "ReduceLROnPlateau" and part["monitor"] != "val_loss":
            yield join(pointer, "monitor"), f"A script measures val_loss, and not {part['monitor']}."
        if part["type"] == "ReduceLROnPlateau" and (spec.loss or {}).get("class_weights") is not None:
            yield join(pointer, "monitor"), "val_loss is a mean over class weights."


def _is_written(sampler: dict[str, Any]) -> bool:
    if sampler["type"] == RANDOM:
        return not sampler["replacement"] and sampler["num_samples"] is None
    if sampler["type"] == SUBSET:
        return len(set(sampler["indices"])) == len(sampler["indices"])
    return bool(sampler["type"] == SEQUENTIAL)
