"""What a signature says: a class's keywords as a struct, with the words of its family beside.

`lower.py` turns torch's types into what JSON has; `components/` holds the allow-lists and one-line overrides.
"""

import collections.abc
import copy
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from core.nets.components.family import Family, Holds, Size
from core.nets.lower import MAX_INT, lower, plain

MAX_CHILDREN = 1000

_Components = Annotated[list[Any], msgspec.Meta(min_length=1, max_length=MAX_CHILDREN)]

#: torch's schedules import these where types are checked alone, and name them in annotations all the same.
_CHECKING_ONLY: dict[str, Any] = {"Callable": Callable, "Iterable": Iterable, "Sequence": Sequence}


class Parameter(Struct, frozen=True):
    """`kind` is what JSON must have, `default` unset where the keyword is required. `size` says which size of
    the input gives the value when it is left out; `holds` which components are in it; `only` the one value
    that is taken."""

    name: str
    annotation: Any
    kind: Any
    default: Any | UnsetType = UNSET
    size: Size | None = None
    is_passed: bool = True
    is_optional: bool = False
    holds: Holds | None = None
    only: Any | UnsetType = UNSET
    reason: str = ""

    @property
    def is_required(self) -> bool:
        return self.default is UNSET and self.size is None and not self.is_optional


class Entry(Struct, frozen=True):
    """A class that a spec may name. `struct` has a field for each parameter."""

    family: str
    name: str
    make: Callable[..., Any]
    struct: type[Struct]
    parameters: dict[str, Parameter]
    left_out: dict[str, str]
    doc: str


def read(home: Family, name: str) -> Entry | None:
    """None for a name that is not listed, or that the installed torch lacks."""
    member = home.find(name)
    if member is None:
        return None
    source = home.signatures.get(name, member)
    parameters = {parameter.name: parameter for parameter in _parameters(home, name, source)}
    struct = msgspec.defstruct(
        name,
        [_field(parameter) for parameter in parameters.values()],
        forbid_unknown_fields=True,
        kw_only=True,
        frozen=True,
    )
    signature = inspect.signature(source).parameters
    left_out = {word: reason for word, reason in _of(home.left_out, name).items() if word in signature}
    doc = " ".join(
        (inspect.getdoc(source if isinstance(member, partial) else member) or "").split("\n\n")[0].split()
    )
    return Entry(home.name, name, member, struct, parameters, left_out, doc)


def _parameters(family: Family, name: str, source: Callable[..., Any]) -> Iterator[Parameter]:
    hints = _hints(source)
    extras = _of(family.extras, name)
    for word, extra in extras.items():
        if isinstance(extra.annotation, Holds):
            yield _holding(word, extra.annotation, extra.is_passed)
    for parameter in inspect.signature(source).parameters.values():
        word = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or word in extras:
            continue
        if word in _of(family.left_out, name):
            continue
        override = _of(family.overrides, name).get(word)
        if override is not None and isinstance(override.annotation, Holds):
            yield _holding(word, override.annotation, is_passed=True)
            continue
        annotation = override.annotation if override else hints.get(word, type(parameter.default))
        kind = lower(annotation, _of(family.least, name).get(word, -MAX_INT))
        if kind is None:
            continue
        default: Any = UNSET if parameter.default is parameter.empty else plain(parameter.default)
        if override is not None and override.default is not UNSET:
            default = override.default
        if default is None:
            kind |= None  # torch writes stride: int = None
        if default is not UNSET:
            # torch writes momentum=0 for a float
            default = msgspec.convert(default, kind, strict=True)
        only = override.only if override is not None else UNSET
        reason = override.reason if override is not None else ""
        size = _of(family.inferred, name).get(word)
        yield Parameter(
            word,
            annotation,
            kind,
            default,
            size,
            is_optional=f"{name}.{word}" in family.from_data,
            only=only,
            reason=reason,
        )
    for word, extra in extras.items():
        if not isinstance(extra.annotation, Holds):
            yield Parameter(
                word,
                extra.annotation,
                lower(extra.annotation, _of(family.least, name).get(word, -MAX_INT)),
                extra.default,
                _of(family.inferred, name).get(word),
                is_passed=extra.is_passed,
                is_optional=extra.is_optional,
                reason=extra.reason,
            )


def _hints(source: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, of a class's `__init__`, or of a struct's fields."""
    if isinstance(source, type):
        init = inspect.getattr_static(source, "__init__")
        source = init if inspect.isfunction(init) else source
    # Some of torch's modules import these names for type checkers alone.
    return typing.get_type_hints(source, localns=vars(collections.abc))


def _holding(word: str, holds: Holds, is_passed: bool) -> Parameter:
    kind: Any = _Components if holds.is_list else dict[str, Any]
    return Parameter(
        word,
        holds,
        kind | None if holds.is_optional else kind,
        None if holds.is_optional else UNSET,
        is_passed=is_passed,
        holds=holds,
    )


def _field(parameter: Parameter) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.default is UNSET:
        if parameter.is_required:
            return (parameter.name, parameter.kind)
        return (parameter.name, parameter.kind | UnsetType, UNSET)
    if parameter.size is not None:
        # torch has a default, and the input knows better
        return (parameter.name, parameter.kind | UnsetType, UNSET)
    default = parameter.default
    if isinstance(default, list | dict):
        return (parameter.name, parameter.kind, msgspec.field(default_factory=lambda: copy.copy(default)))
    return (parameter.name, parameter.kind, default)


def _of(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The lines of a table for one class; `*` and bare keywords are for all, and a class's own line wins."""
    general = {key.split(".")[-1]: value for key, value in table.items() if key[:2] == "*." or "." not in key}
    own = {
        key.split(".")[1]: value for key, value in table.items() if key.split(".")[0] == name and "." in key
    }
    return general | own
