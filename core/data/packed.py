"""The packed cache: decoded images after the deterministic prefix of their transforms, as one
memory-mapped uint8 array that jobs share. Memory does not grow with the dataset: pages come and go.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.data.images import Mode, decode_image
from core.errors import Invalid

#: [C, H, W] uint8 -> [C, H, W] uint8
Prefix = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

CHUNK_ROWS = 256


def packed_images(
    table: pa.Table, mode: Mode, prefix: Prefix, key: str, folder: Path, threads: int
) -> NDArray[np.uint8]:
    """[N, C, H, W], read from the cache or computed into it.

    `key` names the dataset's bytes and the prefix. Two jobs that miss at once both compute it and the
    later rename wins: the content is the same.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, table, mode, prefix, threads)
    os.utime(path)  # what is used stays when the cache is pruned
    # "c": a private copy on write; torch refuses to wrap memory that is read-only.
    packed: NDArray[np.uint8] = np.load(path, mmap_mode="c")
    return packed


def _write(path: Path, table: pa.Table, mode: Mode, prefix: Prefix, threads: int) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    column = table.column("image")
    shape = prefix(decode_image(column[0].as_py(), mode)).shape
    try:
        packed = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(table.num_rows, *shape)
        )
        with temporary.open("r+b") as file:
            # A full disk raises here; in the middle of the map it would be a SIGBUS.
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)

        def decode(row: int) -> None:
            pixels = prefix(decode_image(column[row].as_py(), mode))
            if pixels.shape != shape:  # numpy would stretch a single row or channel over the rest
                raise Invalid(f"image {row} is {pixels.shape} after its transforms, the first is {shape}")
            packed[row] = pixels

        with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without the interpreter's lock
            for _ in pool.map(decode, range(table.num_rows), chunksize=CHUNK_ROWS):
                pass
        packed.flush()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
