"""The transforms of a resolved spec as a function over a batch of images, with the very draws of the job."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torchvision.transforms import v2

from core.eject.code import WIDTH, Bracketed, Node, assign, call, flat, literal
from core.eject.components import Component, Written
from core.eject.sources import OURS
from core.nets.augment.crops import Padding
from core.nets.augment.levels import normalize_levels
from core.nets.randomness import hash_rows
from core.nets.transforms import Pipeline, Step, fact_of, is_mixing

X = "x"


class Unwritable(Exception):
    """The message says what has no form in a script, and why."""


def prefix_calls(pipeline: Pipeline, written: Written) -> list[Node]:
    """What is done to each image once, when it is read."""
    return [written.component("transform", step.component) for step in pipeline.prefix]


def lines_of(pipeline: Pipeline, written: Written, rows: str, epoch: str, indent: int) -> list[str]:
    """Assignments to `x`, a batch of what the prefix left: uint8 until something casts it."""
    lines: list[str] = []
    rest, is_uint8 = list(pipeline.rest), True
    while rest:
        step = rest.pop(0)
        if step.form is not None or step.draw is not None:
            lines.append(assign(X, _drawn(step, written, rows, epoch), indent))
        elif step.needs_generator:
            raise Unwritable(f"{step.component['type']} with a range of one number")
        elif is_uint8 and rest and _are_levels(step.apply, rest[0].apply):
            norm: Any = rest.pop(0).apply
            mean, std = literal(list(norm.mean)), literal(list(norm.std))
            name = written.ours.name(normalize_levels)
            lines.append(assign(X, call(name, X, mean=mean, std=std), indent))
        else:
            lines += _applied(written.component("transform", step.component), indent)
        is_uint8 = is_uint8 and not fact_of(step.component).is_cast
    return lines


def mixers(components: Sequence[Component], num_classes: int, written: Written) -> list[Node]:
    """MixUp and CutMix, that act on a batch and its labels."""
    return [
        written.component("transform", component | {"num_classes": num_classes})
        for component in components
        if is_mixing(component)
    ]


def draws_row_by_row(pipeline: Pipeline) -> bool:
    return any(step.draw is not None and step.form is None for step in pipeline.rest)


def _are_levels(cast: object, norm: object) -> bool:
    """The pair that a pipeline applies to uint8 as one: see `normalize_levels`."""
    if not isinstance(cast, v2.ToDtype) or not isinstance(norm, v2.Normalize):
        return False
    return cast.dtype is torch.float32 and cast.scale and len(norm.mean) == len(norm.std) and all(norm.std)


def _applied(node: Node, indent: int) -> list[str]:
    line = f"{' ' * indent}{X} = {flat(node)}({X})"
    if len(line) <= WIDTH:
        return [line]
    return [assign("transform", node, indent), f"{' ' * indent}{X} = transform({X})"]


def _drawn(step: Step, written: Written, rows: str, epoch: str) -> Node:
    key = call(written.ours.name(hash_rows), "SEED", epoch, rows, str(step.draw or 0))
    if step.form is None:
        return call("row_by_row", X, key, written.component("transform", step.component))
    form = step.form.batched
    if not isinstance(form, partial):
        return call(_named(form, written), X, key)
    keywords = {name: _argument(value, written) for name, value in form.keywords.items()}
    return call(_named(form.func, written), X, key, **keywords)


def _argument(value: Any, written: Written) -> Node:
    if isinstance(value, partial):
        if not value.keywords:
            return _named(value.func, written)
        keywords = {name: _argument(inner, written) for name, inner in value.keywords.items()}
        return call("partial", _named(value.func, written), **keywords)
    if inspect.isfunction(value):
        return _named(value, written)
    if isinstance(value, Padding):
        keywords = {name: _argument(inner, written) for name, inner in vars(value).items()}
        return call(_named(Padding, written), **keywords)
    if isinstance(value, list | tuple) and any(isinstance(each, partial) for each in value):
        return Bracketed([("", _argument(each, written)) for each in value], bracket="[")
    try:
        return literal(value)
    except TypeError as error:
        raise Unwritable(f"a container of {type(value).__name__} beside random transforms") from error


def _named(function: Any, written: Written) -> str:
    if function.__module__.startswith(OURS):
        return written.ours.name(function)
    return f"v2.functional.{function.__name__}"
