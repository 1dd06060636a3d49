"""Plain values to structs with every error at once, where msgspec alone stops at the first."""

import re
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from core.faults import fault, is_full, join, show, suggestion
from modelyard.specs import ProblemError

S = TypeVar("S", bound=msgspec.Struct)

#: Stands where a required field is missing or wrong, so that the rest can still be looked at.
MISSING: Any = None

_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def decode_struct(raw: object, struct: type[S], pointer: str, errors: list[ProblemError]) -> S | None:
    """Field by field, nested structs too. What is wrong gets its default, or `MISSING` where it is required;
    None only where `raw` is no object at all."""
    if not isinstance(raw, dict):
        fault(errors, pointer, "wrong_type", f"An object is expected here; {show(raw)} came.")
        return None
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    types = _types(struct)
    good: dict[str, Any] = {}
    for key, value in raw.items():
        if is_full(errors):
            break
        if key not in fields:
            names = ", ".join(fields)
            message = (
                f"There is no field {show(key)} here.{suggestion(str(key), fields)} The fields are: {names}."
            )
            fault(errors, join(pointer, str(key)), "unknown_field", message)
            continue
        inner = types[key]
        before = len(errors)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            decoded: Any = decode_struct(value, inner, join(pointer, key), errors)
            if decoded is not None:
                good[key] = decoded
        else:
            decoded = convert(value, inner, join(pointer, key), errors)
            if len(errors) == before:
                good[key] = decoded
    for key, field in fields.items():
        if key not in raw and field.required:
            fault(errors, pointer, "missing", f'The field "{key}" is required; add it.')
        if key not in good and field.required:
            good[key] = MISSING
    return struct(**good)


def convert(value: object, kind: Any, pointer: str, errors: list[ProblemError]) -> Any:
    """A value as `kind`, strictly; where it doesn't fit, one error that points at the part, and None."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _PATH.search(text)
        part, inside = pointer, value
        if at is not None:
            text = text[: at.start()]
            for name, index in _STEP.findall(at["path"]):
                if index == "..." or not isinstance(inside, list | dict):
                    break
                part = join(part, name or index)
                inside = inside[int(index)] if isinstance(inside, list) else inside.get(name)
        expected = text.split(", got ")[0]
        hint = ""
        if part == pointer and (names := _names(kind)):
            expected = f"Expected {', '.join(map(show, names))}"
            hint = suggestion(value, names) if isinstance(value, str) else ""
        fault(errors, part, "invalid_value", f"{expected}; {show(inside)} came.{hint}")
        return None


def _names(kind: Any) -> list[str]:
    """The strings that a Literal, or a Literal or null, takes; none of any other type."""
    if get_origin(kind) is Literal:
        return [name for name in get_args(kind) if isinstance(name, str)]
    options = [option for option in get_args(kind) if option is not NoneType]
    return _names(options[0]) if len(options) == 1 and get_origin(kind) in (Union, UnionType) else []


@cache
def _types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)
