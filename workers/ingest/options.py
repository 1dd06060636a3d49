"""The options that each format takes: what else to know of an upload than its bytes."""

from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from core.errors import Invalid

T = TypeVar("T")


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """For formats that say everything themselves."""


class ImageCsvOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Names of columns where they are not to be guessed; `label` says what the label column holds: `float`,
    a quantity, or `class`."""

    image_column: str | None = None
    label_column: str | None = None
    label: Literal["float", "class"] | None = None


class ClassOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """`classes[k]` is the name of label k."""

    classes: list[str] | None = None


class TextOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The column of free text, or several."""

    text: str | list[str] | None = None


def parse_options(options_json: str, format: str, kind: type[T]) -> T:
    """Raises `Invalid` with code `bad_options`, saying what the format takes."""
    try:
        return msgspec.json.decode(options_json, type=kind)
    except msgspec.DecodeError as error:
        known = ", ".join(info.name for info in msgspec.structs.fields(kind)) or "none"  # type: ignore[arg-type]  # a struct each
        raise Invalid(
            f"expected options of format {format}, a JSON object with any of: {known}; {error}",
            code="bad_options",
        ) from error
