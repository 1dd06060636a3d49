"""Tables from CSV, Parquet and JSON lines, one file or one a split: types agreed over all, then written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.data.manifest import SPLIT_ORDER, Kind, Manifest
from core.errors import Invalid
from modelyard.specs import Feature
from workers.ingest.archives import BareFile, Tree
from workers.ingest.columns import TYPES, Summary, convert, missing_beside, narrow, unite, unseen_beside
from workers.ingest.names import SIDE_SUFFIXES, TABLE_SUFFIXES, files_by_split, suffix_of
from workers.ingest.problems import Problems, pointer_to, row_pointer
from workers.ingest.table_files import TableFile, open_table_file
from workers.ingest.writer import ArrowWriter

MAX_ROWS = 100_000_000


def ingest(tree: Tree, out: Path) -> Manifest:
    return write_table(open_files(tree), out, "table")


def open_files(tree: Tree) -> dict[str, TableFile]:
    """One file a split, in the order train, val, test, all with the same columns."""
    found = {split: open_table_file(tree, name) for split, name in files_by_split(_names(tree)).items()}
    files = {split: found[split] for split in SPLIT_ORDER if split in found}
    if "train" not in files:
        raise Invalid(f"expected a training file, got only {', '.join(files)}", code="no_train_split")
    for file in files.values():
        _check_same_columns(file, files["train"])
    return files


def write_table(
    files: Mapping[str, TableFile], out: Path, format: str, text_columns: Sequence[str] = ()
) -> Manifest:
    """Every file is read twice: once to agree on types, once to write."""
    columns = files["train"].columns
    dtypes = _agree(files, columns, text_columns)
    summaries = {
        split: {name: Summary(lists_values=name not in text_columns) for name in columns} for split in files
    }
    splits: dict[str, int] = {}
    problems = Problems()
    with ArrowWriter(out, pa.schema([(name, TYPES[dtypes[name]]) for name in columns])) as writer:
        for split, file in files.items():
            splits[split] = _write_file(file, dtypes, writer, summaries[split], problems)
        problems.raise_any()
        if not splits["train"]:
            raise Invalid(
                f"{files['train'].name}: expected rows under the header, got none", code="empty_dataset"
            )
    stats = {
        split: {name: summary.result() for name, summary in found.items()}
        for split, found in summaries.items()
        if splits[split]
    }
    return Manifest(
        format=format,
        kind=Kind.TABLE,
        splits={split: count for split, count in splits.items() if count},
        features={name: Feature(dtypes[name], []) for name in columns},
        data_sha256=writer.sha256,
        data_bytes=writer.size_bytes,
        columns=stats["train"],
        text_columns=list(text_columns),
        splits_missing=missing_beside(stats),
        splits_unseen=unseen_beside(stats),
    )


def _names(tree: Tree) -> list[str]:
    if isinstance(tree, BareFile):
        return list(tree.sizes)
    problems = Problems()
    names = []
    for name in sorted(tree.sizes):
        suffix = suffix_of(name)
        if suffix in TABLE_SUFFIXES:
            names.append(name)
        elif suffix not in SIDE_SUFFIXES:
            message = f"{name} is no CSV, Parquet or JSONL; remove it, or say format=image_csv for images"
            problems.add(pointer_to(name), "unexpected_file", message)
    problems.raise_any()
    if not names:
        raise Invalid("expected a CSV, Parquet or JSONL file, found none", code="empty_dataset")
    return names


def _check_same_columns(file: TableFile, train: TableFile) -> None:
    missing = sorted(set(train.columns) - set(file.columns))
    extra = sorted(set(file.columns) - set(train.columns))
    if missing or extra:
        raise Invalid(
            f"expected the columns of {train.name} in {file.name}; it lacks {missing[:20]} and has besides "
            f"{extra[:20]}; give all files the same columns",
            code="column_mismatch",
        )


def _agree(
    files: Mapping[str, TableFile], columns: Sequence[str], text_columns: Sequence[str]
) -> dict[str, str]:
    """One type a column over all files; a column without any value, and one of free text, is a string."""
    text: dict[str, str | None] = dict.fromkeys(columns)
    stored: dict[str, str | None] = dict.fromkeys(columns)
    for file in files.values():
        for name, dtype in file.dtypes.items():
            stored[name] = unite(name, stored[name], dtype)
        untyped = {name for name, dtype in file.dtypes.items() if dtype is None}.difference(text_columns)
        if untyped:
            for batch in file.batches():
                for name in untyped:
                    text[name] = narrow(text[name], batch.column(name))
    return {name: unite(name, stored[name], text[name]) or "string" for name in columns}


def _write_file(
    file: TableFile,
    dtypes: Mapping[str, str],
    writer: ArrowWriter,
    summaries: Mapping[str, Summary],
    problems: Problems,
) -> int:
    """Rows written. A column's order in the file may differ from that of the training file."""
    num_rows = 0
    for batch in file.batches():
        columns = []
        for name, dtype in dtypes.items():
            cells = _converted(batch.column(name), dtype, name, file.name)
            _check_finite(cells, name, file.name, num_rows, problems)
            columns.append(cells)
            if not problems.errors:
                summaries[name].add(cells)
        num_rows += batch.num_rows
        if num_rows > MAX_ROWS:
            raise Invalid(f"{file.name}: expected at most {MAX_ROWS} rows", code="too_large")
        if batch.num_rows:
            writer.write(pa.record_batch(columns, schema=writer.schema))
    return num_rows


def _converted(cells: pa.Array, dtype: str, column: str, file: str) -> pa.Array:
    try:
        return convert(cells, dtype)
    except pa.ArrowInvalid as error:
        raise Invalid(
            f"{file}: column {column!r} does not fit {dtype} ({error})", code="column_type"
        ) from error


def _check_finite(cells: pa.Array, column: str, file: str, first_row: int, problems: Problems) -> None:
    if not pa.types.is_floating(cells.type):
        return
    for position in pc.indices_nonzero(pc.fill_null(pc.is_inf(cells), False)).to_pylist():
        message = f"expected a finite number in column {column!r}, got infinity; leave the cell empty"
        problems.add(row_pointer(file, first_row + position + 1), "non_finite", message)
