"""Pretrained weights into an architecture: torchvision's own, or a `state_dict` that a user uploaded.

The head (the last module with parameters) may have another number of classes; it then keeps its first
weights. All else must fit to the name and the shape.
"""

import pickle
import socket
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from msgspec import Struct
from torch import Tensor, nn
from torchvision import models

from core.nets import artifacts
from core.nets.components import architectures
from core.nets.components.layers import GRAPH, PARALLEL, RESIDUAL, SEQUENTIAL
from core.nets.modules.graph import key_of
from core.nets.safetensors_file import BadTensors, is_safetensors, read_tensors

Component = dict[str, Any]

FETCH_TIMEOUT_S = 60.0
#: Auxiliary heads of googlenet and inception_v3: they only train, and are not built here.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
#: What the kernel says where a file can't be mapped, and torch hands on.
_OUT_OF_MEMORY = "Cannot allocate memory"


#: Names of one kind of difference that a message lists.
_MAX_NAMED = 3


class WeightsMismatch(Exception):
    """The weights can't be had, or are not those of the architecture."""


class Differences(Struct, frozen=True):
    """Between the `state_dict` of an architecture and another one. `reshaped` are (name, shape that came,
    shape expected). `kept` are the head's parameters where it has another size: they keep their first
    values, and are no fault."""

    num_expected: int
    lacking: list[str]
    extra: list[str]
    reshaped: list[tuple[str, list[int], list[int]]]
    kept: list[str]

    def tell(self, kind: str) -> str | None:
        """A sentence with every sort of difference; None where the weights fit."""
        told = _told(self.lacking, self.extra, self.reshaped)
        return told and f"these are not the weights of {kind} ({self.num_expected} names): {told}"


def load_pretrained(net: nn.Module, model: Component, files: Mapping[str, Path], cache: Path) -> list[str]:
    """Loads what the components of a resolved model ask for; `files` are local uploads by id. Returns the
    names of the parameters that keep their first values, because the number of classes differs. Raises
    WeightsMismatch."""
    kept: list[str] = []
    for path, component in architectures_in(model):
        if component["weights"] is not None:
            state = _state_of(component, files, cache)
            kept += [
                f"{path}.{name}".lstrip(".") for name in _load(net.get_submodule(path), component, state)
            ]
    return kept


def architectures_in(model: Component, path: str = "") -> Iterator[tuple[str, Component]]:
    """Each architecture of a model with the name of its module."""
    kind = model["type"]
    if kind in architectures.NAMES:
        yield path, model
    children: list[tuple[str, Component]] = []
    if kind == SEQUENTIAL:
        children = [(str(place), child) for place, child in enumerate(model["layers"])]
    elif kind == RESIDUAL:
        for word in ("layers", "shortcut"):
            children += [(f"{word}.{place}", child) for place, child in enumerate(model[word] or [])]
    elif kind == PARALLEL:
        children = [(f"branches.{place}", child) for place, child in enumerate(model["branches"])]
    elif kind == GRAPH:
        children = list({key_of(node): node for node in reversed(model["nodes"])}.items())[::-1]
    for name, child in children:
        yield from architectures_in(child, f"{path}.{name}" if path else name)


def differences(module: nn.Module, state: Mapping[str, Tensor]) -> Differences:
    """Names and shapes alone: the module may be on meta."""
    expected = module.state_dict()
    state = _without_auxiliary(state)
    differing = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    head = _head(module)
    wrong = [name for name in differing if name.rpartition(".")[0] != head]
    # A head of another size is left whole: half of one fits nothing.
    kept = [name for name in expected if differing and name.rpartition(".")[0] == head]
    return Differences(
        num_expected=len(expected),
        lacking=sorted(expected.keys() - state.keys()),
        extra=sorted(state.keys() - expected.keys()),
        reshaped=[(name, list(state[name].shape), list(expected[name].shape)) for name in wrong],
        kept=kept,
    )


