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
from workers.ingest.images import Row, write_images
from workers.ingest.names import CSV_SUFFIXES, files_by_split, suffix_of
from workers.ingest.problems import Problems, row_pointer

MAX_CSV_BYTES = 256 * 1024 * 1024
#: Names of columns, where they are not to be guessed.
OPTIONS = ("image_column", "label_column")
LABEL_NAMES = frozenset({"label", "labels", "class", "class_name", "target", "category", "y"})

# Rows looked at to find which column holds the paths.
_SAMPLE_ROWS = 20


class _Columns(NamedTuple):
    path: int
    label: int


def ingest(
    tree: Tree, out: Path, image_column: str | None = None, label_column: str | None = None
) -> Manifest:
    """The columns are found by what they hold where they are not named."""
    csvs = _csv_of_splits(tree)
    index = _Index(tree)
    problems = Problems()
    rows = {
        split: _read(tree, name, index, (image_column, label_column), problems)
        for split, name in csvs.items()
    }
    problems.raise_any()
    return write_images(tree, rows, "image_csv", out)


def _csv_of_splits(tree: Tree) -> dict[str, str]:
    names = sorted(name for name in tree.sizes if suffix_of(name) in CSV_SUFFIXES)
    if not names:
        raise Invalid("expected a CSV of path,label beside the images, found none", code="no_csv")
    return files_by_split(names)


def _read(
    tree: Tree, name: str, index: "_Index", named: tuple[str | None, str | None], problems: Problems
) -> list[Row]:
    if tree.sizes[name] > MAX_CSV_BYTES:
        raise Invalid(f"{name}: expected at most {MAX_CSV_BYTES} bytes", code="too_large")
    table = csv_text.parse(csv_text.decode(tree.read(name), name), name)
    folder = posixpath.dirname(name)
    if not table:
        raise Invalid(f"{name}: expected rows of path,label; the file is empty", code="empty_dataset")
    has_header = any(named) or not any(index.find(cell, folder) for cell in table[0])
    columns = _find_columns(name, table, has_header, folder, index, named)
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
            rows.append(Row(file, label, pointer))
    return rows


def _find_columns(
    name: str,
    table: Sequence[Sequence[str]],
    has_header: bool,
    folder: str,
    index: "_Index",
    named: tuple[str | None, str | None],
) -> _Columns:
    first = table[0]
    image_column, label_column = named
    path = _position(name, first, image_column) if image_column else None
    label = _position(name, first, label_column) if label_column else None
    if path is None:
        sample = table[1 : _SAMPLE_ROWS + 1] if has_header else table[:_SAMPLE_ROWS]
        hits = [
            sum(column < len(cells) and index.find(cells[column], folder) is not None for cells in sample)
            for column in range(len(first))
        ]
        path = hits.index(max(hits))
    if label is None:
        others = [column for column in range(len(first)) if column != path]
        called = [column for column in others if has_header and first[column].casefold() in LABEL_NAMES]
        candidates = others if len(others) == 1 else called
        if len(candidates) != 1:
            raise Invalid(
                f"{name}: expected a column of image paths and one of labels, got {', '.join(first)[:500]!r}"
                '; name the label: options={"label_column": "…"}',
                code="bad_csv",
            )
        label = candidates[0]
    return _Columns(path, label)


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
