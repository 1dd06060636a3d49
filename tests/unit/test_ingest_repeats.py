"""How often values come, where they are too many to list."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from core.data.manifest import ColumnStats
from workers.ingest import repeats
from workers.ingest.columns import Summary


def summary(*arrays: pa.Array) -> ColumnStats:
    found = Summary()
    for array in arrays:
        found.add(array)
    return found.result()


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_the_sizes_of_many_groups_are_counted_over_all_parts(
    kind: pa.DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "MAX_COUNTED_VALUES", 6000)  # so that parts are merged on the way
    values = np.random.default_rng(3).integers(0, 5000, 40_000)
    parts = [pa.array(part).cast(kind) for part in np.array_split(values, 13)]
    stats = summary(*parts)
    assert stats.values is None
    assert stats.repeats == sorted(Counter(Counter(values.tolist()).values()).items())


def test_few_values_are_listed_and_their_repeats_are_not() -> None:
    stats = summary(pa.array([1, 1, 2]))
    assert (stats.values, stats.repeats) == ([(1, 2), (2, 1)], None)


def test_of_quantities_and_of_too_many_values_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert summary(pa.array(np.arange(2000.0))).repeats is None
    monkeypatch.setattr(repeats, "MAX_COUNTED_VALUES", 1500)
    assert summary(pa.array(range(2000)), pa.array(range(10))).repeats is None
    assert summary(pa.array(range(1500)), pa.array(range(10))).repeats == [(1, 1490), (2, 10)]
