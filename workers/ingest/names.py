"""What names of files may be, which ones say nothing, and which split one belongs to."""

import posixpath
import re
import unicodedata
from collections.abc import Sequence

from core.errors import Invalid

MAX_LEVELS = 32
MAX_NAME_CHARACTERS = 1024

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"})
CSV_SUFFIXES = frozenset({".csv", ".tsv"})
PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
TABLE_SUFFIXES = CSV_SUFFIXES | PARQUET_SUFFIXES | JSONL_SUFFIXES
ARRAY_SUFFIXES = frozenset({".npy"})
#: Files beside the data that may stay in an archive unread.
SIDE_SUFFIXES = frozenset({".txt", ".md", ".rst", ".html", ".pdf", ".json", ".yaml", ".yml", ".xml", ".cff"})

_ARCHIVE_SUFFIXES = frozenset(
    {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".jar", ".npz"}
)
_IDX = re.compile(r"[.-]idx[0-9]{1,2}([.-](ubyte|byte|short|int|float|double))?(\.gz)?$", re.IGNORECASE)
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_PAPERS = frozenset({"readme", "license", "licence", "copying", "notice", "changelog", "authors", "citation"})
_DRIVE = re.compile(r"^[A-Za-z]:")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def suffix_of(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def safe_name(raw: str) -> str:
    """A member's name as a plain relative path in NFC; raises `Invalid` with code `unsafe_path`.

    Nothing is ever extracted under such a name; it is a label that is shown and looked up.
    """
    reason = _why_unsafe(raw)
    if reason:
        raise Invalid(
            f"the archive has a member {raw[:200]!r} that {reason}; expected a plain relative path, "
            "pack the folder again",
            code="unsafe_path",
        )
    return unicodedata.normalize("NFC", "/".join(part for part in raw.split("/") if part not in ("", ".")))


def _why_unsafe(raw: str) -> str | None:
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if "\0" in raw:
        return "holds a NUL"
    if "\\" in raw:
        return "holds a backslash"
    if raw.startswith("/") or _DRIVE.match(raw):
        return "is an absolute path"
    if ".." in parts:
        return "climbs out with '..'"
    if len(parts) > MAX_LEVELS:
        return f"is more than {MAX_LEVELS} levels deep"
    if len(raw) > MAX_NAME_CHARACTERS:
        return f"has over {MAX_NAME_CHARACTERS} characters"
    return None if _is_unicode(raw) else "is no UTF-8"


def _is_unicode(raw: str) -> bool:
    """False for the lone surrogates that stand for undecodable bytes."""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return False
    return True


def twin_key(name: str) -> str:
    """Equal for names that some file system would take for one."""
    return unicodedata.normalize("NFC", name.casefold())


def is_noise(name: str) -> bool:
    """Hidden files, what operating systems leave behind, and papers such as LICENSE."""
    parts = name.split("/")
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return True
    base = parts[-1].casefold()
    if base in _SYSTEM_FILES:
        return True
    is_paper = base.split(".")[0] in _PAPERS
    return is_paper and suffix_of(base) in SIDE_SUFFIXES | {""}


def is_archive(name: str) -> bool:
    return suffix_of(name) in _ARCHIVE_SUFFIXES and not is_idx(name)


def is_idx(name: str) -> bool:
    """Whether a file is called as MNIST's are: `train-images-idx3-ubyte`, `.` for `-`, perhaps `.gz`."""
    return _IDX.search(name) is not None


def split_of_folder(folder: str) -> str | None:
    return _SPLITS.get(folder.casefold())


def files_by_split(names: Sequence[str]) -> dict[str, str]:
    """A single file is `train`; several say their split by name. Raises `Invalid` where they do not."""
    if len(names) == 1:
        return {"train": names[0]}
    found: dict[str, str] = {}
    for name in names:
        split = split_of_file(name)
        if split is None or split in found:
            why = f"both {found[split]} and {name} are {split}" if split else f"{name} names none"
            raise Invalid(
                f"expected one file a split, called train, val or test; {why}: rename or remove it",
                code="ambiguous_split",
            )
        found[split] = name
    return found


def split_of_file(name: str) -> str | None:
    """From the words in a file's name: "mnist_test.csv" -> "test"; None where none or several say so."""
    words = re.split(r"[^a-z]+", posixpath.basename(name).casefold())
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    return found.pop() if len(found) == 1 else None
