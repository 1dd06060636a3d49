"""Text: a table of which a column holds sentences, from CSV, TSV, JSON lines or Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.data.manifest import Manifest
from core.errors import Invalid
from workers.ingest.archives import Tree
from workers.ingest.options import TextOptions
from workers.ingest.table import open_files, write_table
from workers.ingest.table_files import TableFile

#: What a column of free text is called; the first that is there is taken.
NAMES = ("text", "sentence", "review", "content", "body", "document", "message")

#: Under so many words a cell, on average, a column of strings is no text but names of things.
MIN_WORDS = 3.0


def ingest(tree: Tree, out: Path, options: TextOptions) -> Manifest:
    files = open_files(tree)
    columns = _named(files["train"], options.text) if options.text else [_found(files["train"])]
    for file in files.values():
        _check_strings(file, columns)
    return write_table(files, out, "text", columns)


def mean_words(cells: pa.StringArray) -> float:
    """Words a cell, missing ones left out; 0 where there are none."""
    words = pc.mean(pc.count_substring_regex(cells, r"\S+")).as_py()
    return float(words or 0)


def _named(file: TableFile, asked: str | list[str]) -> list[str]:
    names = [asked] if isinstance(asked, str) else asked
    for name in names:
        if name not in file.columns or names.count(name) > 1:
            raise Invalid(
                f'options={{"text": …}}: expected names of different columns of {file.name}, got {name!r}; '
                f"it has {', '.join(file.columns)[:500]}",
                code="unknown_column",
            )
    return names


def _found(file: TableFile) -> str:
    by_name = {name.casefold(): name for name in reversed(file.columns)}
    for name in NAMES:
        if name in by_name and file.dtypes[by_name[name]] in (None, "string"):
            return by_name[name]
    longest = _longest(file)
    if longest is None:
        raise Invalid(
            f"{file.name}: expected a column of free text, called {', '.join(NAMES)}, or of at least "
            f"{MIN_WORDS:g} words a row; got {', '.join(file.columns)[:500]!r}; name it with "
            'options={"text": "…"}, or say format=table',
            code="no_text_column",
        )
    return longest


def _longest(file: TableFile) -> str | None:
    """The column of strings with the longest cells of several words, by the file's first rows."""
    batch = next(iter(file.batches()), None)
    if batch is None:
        return None
    lengths = {
        name: float(pc.mean(pc.utf8_length(cells)).as_py())
        for name, cells in zip(batch.schema.names, batch.columns, strict=True)
        if pa.types.is_string(cells.type) and mean_words(cells) >= MIN_WORDS
    }
    return max(lengths, key=lambda name: lengths[name]) if lengths else None


def _check_strings(file: TableFile, columns: list[str]) -> None:
    for name in columns:
        if file.dtypes[name] not in (None, "string"):
            raise Invalid(
                f"{file.name}: expected strings in the text column {name!r}, got {file.dtypes[name]}; "
                "name another, or store it as strings",
                code="column_type",
            )
