"""One function from a torch annotation to what JSON can say, and one back from the JSON value to torch's.

The rules: Tensor, Callable and mappings drop out of unions; any sequence of one kind is a list; an Enum is
the Literal of its spellings, and then the `str` or `int` beside it, which are other ways to name the same
choice, drop out too; torch.dtype is a Literal; Number is float. Integers stay below 2**31, floats within
what float32 holds, strings and lists are short.
"""

import types
import typing
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import reduce
from numbers import Number
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import torch

MAX_INT = 2**31 - 1
MAX_FLOAT = 1e38
MAX_ITEMS = 1000

DTYPES = ("bfloat16", "float16", "float32", "float64", "uint8", "int16", "int32", "int64")

Float = Annotated[float, msgspec.Meta(ge=-MAX_FLOAT, le=MAX_FLOAT)]
String = Annotated[str, msgspec.Meta(max_length=200)]


def lower(annotation: Any, least: int = -MAX_INT) -> Any:
    """The type a JSON value must have, or None where JSON has no value for it but null.

    `least` bounds every integer in it from below.
    """
    members = _members(annotation)
    has_enum = any(_is_enum(member) for member in members)
    plain: list[Any] = []
    choices: list[str | int | bool] = []
    lists: list[Any] = []
    for member in members:
        if get_origin(member) is Annotated:
            plain.append(member)  # it has its bounds already
        elif _is_enum(member):
            choices += spellings(member)
        elif member is torch.dtype:
            choices += DTYPES
        elif get_origin(member) is Literal:
            choices += get_args(member)
        elif member is bool:
            plain.append(bool)
        elif member is int and not has_enum:
            plain.append(Annotated[int, msgspec.Meta(ge=least, le=MAX_INT)])
        elif member is float or member is Number:
            plain.append(Float)
        elif member is str and not has_enum:
            plain.append(String)
        elif get_origin(member) in (tuple, list, Sequence, Iterable):
            lists.append(member)
        elif _is_struct(member):
            plain.append(member)
    if choices:
        plain.append(Literal[tuple(choices)])
    if lists:
        plain.append(_list(lists, least))
    if not plain:
        return None
    if types.NoneType in members:
        plain.append(types.NoneType)
    return reduce(or_, plain)


def lift(annotation: Any, value: Any) -> Any:
    """The value torch wants for a JSON value that fits `lower(annotation)`: Enum, dtype, tuple."""
    members = _members(annotation)
    if isinstance(value, str):
        for member in members:
            if _is_enum(member):
                return spellings(member)[value]
        return getattr(torch, value) if torch.dtype in members else value
    if isinstance(value, list) and any(get_origin(member) is tuple for member in members):
        return tuple(value)
    return value


def plain(value: Any) -> Any:
    """A default of torch's as JSON has it: the inverse of `lift`."""
    if isinstance(value, Enum):
        return next(word for word, member in spellings(type(value)).items() if member is value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def spellings(enum: type[Enum]) -> dict[str, Enum]:
    """The words for an Enum's members: the values where all are strings (torchvision writes "bilinear"
    itself), else the names."""
    if all(isinstance(member.value, str) for member in enum):
        return {member.value: member for member in enum}
    return {member.name: member for member in enum}


def describe(kind: Any) -> str:
    """A lowered type in words: `integer >= 1 | list of integer >= 1 | null`."""
    return " | ".join(_describe(member) for member in _members(kind))


def meaning(kind: Any) -> str:
    """What a value stands for, where the type says so in its title; else the type in words."""
    meta = get_args(kind)[1] if get_origin(kind) is Annotated else None
    return getattr(meta, "title", None) or describe(kind)


def struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """The struct that an object of this type is."""
    return next((member for member in _members(kind) if _is_struct(member)), None)


def _describe(kind: Any) -> str:
    meta: msgspec.Meta | None = None
    if get_origin(kind) is Annotated:
        kind, meta = get_args(kind)
    if kind is int:
        least = meta.ge if meta else None
        return "integer" if least in (None, -MAX_INT) else f"integer >= {least}"
    if get_origin(kind) is Literal:
        return " | ".join(
            f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in get_args(kind)
        )
    if get_origin(kind) is list:
        count = (
            f"{meta.min_length} " if meta and meta.min_length and meta.min_length == meta.max_length else ""
        )
        (item,) = get_args(kind)
        inner = describe(item)
        return f"list of {count}({inner})" if " | " in inner else f"list of {count}{inner}"
    if _is_struct(kind):
        fields = msgspec.structs.fields(kind)
        return "{" + ", ".join(f'"{field.name}": {describe(field.type)}' for field in fields) + "}"
    if get_origin(kind) is dict:
        return "component"
    return {Any: "component", bool: "boolean", float: "number", str: "string", types.NoneType: "null"}[kind]


def _list(lists: list[Any], least: int) -> Any:
    """One list type for all the sequences of a union: msgspec tells no two lists apart."""
    items: list[Any] = []
    lengths: set[int | None] = set()
    for sequence in lists:
        args = get_args(sequence)
        is_fixed = get_origin(sequence) is tuple and Ellipsis not in args
        lengths.add(len(args) if is_fixed else None)
        items += [arg for arg in args if arg is not Ellipsis]
    item = lower(typing.Union[tuple(items)], least)  # noqa: UP007  built at run time
    length = lengths.pop() if len(lengths) == 1 else None
    bounds = msgspec.Meta(min_length=length or 1, max_length=length or MAX_ITEMS)
    return Annotated[list.__class_getitem__(item), bounds]


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return get_args(annotation)
    return (types.NoneType if annotation is None else annotation,)


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Enum)
