"""One upload from its bytes to its manifest."""

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from core.data.manifest import Manifest
from core.errors import Invalid
from workers.ingest import arrays, image_csv, image_folder, table
from workers.ingest.archives import Tree
from workers.ingest.detect import detect_format, open_tree


def ingest(source: Path, out: Path, scratch: Path, format: str, options_json: str, filename: str) -> bytes:
    """Writes `out` and returns the manifest as JSON. Raises `Invalid`."""
    options = _options(options_json)
    with closing(open_tree(source, filename, scratch)) as tree:
        manifest = _read(tree, detect_format(tree) if format == "auto" else format, options, out)
    return msgspec.json.encode(manifest)


def _read(tree: Tree, format: str, options: dict[str, str], out: Path) -> Manifest:
    _check_options(format, options)
    match format:
        case "image_csv":
            return image_csv.ingest(tree, out, **options)
        case "image_folder":
            return image_folder.ingest(tree, out)
        case "table":
            return table.ingest(tree, out)
        case "arrays":
            return arrays.ingest(tree, out)
        case _:
            raise Invalid(
                f"expected format auto, image_folder, image_csv, table or arrays, got {format!r}",
                code="unknown_format",
            )


def _options(options_json: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(options_json, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Invalid(f"expected options as a JSON object ({error})", code="bad_options") from error


def _check_options(format: str, options: dict[str, Any]) -> None:
    known = image_csv.OPTIONS if format == "image_csv" else ()
    for name, value in options.items():
        if name not in known or not isinstance(value, str):
            raise Invalid(
                f"expected options of {format} among {list(known)}, each a string; got {name!r}",
                code="bad_options",
            )
