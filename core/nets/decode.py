"""Plain values to structs with every error at once, where msgspec alone stops at the first."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from core.faults import fault, is_full, join, show, suggestion
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Component

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

#: Stands where a required field or an entry of a list is missing or wrong, so that the rest can still be
#: looked at.
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
        name = fields[key].name  # another than on the wire where that is a word of Python's
        inner = types[name]
        before = len(errors)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            decoded: Any = decode_struct(value, inner, join(pointer, key), errors)
            if decoded is not None:
                good[name] = decoded
        else:
            decoded = convert(value, inner, join(pointer, key), errors)
            if decoded is not MISSING or len(errors) == before:
                good[name] = decoded
    for key, field in fields.items():
        if key not in raw and field.required:
            fault(errors, pointer, "missing", f'The field "{key}" is required; add it.')
        if field.name not in good and field.required:
            good[field.name] = MISSING
    return struct(**good)


def convert(value: object, kind: Any, pointer: str, errors: list[ProblemError]) -> Any:
    """A value as `kind`, strictly; where it doesn't fit, one error that points at the part, and `MISSING`. Of
    a list each entry has its own, and `MISSING` in its place."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        found = _list_of(kind)
        if found is not None and isinstance(value, list):
            before = len(errors)
            entries = [
                _entry(entry, found.entry, join(pointer, place), errors) for place, entry in enumerate(value)
            ]
            if len(errors) > before:
                return MISSING if found.is_bounded else entries
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
        if part == pointer and isinstance(value, str) and _is_component(kind):
            hint = f' Write {{"type": {show(value)}}}.'
        fault(errors, part, "invalid_value", f"{expected}; {show(inside)} came.{hint}")
        return MISSING


def present(entries: Iterable[T]) -> Iterator[tuple[int, T]]:
    """The entries of a decoded list that aren't `MISSING`, each with its place."""
    return ((place, entry) for place, entry in enumerate(entries) if entry is not MISSING)


class _List(msgspec.Struct, frozen=True):
    """`entry` is the type of each. One `is_bounded` in its length is no list without an entry."""

    entry: Any
    is_bounded: bool


def _list_of(kind: Any) -> _List | None:
    """The list that a value of this type, or of a union, may be."""
    if get_origin(kind) is list:
        return _List(get_args(kind)[0], is_bounded=False)
    if get_origin(kind) is Annotated:
        bare = _list_of(get_args(kind)[0])
        return None if bare is None else _List(bare.entry, is_bounded=True)
    if get_origin(kind) in (Union, UnionType):
        return next((found for option in get_args(kind) if (found := _list_of(option)) is not None), None)
    return None


def _entry(value: object, kind: Any, pointer: str, errors: list[ProblemError]) -> Any:
    """`MISSING` where anything is wrong with it."""
    if is_full(errors):
        return MISSING
    before = len(errors)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        decoded = decode_struct(value, kind, pointer, errors)
    else:
        decoded = convert(value, kind, pointer, errors)
    return decoded if len(errors) == before else MISSING


def _is_component(kind: Any) -> bool:
    """Or a component or null; not what has bounds of its own, as the client's metadata."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return Component in options


def _names(kind: Any) -> list[str]:
    """The strings that a Literal, or a Literal or null, takes; none of any other type."""
    if get_origin(kind) is Literal:
        return [name for name in get_args(kind) if isinstance(name, str)]
    options = [option for option in get_args(kind) if option is not NoneType]
    return _names(options[0]) if len(options) == 1 and get_origin(kind) in (Union, UnionType) else []


@cache
def _types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)
