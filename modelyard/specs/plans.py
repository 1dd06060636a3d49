"""A plan: a dry run of a job."""

from typing import Any

from msgspec import Struct


class Layer(Struct, frozen=True):
    """`path` is the prefix of the layer's keys in the `state_dict`; `output_shape` has the batch first."""

    path: str
    type: str
    output_shape: list[int]
    parameters: int
    trainable: bool


class ResolvedTransforms(Struct, frozen=True):
    train: list[dict[str, Any]]
    eval: list[dict[str, Any]]


class Plan(Struct):
    """`memory_bytes` counts parameters, gradients, optimizer state and the activations of one batch."""

    spec: dict[str, Any]
    layers: list[Layer]
    transforms: ResolvedTransforms
    parameters: int
    trainable: int
    steps_per_epoch: int
    steps: int
    memory_bytes: int
    estimated_seconds: float | None
    warnings: list[str]
