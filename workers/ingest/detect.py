"""What an upload is: how it is packed by its first bytes, which format by its layout."""

from collections import Counter
from pathlib import Path

from core.errors import Invalid
from workers.ingest.archives import BareFile, Tree
from workers.ingest.jsonl_file import JsonlFile, looks_like_jsonl
from workers.ingest.names import (
    ARRAY_SUFFIXES,
    CSV_SUFFIXES,
    IMAGE_SUFFIXES,
    TABLE_SUFFIXES,
    is_idx,
    split_of_file,
    suffix_of,
)
from workers.ingest.table_files import CsvFile, open_table_file
from workers.ingest.tars import TarTree, inflate_tar, is_tar
from workers.ingest.text import MIN_WORDS, mean_words
from workers.ingest.zips import ZipTree

_HEAD_BYTES = 64 * 1024
_TEXT = "text"
_FORMATS = (
    "expected class folders of images, images with a CSV of path,label, a table (CSV, Parquet or JSONL), "
    "text (CSV or JSONL), MNIST's idx files or an .npz of x and y, bare or as .zip, .tar, .tar.gz or .tar.zst"
)


def open_tree(source: Path, filename: str, scratch: Path) -> Tree:
    """`scratch` takes what has to be inflated to disk. Raises `Invalid`."""
    with source.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise Invalid(f"the upload is empty; {_FORMATS}", code="empty_upload")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ZipTree(source, scratch)
    if head[:2] == b"\x1f\x8b":
        return TarTree(inflate_tar(source, "gzip", scratch), scratch)
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return TarTree(inflate_tar(source, "zstd", scratch), scratch)
    if is_tar(head):
        return TarTree(source, scratch)
    return BareFile(source, filename)


def detect_format(tree: Tree) -> str:
    """Raises `Invalid` with code `unknown_format`, saying what was found."""
    suffixes = Counter(suffix_of(name) for name in tree.sizes)
    num_images = sum(suffixes[suffix] for suffix in IMAGE_SUFFIXES)
    num_csvs = sum(suffixes[suffix] for suffix in CSV_SUFFIXES)
    if isinstance(tree, BareFile):
        if _is_table(tree):
            return _table_or_text(tree)
    elif any(is_idx(name) for name in tree.sizes):
        return "idx"
    elif num_images:
        return "image_csv" if num_csvs else "image_folder"
    elif any(suffixes[suffix] for suffix in TABLE_SUFFIXES):
        return _table_or_text(tree)
    elif any(suffixes[suffix] for suffix in ARRAY_SUFFIXES):
        return "arrays"
    found = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
    raise Invalid(f"{_FORMATS}; found files: {found or 'none'}", code="unknown_format")


def _is_table(tree: BareFile) -> bool:
    """Parquet by its magic, JSON lines by its first; CSV where a text file is called so, or its first line
    has a delimiter."""
    (name,) = tree.sizes
    with tree.open(name) as file:
        head = file.read(_HEAD_BYTES)
    if head[:4] == b"PAR1":
        return True
    if b"\0" in head:
        return False
    if suffix_of(name) in TABLE_SUFFIXES:
        return True
    return looks_like_jsonl(head) or any(mark in head.split(b"\n")[0] for mark in b",;\t")


def _table_or_text(tree: Tree) -> str:
    """JSON lines are text; so is a CSV with a column `text` of several words a row."""
    names = [
        name for name in sorted(tree.sizes) if isinstance(tree, BareFile) or suffix_of(name) in TABLE_SUFFIXES
    ]
    name = next((name for name in names if split_of_file(name) == "train"), names[0])
    try:
        file = open_table_file(tree, name)
        if isinstance(file, JsonlFile):
            return "text"
        if not isinstance(file, CsvFile) or _TEXT not in file.columns:
            return "table"
        batch = next(iter(file.batches()), None)
    except Invalid:  # the table's own reading says what is wrong, and where
        return "table"
    has_words = batch is not None and mean_words(batch.column(_TEXT)) >= MIN_WORDS
    return "text" if has_words else "table"
