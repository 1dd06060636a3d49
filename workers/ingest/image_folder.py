"""Class folders of images, with or without train/val/test above them."""

from collections.abc import Sequence
from pathlib import Path

from core.data.manifest import Manifest
from core.errors import Invalid
from workers.ingest.archives import Tree
from workers.ingest.image_columns import Row
from workers.ingest.images import write_images
from workers.ingest.labels import sort_labels
from workers.ingest.names import CSV_SUFFIXES, IMAGE_SUFFIXES, SIDE_SUFFIXES, split_of_folder, suffix_of
from workers.ingest.problems import Problems, pointer_to


def ingest(tree: Tree, out: Path) -> Manifest:
    names = _images(tree)
    depth = _wrapper_depth(names)
    has_splits = _has_splits(names, depth)
    rows: dict[str, list[Row]] = {}
    problems = Problems()
    for name in names:
        parts = name.split("/")[depth:]
        split = split_of_folder(parts.pop(0)) if has_splits else "train"
        if len(parts) < 2 or split is None:
            message = f"expected <class>/{parts[-1]}, it is in no class folder; move it into one"
            problems.add(pointer_to(name), "no_class_folder", message)
        else:
            rows.setdefault(split, []).append(Row(name, parts[0], pointer_to(name)))
    problems.raise_any()
    return write_images(tree, {split: _ordered(found) for split, found in rows.items()}, "image_folder", out)


def _images(tree: Tree) -> list[str]:
    """The images' names; raises `Invalid` for other files, which would otherwise be lost in silence."""
    problems = Problems()
    images = []
    for name in tree.sizes:
        suffix = suffix_of(name)
        if suffix in IMAGE_SUFFIXES:
            images.append(name)
        elif suffix not in SIDE_SUFFIXES | CSV_SUFFIXES:
            message = (
                f"{name} is no image that is read here (PNG, JPEG, WebP, BMP, GIF); convert or remove it"
            )
            problems.add(pointer_to(name), "unsupported_image", message)
    problems.raise_any()
    if not images:
        raise Invalid("expected class folders of images, found no image", code="empty_dataset")
    return images


def _wrapper_depth(names: Sequence[str]) -> int:
    """How many folders wrap the dataset: those that hold everything, are no split, and leave at least a
    class folder around every image."""
    folders = [name.split("/")[:-1] for name in names]
    depth = 0
    while (
        all(len(parts) > depth + 1 for parts in folders)
        and len({parts[depth] for parts in folders}) == 1
        and split_of_folder(folders[0][depth]) is None
    ):
        depth += 1
    return depth


def _has_splits(names: Sequence[str], depth: int) -> bool:
    top = {name.split("/")[depth] for name in names}
    in_splits = {folder for folder in top if split_of_folder(folder) is not None}
    if in_splits and in_splits != top:
        raise Invalid(
            f"expected only train, val and test at the top, got {sorted(top - in_splits)[:20]} beside "
            f"{sorted(in_splits)}; move the class folders into train",
            code="mixed_layout",
        )
    return bool(in_splits)


def _ordered(rows: list[Row]) -> list[Row]:
    """By class in class order, then by file name, so that the same folder gives the same dataset."""
    position = {label: index for index, label in enumerate(sort_labels(row.label for row in rows))}
    return sorted(rows, key=lambda row: (position[row.label], row.file))
