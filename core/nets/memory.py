"""How much memory a step takes: what autograd saves for the backward pass, counted on meta tensors."""

from collections.abc import Iterable
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedTensors:
    """A context that notes every tensor autograd saves in it. Storages shared by views count once."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._hooks = saved_tensors_hooks(self.note, lambda tensor: tensor)

    def __enter__(self) -> "SavedTensors":
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def note(self, tensor: Tensor) -> Tensor:
        # Held until the end: a freed storage's address would be given out again.
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage
        return tensor

    def bytes_without(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of all noted storages but those of `tensors` (parameters are counted on their own)."""
        known = {tensor.untyped_storage()._cdata for tensor in tensors}
        return sum(storage.nbytes() for key, storage in self._storages.items() if key not in known)


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def net_bytes(layers: Iterable[nn.Module]) -> tuple[int, int, int]:
    """Bytes of parameters, of their gradients, of buffers."""
    parameters = gradients = buffers = 0
    for layer in layers:
        parameters += tensor_bytes(layer.parameters())
        gradients += tensor_bytes(p for p in layer.parameters() if p.requires_grad)
        buffers += tensor_bytes(layer.buffers())
    return parameters, gradients, buffers
