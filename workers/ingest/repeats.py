"""How often the values of a column come, where they are too many to list: the sizes of groups by it."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Of a column with more distinct values nothing is told. Each takes 16 bytes.
MAX_COUNTED_VALUES = 200_000

# V distinct values


class Repeats:
    """Counts values by a hash of 64 bits, fed count by count. Of `MAX_COUNTED_VALUES` two share one with a
    chance of 1e-9."""

    def __init__(self) -> None:
        self._hashes_V = np.zeros(0, dtype=np.int64)
        self._counts_V = np.zeros(0, dtype=np.int64)
        self._added: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._is_over = False

    def add(self, counts: pa.StructArray) -> None:
        """What `value_counts` gives of integers or strings."""
        if self._is_over or len(counts) == 0:
            return
        values, numbers = counts.field(0), counts.field(1).to_numpy(zero_copy_only=False)
        if pa.types.is_integer(values.type):
            hashes = values.to_numpy(zero_copy_only=False).astype(np.int64)
        else:
            hashes = np.fromiter((hash(value) for value in values.to_pylist()), np.int64, len(values))
        self._added.append((hashes, numbers.astype(np.int64)))
        # Merged now and then: each merge sorts all values so far.
        if sum(len(added) for added, _ in self._added) > MAX_COUNTED_VALUES:
            self._merge()

    def result(self) -> list[tuple[int, int]] | None:
        """(rows, how many values have so many), by rows; None where there are too many values."""
        self._merge()
        if self._is_over:
            return None
        sizes, numbers = np.unique(self._counts_V, return_counts=True)
        return list(zip(sizes.tolist(), numbers.tolist(), strict=True))

    def _merge(self) -> None:
        hashes = np.concatenate([self._hashes_V, *(added for added, _ in self._added)])
        counts = np.concatenate([self._counts_V, *(numbers for _, numbers in self._added)])
        self._hashes_V, place = np.unique(hashes, return_inverse=True)
        self._counts_V = np.bincount(place, weights=counts).astype(np.int64)
        self._added = []
        if len(self._hashes_V) > MAX_COUNTED_VALUES:
            self._hashes_V, self._counts_V, self._is_over = self._hashes_V[:0], self._counts_V[:0], True
