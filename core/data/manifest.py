"""The manifest: what a dataset version holds, written once by ingest, read by everybody. No torch, no Arrow.

A version is two files: `data.arrow` (Arrow IPC file, one row a sample, rows grouped by split in the
order of `splits`) and `manifest.json` (this struct).

Columns of `data.arrow` by `kind`:

- images: `image` binary (the bytes as uploaded), `label` int64 (index into `classes`) or float64 (a
          quantity; `classes` is None), `file` string, then further columns of the upload, typed as a table's
- table:  the columns of the upload, typed int64 | float64 | string | bool, nulls where missing
- arrays: `x` and `y`, each fixed_size_list of its dtype (row-major; shape in `features`), or a scalar
          column where a row is a scalar; an integer `y` holds indices into `classes`
"""

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from modelyard.specs import Feature

SPLIT_ORDER = ("train", "val", "test")

#: Distinct values of a table's column are listed up to this many; beyond it `values` is absent.
MAX_LISTED_VALUES = 1000

#: Values of a column that a split has and the training split lacks are listed up to this many.
MAX_UNSEEN_VALUES = 20


class Kind(StrEnum):
    IMAGES = "images"
    TABLE = "table"
    ARRAYS = "arrays"


class ColumnStats(Struct, frozen=True, omit_defaults=True):
    """Statistics of one column over the training split.

    `values` are the distinct non-missing values with their counts, sorted (numbers as numbers,
    strings by codepoint), where there are at most `MAX_LISTED_VALUES`; a column of free text lists none.
    Where an integer or a string has more, `repeats` are (rows, how many values come in so many rows).
    """

    count: int
    missing: int = 0
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    values: list[tuple[Any, int]] | None = None
    repeats: list[tuple[int, int]] | None = None


class Manifest(Struct, frozen=True):
    """`splits` maps a split to its rows, in the order they stand in the file.

    Images: `image_mode` is "L" if all are L, else "RGB"; `features["image"].shape` is [C, H, W] with -1
    where sizes differ; `image_sizes` lists [H, W, count], the most frequent first, at most 200;
    `channel_mean` and `channel_std` are over the training split, pixels scaled to 0..1.

    Tables: `text_columns` are the string columns that hold free text, of which nothing is learned here.
    Of the splits other than train, only columns with something to tell stand in `splits_missing` (how many
    rows lack a value) and `splits_unseen` (up to `MAX_UNSEEN_VALUES` values that no training row has, of
    columns of strings, bools and integers whose training values are listed).
    """

    format: str
    kind: Kind
    splits: dict[str, int]
    features: dict[str, Feature]
    data_sha256: str
    data_bytes: int
    classes: list[str] | None = None
    class_counts: dict[str, list[int]] = field(default_factory=dict)
    image_mode: str | None = None
    image_sizes: list[tuple[int, int, int]] = field(default_factory=list)
    channel_mean: list[float] | None = None
    channel_std: list[float] | None = None
    columns: dict[str, ColumnStats] = field(default_factory=dict)
    text_columns: list[str] = field(default_factory=list)
    splits_missing: dict[str, dict[str, int]] = field(default_factory=dict)
    splits_unseen: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        return sum(self.splits.values())

    def rows_of(self, split: str) -> range:
        """Where a split's rows stand in `data.arrow`; empty where there is no such split."""
        start = 0
        for name, count in self.splits.items():
            if name == split:
                return range(start, start + count)
            start += count
        return range(0)
