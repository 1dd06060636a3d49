"""The pixels of a dataset, or its arrays, as a pipeline takes them: after the prefix, in memory or in a map.

Whoever has the same `Reading` gets the same rows: the attempt, and each of its data workers.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data.arrow import array_column, open_table
from core.data.images import Mode, decode_image, is_channels_last
from core.data.manifest import Kind, Manifest
from core.data.packed import Prefix, Progress, packed, packed_images, silent
from core.nets.transforms import Component, Pipeline

# N rows of the dataset, C channels, H height, W width

#: Arrays of uint8 of at most so many bytes are held in memory; more are packed into the cache.
MAX_HELD_BYTES = 256 * 1024 * 1024
#: Images that differ in size and would take more than this are decoded anew each time they are read.
MAX_PACKED_BYTES = 32 * 1024**3
PREFIX_ROWS = 256


class Differing(Protocol):
    """Images that differ in size. `read` gives [C, H, W] of one, and many threads may read at once."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Encoded:
    """Images as they were uploaded: too many pixels to keep."""

    images: pa.ChunkedArray
    mode: Mode
    prefix: Prefix

    def __len__(self) -> int:
        return len(self.images)

    def read(self, row: int) -> NDArray[np.uint8]:
        return self.prefix(decode_image(self.images[row].as_py(), self.mode))


#: [N, …], or images that differ in size.
Inputs = Tensor | Differing


@dataclass(frozen=True)
class Reading:
    """The column `name` through the prefix of `transforms`, a resolved list. Where images `may_differ` in
    size the rest of it gives them one."""

    arrow: Path
    manifest: Manifest
    name: str
    transforms: Sequence[Component]
    cache: Path
    threads: int
    may_differ: bool = False

    def open(self, progress: Progress = silent) -> Inputs:
        """uint8 images, or float32. The first to ask waits until they are packed."""
        table, pipeline = open_table(self.arrow), Pipeline.from_spec(self.transforms)
        if self.manifest.kind is Kind.ARRAYS:
            return self._arrays(array_column(table, self.name, self.manifest), pipeline, progress)

        def prefix(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return pipeline.apply_prefix(torch.from_numpy(pixels)).numpy()

        mode: Mode = "L" if self.manifest.image_mode == "L" else "RGB"
        key, differ = self._key(mode, pipeline), self.may_differ
        if differ and self._packed_bytes(pipeline) > MAX_PACKED_BYTES:
            return Encoded(table.column(self.name), mode, prefix)
        found = packed_images(
            table, mode, prefix, key, self.cache, self.threads, may_differ=differ, progress=progress
        )
        return torch.from_numpy(found.array()) if found.is_one_size else found

    def _arrays(self, values_N: NDArray[Any], pipeline: Pipeline, progress: Progress) -> Tensor:
        if values_N.dtype != np.uint8 or values_N.ndim < 3:
            return torch.from_numpy(values_N.astype(np.float32))
        images = as_images(values_N)
        if not pipeline.prefix and images.nbytes <= MAX_HELD_BYTES:
            return _viewed(np.ascontiguousarray(images))

        def prefixed() -> Iterator[NDArray[np.uint8]]:
            for start in range(0, len(images), PREFIX_ROWS):
                rows = np.ascontiguousarray(images[start : start + PREFIX_ROWS])
                yield pipeline.apply_prefix(_viewed(rows)).numpy()

        key = self._key(self.name, pipeline)
        return torch.from_numpy(packed(prefixed, len(images), key, self.cache, progress=progress).array())

    def _packed_bytes(self, pipeline: Pipeline) -> int:
        channels = 1 if self.manifest.image_mode == "L" else 3
        return sum(
            math.prod(pipeline.prefix_shape((channels, height, width))) * count
            for height, width, count in self.manifest.image_sizes
        )

    def _key(self, what: str, pipeline: Pipeline) -> str:
        return f"{self.manifest.data_sha256}/{what}/{pipeline.prefix_key()}"


def as_images(values_N: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A view of uint8 [N, …] as `core.predict.array_row` reads each row: a matrix is an image of one channel,
    and [H, W, C] is turned to [C, H, W]."""
    if is_channels_last(values_N.shape[1:]):
        return values_N.transpose(0, 3, 1, 2)
    return values_N[:, None] if values_N.ndim == 3 else values_N


def _viewed(values: NDArray[np.uint8]) -> Tensor:
    with warnings.catch_warnings():
        # A view of Arrow's memory is read-only, of which torch warns: rows are taken from it, never written.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(values)
