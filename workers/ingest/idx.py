"""MNIST's own files: images and labels as IDX, one pair a split, each perhaps gzipped."""

import posixpath
import re
from pathlib import Path

from core.data.manifest import SPLIT_ORDER, Manifest
from core.errors import Invalid
from workers.ingest.archives import Tree
from workers.ingest.arrays import Pair, check_labels, write_arrays
from workers.ingest.idx_file import IdxFile
from workers.ingest.names import SIDE_SUFFIXES, is_idx, split_of_file, split_of_folder, suffix_of
from workers.ingest.options import ClassOptions

_EXPECTED = (
    "expected train-images-idx3-ubyte and train-labels-idx1-ubyte, perhaps t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte, each plain or .gz, in one archive"
)
_ROLES = {"images": "images", "image": "images", "labels": "labels", "label": "labels"}


def ingest(tree: Tree, out: Path, options: ClassOptions) -> Manifest:
    """Labels are whole numbers; `options.classes` names them from 0 on."""
    pairs = _pairs(tree)
    for pair in pairs.values():
        check_labels(pair.y)
    return write_arrays(pairs, out, "idx", options.classes)


def _pairs(tree: Tree) -> dict[str, Pair]:
    """In the order train, val, test."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(tree.sizes):
        if suffix_of(name) in SIDE_SUFFIXES and not is_idx(name):
            continue
        if name.endswith(".gz") and name.removesuffix(".gz") in tree.sizes:
            continue  # torchvision leaves what it unpacked beside what it fetched
        split, role = _split_of(name), _role_of(name)
        if role is None or role in found.setdefault(split, {}):
            why = (
                f"two files of {split} {role}" if role else f"{name!r}, which says neither images nor labels"
            )
            raise Invalid(f"{_EXPECTED}; got {why}; rename or remove it", code="wrong_files")
        found[split][role] = name
    incomplete = [split for split, names in found.items() if len(names) != 2]
    if "train" not in found or incomplete:
        names = ", ".join(sorted(tree.sizes)[:20])
        raise Invalid(f"{_EXPECTED}; got {names or 'nothing'}", code="wrong_files")
    return {
        split: Pair(*(IdxFile(tree, found[split][role]) for role in ("images", "labels")))
        for split in SPLIT_ORDER
        if split in found
    }


def _split_of(name: str) -> str:
    """From the file's name (`t10k`, MNIST's ten thousand, are the test), else its folder's; else train."""
    folder, base = posixpath.split(name)
    in_name = split_of_file(base.casefold().replace("t10k", "test"))
    return in_name or split_of_folder(posixpath.basename(folder)) or "train"


def _role_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", posixpath.basename(name).casefold())
    roles = {_ROLES[word] for word in words if word in _ROLES}
    return roles.pop() if len(roles) == 1 else None
