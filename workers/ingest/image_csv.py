"""Images and CSVs that name them: a path and a label a row, one CSV a split."""

import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.data.manifest import Manifest
from core.errors import Invalid
from workers.ingest import csv_text
from workers.ingest.archives import Tree
from workers.ingest.image_columns import Row
from workers.ingest.images import write_images
from workers.ingest.names import CSV_SUFFIXES, files_by_split, suffix_of
from workers.ingest.options import ImageCsvOptions
from workers.ingest.problems import Problems, row_pointer
from workers.ingest.table_files import check_columns

MAX_CSV_BYTES = 256 * 1024 * 1024
#: What a label column is called; the first that is there is taken.
LABEL_NAMES = ("label", "class", "target", "labels", "class_name", "category", "y")
#: Columns of every dataset of images; no further column may be called so.
RESERVED = ("image", "label", "file")

# Rows looked at to find which column holds the paths.
_SAMPLE_ROWS = 20


class _Columns(NamedTuple):
    """Where the columns stand; `others` are the further ones, by name."""

    path: int
    label: int
    others: dict[str, int]


def ingest(tree: Tree, out: Path, options: ImageCsvOptions) -> Manifest:
    """The columns are found by what they hold and are called, where they are not named. Where there are more
    than the two, all but the path are kept under their own names."""
    csvs = _csv_of_splits(tree)
    index = _Index(tree)
    problems = Problems()
    others: dict[str, list[str]] = {}
    rows = {}
    for split, name in csvs.items():
        rows[split], others[name] = _read(tree, name, index, options, problems)
    problems.raise_any()
    return write_images(tree, rows, "image_csv", out, _agreed(others), options.label)


def _csv_of_splits(tree: Tree) -> dict[str, str]:
    names = sorted(name for name in tree.sizes if suffix_of(name) in CSV_SUFFIXES)
    if not names:
        raise Invalid("expected a CSV of path,label beside the images, found none", code="no_csv")
    return files_by_split(names)


def _read(
    tree: Tree, name: str, index: "_Index", options: ImageCsvOptions, problems: Problems
) -> tuple[list[Row], list[str]]:
    """The rows, and the names of the further columns."""
    if tree.sizes[name] > MAX_CSV_BYTES:
        raise Invalid(f"{name}: expected at most {MAX_CSV_BYTES} bytes", code="too_large")
    table = csv_text.parse(csv_text.decode(tree.read(name), name), name)
    folder = posixpath.dirname(name)
    if not table:
        raise Invalid(f"{name}: expected rows of path,label; the file is empty", code="empty_dataset")
    is_named = options.image_column is not None or options.label_column is not None
    has_header = is_named or not any(index.find(cell, folder) for cell in table[0])
    columns = _find_columns(name, table, has_header, folder, index, options)
    rows = []
    for number, cells in enumerate(table[1:] if has_header else table, start=1):
        pointer = row_pointer(name, number)
        if len(cells) != len(table[0]):
            problems.add(pointer, "bad_csv", f"expected {len(table[0])} cells, got {len(cells)}")
            continue
        path, label = cells[columns.path], cells[columns.label]
        file = index.find(path, folder)
        if not label:
            problems.add(pointer, "missing_label", f"expected a label for {path!r}, the cell is empty")
        elif file is None:
            problems.add(pointer, "missing_file", index.why_missing(path))
        else:
            others = tuple(cells[position] or None for position in columns.others.values())
            rows.append(Row(file, label, pointer, others))
    return rows, list(columns.others)


def _find_columns(
    name: str,
    table: Sequence[Sequence[str]],
    has_header: bool,
    folder: str,
    index: "_Index",
    options: ImageCsvOptions,
) -> _Columns:
    header = table[0]
    if options.image_column is not None:
        path = _position(name, header, options.image_column)
    else:
        path = _path_position(table[1:] if has_header else table, len(header), folder, index)
    if options.label_column is not None:
        label = _position(name, header, options.label_column)
    else:
        label = _label_position(name, header, has_header, path)
    return _Columns(path, label, _others(name, header, path, label) if has_header else {})


def _path_position(rows: Sequence[Sequence[str]], num_columns: int, folder: str, index: "_Index") -> int:
    """The column whose first cells name the most files."""
    sample = rows[:_SAMPLE_ROWS]
    hits = [
        sum(column < len(cells) and index.find(cells[column], folder) is not None for cells in sample)
        for column in range(num_columns)
    ]
    return hits.index(max(hits))


def _label_position(name: str, header: Sequence[str], has_header: bool, path: int) -> int:
    """The other of two columns; of several the one that is called so, else the first."""
    others = [column for column in range(len(header)) if column != path]
    if not others or (len(others) > 1 and not has_header):
        raise Invalid(
            f"{name}: expected a column of image paths and one of labels, or a header that names more; "
            f"the first line is {', '.join(header)[:500]!r}",
            code="bad_csv",
        )
    by_name = {header[column].casefold(): column for column in reversed(others)}
    called = [by_name[known] for known in LABEL_NAMES if has_header and known in by_name]
    return called[0] if called else others[0]


def _others(name: str, header: Sequence[str], path: int, label: int) -> dict[str, int]:
    """Further columns where they stand; a column without a name, as pandas' index has none, is left out."""
    named = [column for column in range(len(header)) if column != path and header[column]]
    if set(named) <= {label}:
        return {}
    kept = [column for column in named if (column, header[column]) != (label, "label")]
    check_columns([header[column] for column in kept], name)
    taken = sorted({header[column] for column in kept}.intersection(RESERVED))
    if taken:
        raise Invalid(
            f"{name}: every dataset of images has columns {', '.join(RESERVED)} of its own; rename {taken}",
            code="duplicate_column",
        )
    return {header[column]: column for column in kept}


def _agreed(others: Mapping[str, list[str]]) -> list[str]:
    """Further columns, the same in every file."""
    (first, columns), *rest = others.items()
    for name, found in rest:
        if found != columns:
            raise Invalid(
                f"expected the columns {columns} of {first} in {name}, in the same order, got {found}; "
                "give all files the same columns",
                code="column_mismatch",
            )
    return columns


def _position(name: str, header: Sequence[str], column: str) -> int:
    if header.count(column) != 1:
        raise Invalid(
            f"{name}: expected one column {column!r}, the header is {', '.join(header)[:500]!r}",
            code="unknown_column",
        )
    return header.index(column)


class _Index:
    """Finds the file that a CSV's cell means: relative to the CSV, to the root, or by its base name."""

    def __init__(self, tree: Tree) -> None:
        self._names: Mapping[str, int] = tree.sizes
        self._by_base: dict[str, list[str]] = {}
        for name in tree.sizes:
            if suffix_of(name) not in CSV_SUFFIXES:
                self._by_base.setdefault(posixpath.basename(name), []).append(name)

    def find(self, cell: str, folder: str) -> str | None:
        path = _normal(cell)
        if not path:
            return None
        for candidate in (posixpath.normpath(posixpath.join(folder, path)), posixpath.normpath(path)):
            if candidate in self._names:
                return candidate
        same_base = self._by_base.get(posixpath.basename(path), [])
        return same_base[0] if len(same_base) == 1 else None

    def why_missing(self, cell: str) -> str:
        same_base = self._by_base.get(posixpath.basename(_normal(cell)), [])
        if len(same_base) > 1:
            return f"{cell!r} could be any of {len(same_base)} files; write its path from the archive's root"
        return f"the archive has no file {cell!r}; add it or remove the row"


def _normal(cell: str) -> str:
    return unicodedata.normalize("NFC", cell.replace("\\", "/"))
