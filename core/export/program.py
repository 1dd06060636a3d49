"""A graph as `torch.export` writes it."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from core.export.graph import Traced, not_exportable

#: What the archive says of itself, beside the graph.
ABOUT = "modelyard.json"


def write(traced: Traced, header: Mapping[str, str], path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(traced.program, path, extra_files={ABOUT: msgspec.json.encode(header).decode()})
    except Exception as error:
        raise not_exportable("torch.export.save", error) from error


def answers(path: Path, batches: Sequence[Sequence[Tensor]]) -> Tensor:
    """[B, …] of all batches one after another, by the graph as it is read back."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        net = torch.export.load(path).module()
        return torch.cat([net(*batch) for batch in batches])
