"""Reading and writing the files that commands name; `-` is standard input."""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml

from modelyard.cli.yaml12 import Loader
from modelyard.errors import InvalidArgument

STDIN = "-"


def read_text(file: str) -> str:
    """Raises OSError; InvalidArgument where the file is no UTF-8."""
    try:
        return sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"expected text in UTF-8 in {file}, got other bytes ({error})") from error


def read_mapping(file: str) -> dict[str, Any]:
    """A JSON or YAML file that holds one mapping; YAML as of 1.2, of which JSON is a part.

    Raises InvalidArgument with line and column where it is neither, or where a key stands twice.
    """
    value = read_value(file)
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected a mapping in {file}, got {type(value).__name__}")
    return value


def read_value(file: str) -> Any:
    """JSON goes first: a file of instances may be large, and YAML is read slowly."""
    text = read_text(file)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _without_twins(pairs, file))
    except json.JSONDecodeError:
        pass  # then it may be YAML, whose message is the better one where it is neither
    except RecursionError as error:
        raise InvalidArgument(f"expected JSON or YAML in {file}, got lists nested too deep") from error
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - Loader is a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidArgument(f"expected JSON or YAML in {file}: {error}") from error


def write_whole(path: Path, data: bytes) -> None:
    """The file appears whole or not at all."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _without_twins(pairs: list[tuple[str, Any]], file: str) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise InvalidArgument(f"the key {key!r} stands twice in one mapping in {file}; keep one of them")
        mapping[key] = value
    return mapping
