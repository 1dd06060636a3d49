"""How many bytes a training step holds at its peak, told by a step on the meta device.

Bytes of tensors, on a CPU and in fp32. A step has three times at which much is held beside what always is
(parameters P, buffers, the optimizer's state S); the peak is the highest of them:

    P + S + max(pass, G + x + scratch, G + 2 x)

- pass: the net forward, the loss, and backward. Saved activations grow on the way forward; on the way back
  they go as gradients G of the parameters come, beside the gradients of two layers' outputs. So the highest
  point is at the turn for a net with large images, and near the first layer, or at a wide head, for one with
  many parameters. It isn't computed by a formula: `LiveTensors` watches that pass on the meta device, where
  each storage is born and dies as it does in training and has no bytes. One that tensors share counts once.
- the optimizer's step: all gradients, the batch x (inputs and targets, which the loop holds), and what the
  step computes for one parameter at a time (`trial.try_step`).
- the next batch is made while the last one and all gradients are still there.

Not counted: what a kernel takes and gives back within one operation, the dataset itself, transforms.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor, nn

from core.nets.meta import QuickMeta
from core.nets.objective import meet

# B rows in the batch


class OptimizerBytes(Struct, frozen=True):
    """What an optimizer keeps from step to step, and what it holds for the time of a step."""

    state: int = 0
    scratch: int = 0


def tensor_bytes(tensor: Tensor) -> int:
    """Of its whole storage."""
    return tensor.untyped_storage().nbytes()


class LiveTensors(QuickMeta):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Within it, `now` is the bytes of all storages born in it that live, `peak` the most there were. Those
    of `known` tensors aren't counted. `size` of the first tensor that shows a storage is the storage's."""

    def __init__(self, known: Iterable[Tensor] = (), size: Callable[[Tensor], int] = tensor_bytes) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._size = size
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in known:
            self._watch(tensor, 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.note(out)
        return out

    def note(self, out: Any) -> None:
        if isinstance(out, Tensor):
            self._watch(out, None)
        elif isinstance(out, tuple | list):
            for part in out:
                self.note(part)

    def _watch(self, tensor: Tensor, size_bytes: int | None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        counted = self._size(tensor) if size_bytes is None else size_bytes

        def forget(_: object) -> None:
            # The address will be given out again.
            del self._alive[key]
            self.now -= counted

        self._alive[key] = weakref.ref(storage, forget)
        self.now += counted
        self.peak = max(self.peak, self.now)


def step_bytes(
    net: nn.Module, loss: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, optimizer: OptimizerBytes
) -> int:
    """The peak of a training step; all tensors are on meta, and `net` is in train mode with what is frozen
    frozen. Leaves gradients in it."""
    held = [*net.parameters(), *net.buffers(), *loss.buffers()]
    batch = sum(tensor_bytes(tensor) for tensor in (*inputs, targets))
    with LiveTensors(known=held) as live:
        live.note((*inputs, targets))
        try:
            outputs = net(*inputs)
            loss_mean = loss(outputs, meet(outputs, targets))
            del outputs
            loss_mean.backward()
            peak, after = live.peak, live.now
        except RuntimeError:
            # A loss that looks at its numbers (BCELoss, GaussianNLLLoss), of which meta has none, or an
            # operation without a kernel for meta: all that lived and all gradients at once. What spoils a
            # gradient is told by `inplace.py`, not lost here.
            gradients = sum(tensor_bytes(each) for each in net.parameters() if each.requires_grad)
            peak, after = live.peak + gradients, batch + gradients
    highest: int = max(peak, after + max(optimizer.scratch, batch))
    return held_bytes(held) + optimizer.state + highest


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """A storage that tensors share counts once."""
    storages = {tensor.untyped_storage()._cdata: tensor_bytes(tensor) for tensor in tensors}
    return sum(storages.values())
