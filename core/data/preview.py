"""Looks into a dataset: rows as plain Python values, and a grid of images with their labels."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from core.data.arrow import open_table
from core.data.images import Mode, decode_image, load_image
from core.data.manifest import Kind, Manifest
from core.errors import Invalid

#: Sides of a grid's cell, in pixels: small images are enlarged, large ones made smaller.
CELL = 96
MAX_CELLS = 400

_CAPTION = 16
_GAP = 4
_BACKGROUND = (255, 255, 255)
_INK = (0, 0, 0)
_MAX_CAPTION_CHARACTERS = 40


def read_rows(arrow_path: Path, manifest: Manifest, split: str, limit: int) -> list[dict[str, Any]]:
    """The first `limit` rows of a split by column: images as nested CHW lists of 0..255, labels by class
    name, arrays as nested lists, other values as they are (missing: None). Empty for an unknown split."""
    table = _rows(arrow_path, manifest, split, limit)
    match manifest.kind:
        case Kind.IMAGES:
            return _image_rows(table, manifest)
        case Kind.TABLE:
            return list(table.to_pylist())
        case Kind.ARRAYS:
            return _array_rows(table, manifest)


def preview_png(arrow_path: Path, manifest: Manifest, rows: int, cols: int) -> bytes:
    """Images spread evenly over the training split, which may be sorted by class, each over its label.

    Raises `Invalid` where the dataset holds no images, or for a grid without cells or of over `MAX_CELLS`.
    """
    if rows < 1 or cols < 1 or rows * cols > MAX_CELLS:
        raise Invalid(
            f"expected a grid of 1 to {MAX_CELLS} cells, got {rows} x {cols}; ask for fewer", code="bad_grid"
        )
    return _grid(_pictures(_spread(arrow_path, manifest, rows * cols), manifest), rows, cols)


def captioned_png(arrow_path: Path, manifest: Manifest, captions: Mapping[int, str], cols: int) -> bytes:
    """Images of these rows of the dataset, in this order, each over its caption.

    Raises `Invalid` where the dataset holds no images, or for more than `MAX_CELLS`.
    """
    if len(captions) > MAX_CELLS:
        raise Invalid(
            f"expected at most {MAX_CELLS} images, got {len(captions)}; ask for fewer", code="bad_grid"
        )
    table = open_table(arrow_path)
    chosen = pa.concat_tables([table.slice(row, 1) for row in captions] or [table.slice(0, 0)])
    pictures = zip((image for image, _ in _pictures(chosen, manifest)), captions.values(), strict=True)
    return _grid(list(pictures), max(1, -(-len(captions) // cols)), cols)


def image_shape(manifest: Manifest) -> tuple[int, int, int] | None:
    """[C, H, W] of an array's rows that look like images: uint8 of H x W, C x H x W or H x W x C."""
    feature = manifest.features.get("x")
    if feature is None or feature.dtype != "uint8":
        return None
    match feature.shape:
        case [int(height), int(width)] if min(height, width) > 1:
            return 1, height, width
        case [1 | 3 as channels, int(height), int(width)]:
            return channels, height, width
        case [int(height), int(width), 1 | 3 as channels]:
            return channels, height, width
        case _:
            return None


def _rows(arrow_path: Path, manifest: Manifest, split: str, limit: int) -> pa.Table:
    wanted = manifest.rows_of(split)[: max(0, limit)]
    return open_table(arrow_path).slice(wanted.start, len(wanted))


def _spread(arrow_path: Path, manifest: Manifest, limit: int) -> pa.Table:
    train = manifest.rows_of("train")
    count = min(limit, len(train))
    table = open_table(arrow_path)
    # Slices, not `take`: that would first copy all chunks of the column into one.
    return pa.concat_tables(table.slice(train[len(train) * nth // count], 1) for nth in range(count))


def _image_rows(table: pa.Table, manifest: Manifest) -> list[dict[str, Any]]:
    mode = _mode(manifest)
    return [
        {
            **{name: row[name] for name in manifest.features},
            "image": decode_image(row["image"], mode).tolist(),
            "label": _label(row["label"], manifest),
        }
        for row in table.to_pylist()
    ]


def _array_rows(table: pa.Table, manifest: Manifest) -> list[dict[str, Any]]:
    columns = {name: _shaped(table, name, manifest).tolist() for name in table.column_names}
    if manifest.classes is not None:
        columns["y"] = [_label(index, manifest) for index in columns["y"]]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _shaped(table: pa.Table, name: str, manifest: Manifest) -> NDArray[Any]:
    """A column of arrays as [N, *shape]."""
    column = table.column(name).combine_chunks()
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values.reshape(table.num_rows, *manifest.features[name].shape)


def _grid(pictures: list[tuple[Image.Image, str]], rows: int, cols: int) -> bytes:
    grid = Image.new(
        "RGB", (cols * (CELL + _GAP) + _GAP, rows * (CELL + _CAPTION + _GAP) + _GAP), _BACKGROUND
    )
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(size=11)
    for position, (picture, caption) in enumerate(pictures):
        left = _GAP + position % cols * (CELL + _GAP)
        top = _GAP + position // cols * (CELL + _CAPTION + _GAP)
        grid.paste(_fitted(picture), (left, top))
        draw.text((left, top + CELL), _shortened(caption, draw, font), fill=_INK, font=font)
    out = BytesIO()
    grid.save(out, "PNG")
    return out.getvalue()


def _pictures(table: pa.Table, manifest: Manifest) -> list[tuple[Image.Image, str]]:
    if manifest.kind is Kind.IMAGES:
        return [
            (load_image(row["image"]), str(_label(row["label"], manifest)))
            for row in table.select(["image", "label"]).to_pylist()
        ]
    shape = image_shape(manifest)
    if shape is None:
        raise Invalid(
            f"expected a dataset of images, this one is of kind {manifest.kind}; look at its samples instead",
            code="no_images",
        )
    images = _shaped(table, "x", manifest)
    captions = [row["y"] for row in _array_rows(table.select(["y"]), manifest)]
    return [
        (Image.fromarray(_viewable(image, shape)), str(caption))
        for image, caption in zip(images, captions, strict=True)
    ]


def _viewable(image: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """As Pillow takes it: [H, W] or [H, W, 3]."""
    if image.shape == shape and image.ndim == 3:
        image = image.transpose(1, 2, 0)
    return np.ascontiguousarray(image.reshape(shape[1:]) if shape[0] == 1 else image)


def _fitted(picture: Image.Image) -> Image.Image:
    """Centred in a cell; whole-number enlargement keeps the pixels of a small image visible."""
    largest = max(picture.size)
    scale = CELL // largest if largest <= CELL else CELL / largest
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    cell = Image.new("RGB", (CELL, CELL), _BACKGROUND)
    cell.paste(picture.resize(size, resample), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def _shortened(
    caption: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """Cut to the cell's width; one line."""
    caption = " ".join(caption[:_MAX_CAPTION_CHARACTERS].split())
    while caption and draw.textlength(caption, font=font) > CELL:
        caption = caption[:-1]
    return caption


def _mode(manifest: Manifest) -> Mode:
    return "L" if manifest.image_mode == "L" else "RGB"


def _label(value: int | float, manifest: Manifest) -> str | float:
    """The name of a class; a quantity as it is."""
    return value if manifest.classes is None else manifest.classes[int(value)]
