"""Weights as safetensors: names, shapes, bits, and a header of strings."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(state: Mapping[str, Tensor], header: Mapping[str, str], path: Path) -> None:
    """What has several names is written once. The header then has `other name: name` for each of the others,
    as `safetensors.torch.save_model` does, so that its `load_model` ties them again."""
    kept, twins = without_twins(state)
    # `format` is read by other libraries: whose tensors these are.
    save_file(kept, path, metadata={"format": "pt", **header, **twins})


def read(path: Path) -> dict[str, Tensor]:
    """Every name, also those that share their numbers with another."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        header = file.metadata()
    return tensors | {name: tensors[kept] for name, kept in header.items() if kept in tensors}


def without_twins(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by the first of their names, contiguous; and that name by each of the others."""
    name_of: dict[tuple[object, ...], str] = {}
    kept: dict[str, Tensor] = {}
    twins: dict[str, str] = {}
    for name in sorted(state):
        tensor = state[name]
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in name_of:
            twins[name] = name_of[place]
        else:
            name_of[place] = name
            kept[name] = tensor.contiguous()
    return kept, twins


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names that only one has, or whose dtype, shape or bits differ."""
    names = sorted({*one, *other})
    return [name for name in names if name not in one or name not in other or _differ(one[name], other[name])]


def _differ(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return True
    # As bytes: what is no number differs from itself.
    return not torch.equal(*(part.contiguous().reshape(-1).view(torch.uint8) for part in (one, other)))
