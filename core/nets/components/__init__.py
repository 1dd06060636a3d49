"""The allow-lists: which of torch's classes a spec may name, and where their signatures need a word."""

from core.nets.components import (
    architectures,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    preparations,
    samplers,
    schedulers,
    target_transforms,
    transforms,
)
from core.nets.components.family import Extra, Family, joined

#: What stands where a net is expected: a layer, a container, or a whole architecture.
MODEL = joined("model", layers.FAMILY, architectures.FAMILY)
#: A component of a Graph: a member of MODEL with a name and inputs.
NODE = joined(
    "node",
    layers.FAMILY,
    architectures.FAMILY,
    extras={
        "*.name": Extra("how other nodes refer to it", str),
        "*.inputs": Extra("inputs of the net, or earlier nodes", list[str]),
        "*.share": Extra("nodes of one key are one module", str | None, None),
    },
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        layers.FAMILY,
        architectures.FAMILY,
        initializers.FAMILY,
        losses.FAMILY,
        metrics.FAMILY,
        optimizers.FAMILY,
        samplers.FAMILY,
        schedulers.FAMILY,
        target_transforms.FAMILY,
        transforms.FAMILY,
        preparations.FAMILY,
        MODEL,
        NODE,
    )
}

#: The families in which a member of another stands too.
JOINED = {"layer": ("model", "node"), "architecture": ("model", "node")}
