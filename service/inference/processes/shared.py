"""Memory that two processes see: one stacks a batch there, the other writes its answers in the same place.

Whose turn it is, messages say; there is no lock. It has no name, so nothing is left of it once both are gone.
"""

import mmap
import os
from collections.abc import Sequence

import torch
from msgspec import Struct
from torch import Tensor

MIB = 1024 * 1024

#: Tensors begin at multiples of it, as torch's own do.
ALIGNMENT = 64
FIRST_BYTES = MIB
#: What a batch beyond it has touched is given back after its forward.
KEPT_BYTES = 16 * MIB


class Layout(Struct, frozen=True, array_like=True):
    """Of one tensor there; the next begins behind it."""

    dtype: str
    shape: list[int]


class Shared:
    """Grows as batches do. What nobody has written to takes no memory."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)

    @classmethod
    def create(cls) -> "Shared":
        descriptor = os.memfd_create("modelyard-batch")
        os.ftruncate(descriptor, FIRST_BYTES)
        return cls(descriptor)

    @property
    def size_bytes(self) -> int:
        return len(self._memory)

    def reach(self, size_bytes: int) -> None:
        """Has at least so many bytes, after the other side has, or before."""
        if size_bytes <= len(self._memory):
            return
        if os.fstat(self.descriptor).st_size < size_bytes:
            os.ftruncate(self.descriptor, 1 << (size_bytes - 1).bit_length())
        # Tensors that are still in the old mapping keep it.
        self._memory = mmap.mmap(self.descriptor, 0)

    def stack(self, rows: Sequence[tuple[Tensor, ...]]) -> list[Layout]:
        """Each input's rows as one tensor, of the same shape or RuntimeError as torch says it. One copy,
        which a forward in the same process makes too."""
        self.reach(sum(_aligned(part.nbytes * len(rows)) for part in rows[0]))
        layouts, offset = [], 0
        for part in zip(*rows, strict=True):
            layout = Layout(_name_of(part[0].dtype), [len(part), *part[0].shape])
            torch.stack(part, out=self._at(offset, layout))
            layouts.append(layout)
            offset += _aligned(part[0].nbytes * len(part))
        return layouts

    def put(self, tensor: Tensor) -> Layout:
        self.reach(tensor.nbytes)
        layout = Layout(_name_of(tensor.dtype), list(tensor.shape))
        self._at(0, layout).copy_(tensor)
        return layout

    def views(self, layouts: Sequence[Layout]) -> list[Tensor]:
        """What is there, until somebody writes again."""
        found, offset = [], 0
        for layout in layouts:
            tensor = self._at(offset, layout)
            found.append(tensor)
            offset += _aligned(tensor.nbytes)
        return found

    def take(self, layout: Layout) -> Tensor:
        """A copy of what is there, and the room of a large batch given back."""
        taken = self._at(0, layout).clone()
        if len(self._memory) > KEPT_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE)
        return taken

    def close(self) -> None:
        os.close(self.descriptor)

    def _at(self, offset: int, layout: Layout) -> Tensor:
        dtype: torch.dtype = getattr(torch, layout.dtype)
        count = 1
        for size in layout.shape:
            count *= size
        if count == 0:  # torch makes no view of nothing
            return torch.empty(layout.shape, dtype=dtype)
        flat = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=offset)
        return flat.view(layout.shape)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT
