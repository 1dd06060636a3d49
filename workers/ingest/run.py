"""One upload from its bytes to its manifest."""

from contextlib import closing
from pathlib import Path

import msgspec

from core.data.manifest import Manifest
from core.errors import Invalid
from workers.ingest import arrays, idx, image_csv, image_folder, table, text
from workers.ingest.archives import Tree
from workers.ingest.detect import detect_format, open_tree
from workers.ingest.options import ClassOptions, ImageCsvOptions, NoOptions, TextOptions, parse_options


def ingest(source: Path, out: Path, scratch: Path, format: str, options_json: str, filename: str) -> bytes:
    """Writes `out` and returns the manifest as JSON. Raises `Invalid`."""
    with closing(open_tree(source, filename, scratch)) as tree:
        manifest = _read(tree, detect_format(tree) if format == "auto" else format, options_json, out)
    return msgspec.json.encode(manifest)


def _read(tree: Tree, format: str, options: str, out: Path) -> Manifest:
    match format:
        case "image_csv":
            return image_csv.ingest(tree, out, parse_options(options, format, ImageCsvOptions))
        case "arrays":
            return arrays.ingest(tree, out, parse_options(options, format, ClassOptions))
        case "idx":
            return idx.ingest(tree, out, parse_options(options, format, ClassOptions))
        case "text":
            return text.ingest(tree, out, parse_options(options, format, TextOptions))
    parse_options(options, format, NoOptions)
    match format:
        case "image_folder":
            return image_folder.ingest(tree, out)
        case "table":
            return table.ingest(tree, out)
        case _:
            raise Invalid(
                f"expected format auto, image_folder, image_csv, table, arrays, idx or text, got {format!r}",
                code="unknown_format",
            )