def strangeness(module: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """What a `state_dict` lacks or has beside a module's own, by name and shape; None where it fits."""
    expected = module.state_dict()
    common = expected.keys() & state.keys()
    reshaped = [
        (name, list(state[name].shape), list(expected[name].shape))
        for name in expected
        if name in common and state[name].shape != expected[name].shape
    ]
    lacking, extra = sorted(expected.keys() - common), sorted(state.keys() - common)
    return _told(lacking, extra, reshaped)


def read_state(path: Path, upload_id: str, *, is_mapped: bool = False) -> dict[str, Tensor]:
    """The `state_dict` in an upload, torch's or safetensors'. Raises WeightsMismatch; MemoryError or OSError
    where that is the machine's fault. With `is_mapped` no number is read before it is looked at."""
    try:
        state = read_tensors(path) if is_safetensors(path) else artifacts.load(path, is_mapped=is_mapped)
    except (OSError, MemoryError):
        raise
    except BadTensors as error:
        raise WeightsMismatch(f"the upload {upload_id} {error}") from error
    except Exception as error:  # bytes that are none of torch's make its reader stumble over anything
        if _OUT_OF_MEMORY in str(error):
            raise MemoryError(str(error)) from error
        raise WeightsMismatch(
            f"the upload {upload_id} is no state_dict that torch.load(weights_only=True) reads: save "
            "it with torch.save(model.state_dict(), …), or as safetensors"
        ) from error
    if not isinstance(state, dict) or not all(_is_named(*item) for item in state.items()):
        raise WeightsMismatch(
            f"the upload {upload_id} holds no state_dict (names to tensors): save it with "
            "torch.save(model.state_dict(), …)"
        )
    return state


def _state_of(component: Component, files: Mapping[str, Path], cache: Path) -> dict[str, Tensor]:
    kind, weights = component["type"], component["weights"]
    if weights == "DEFAULT":
        return _fetch_default(kind, cache)
    path = files.get(weights["upload"])
    if path is None:
        raise WeightsMismatch(
            f"the upload {weights['upload']} with the weights of {kind} is gone: upload it again"
        )
    # Names and shapes are compared before a number is read, where the format allows it.
    return read_state(path, weights["upload"], is_mapped=zipfile.is_zipfile(path))


def _is_named(name: object, value: object) -> bool:
    """Whether it is a parameter with numbers, as layers have them."""
    is_plain = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
    return isinstance(name, str) and is_plain


def _fetch_default(kind: str, cache: Path) -> dict[str, Tensor]:
    """torchvision's best weights, from the cache or the network; the file name carries their hash."""
    chosen = models.get_model_weights(kind).DEFAULT
    folder = cache / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_TIMEOUT_S)
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            chosen.url,
            model_dir=str(folder),
            map_location="cpu",
            progress=False,
            check_hash=True,
            weights_only=True,
        )
    except (URLError, OSError) as error:
        name = chosen.url.rsplit("/", 1)[-1]
        raise WeightsMismatch(
            f"the weights DEFAULT of {kind} could not be fetched from {chosen.url} ({error}): a worker needs "
            f"the network for them. Without one, put {name} into {folder}, or upload a state_dict and say "
            '{"upload": "<its id>"}'
        ) from error
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsMismatch(f"the weights fetched from {chosen.url} are damaged: {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    return state


def _load(module: nn.Module, component: Component, state: dict[str, Tensor]) -> list[str]:
    found = differences(module, state)
    if (told := found.tell(component["type"])) is not None:
        raise WeightsMismatch(told)
    kept = set(found.kept)
    fitting = {name: value for name, value in _without_auxiliary(state).items() if name not in kept}
    module.load_state_dict(fitting, strict=False)
    return found.kept


def _without_auxiliary(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(_AUXILIARY)}


def _head(module: nn.Module) -> str:
    """The name of the module that holds the last parameter."""
    names: list[str] = [name.rpartition(".")[0] for name, _ in module.named_parameters()]
    return names[-1]


def _told(
    lacking: list[str], extra: list[str], reshaped: list[tuple[str, list[int], list[int]]]
) -> str | None:
    sizes = [f"{name} is {came}, expected {expected}" for name, came, expected in reshaped]
    parts = [
        f"{verb}{_some(names)}"
        for verb, names in (("it lacks ", lacking), ("it also has ", extra), ("", sizes))
        if names
    ]
    return "; ".join(parts) or None


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (f", … ({len(names)})" if len(names) > _MAX_NAMED else "")
