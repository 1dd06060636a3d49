"""Opens a dataset's `data.arrow` without reading it, and takes rows out of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.data.manifest import Kind, Manifest

# N rows


def open_table(path: Path) -> pa.Table:
    """Memory-mapped: columns cost address space, and memory only where they are touched."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def array_column(table: pa.Table, name: str, manifest: Manifest) -> NDArray[Any]:
    """[N, *shape] of a fixed_size_list column, or [N] of a scalar one: a view of the file where it holds
    one batch of numbers, else a copy."""
    column = table.column(name).combine_chunks()
    shape = manifest.features[name].shape
    if pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.reshape(table.num_rows, *shape)


def instances(
    table: pa.Table, manifest: Manifest, columns: list[str], rows: NDArray[np.int64]
) -> Iterator[bytes | dict[str, Any] | NDArray[Any]]:
    """These rows in this order: an image's bytes, a row object of `columns`, or an array."""
    taken = table.select(_read_columns(manifest, columns)).take(pa.array(rows))
    match manifest.kind:
        case Kind.IMAGES:
            yield from taken.column("image").to_pylist()
        case Kind.TABLE:
            yield from taken.to_pylist()
        case Kind.ARRAYS:
            yield from array_column(taken, columns[0], manifest)


def _read_columns(manifest: Manifest, columns: list[str]) -> list[str]:
    return ["image"] if manifest.kind is Kind.IMAGES else columns
