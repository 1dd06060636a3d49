"""The one registry of components: structs made from the signatures of the allow-listed classes.

A component `{"type": "Conv2d", "out_channels": 8, "kernel_size": 3}` names a class and its keywords; which
keywords there are, of which kind and with which default, is torch's to say (`lower.py` turns its types into
what JSON has, `components/` holds the allow-lists and one-line overrides).
"""

import inspect
import typing
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from core.nets.components import FAMILIES
from core.nets.components.family import ComponentList, Family
from core.nets.faults import fault, is_full, join, show, suggestion
from core.nets.lower import MAX_INT, describe, lift, lower, plain
from modelyard.specs import ComponentInfo, ParameterInfo, ProblemError

MAX_DEPTH = 32
MAX_CHILDREN = 1000

_Components = Annotated[list[Any], msgspec.Meta(min_length=1, max_length=MAX_CHILDREN)]


class Parameter(Struct, frozen=True):
    """`kind` is what JSON must have, `default` unset where the keyword is required. `dim` is the dimension
    of the input that gives the value when it is left out; `holds` the family of the components in it."""

    name: str
    annotation: Any
    kind: Any
    default: Any | UnsetType = UNSET
    dim: int | None = None
    is_passed: bool = True
    holds: str | None = None

    @property
    def is_required(self) -> bool:
        return self.default is UNSET and self.dim is None


class Entry(Struct, frozen=True):
    """A class that a spec may name. `struct` has a field for each parameter."""

    family: str
    name: str
    make: Callable[..., Any]
    struct: type[Struct]
    parameters: dict[str, Parameter]
    left_out: dict[str, str]
    doc: str


def names(family: str) -> list[str]:
    """The types of a family that the installed torch has."""
    return [name for name in FAMILIES[family].types if hasattr(FAMILIES[family].namespace, name)]


def get(family: str, name: str) -> Entry | None:
    """None for a type that is not allow-listed, or that the installed torch lacks."""
    return _entry(family, name) if name in FAMILIES[family].types else None


def catalogue(family: str | None = None) -> list[ComponentInfo]:
    """All that a spec may name; KeyError for an unknown family."""
    families = list(FAMILIES) if family is None else [family]
    entries = [_entry(family, name) for family in families for name in names(family)]
    return [_info(entry) for entry in entries if entry is not None]


def check_component(
    family: str, raw: object, pointer: str, errors: list[ProblemError], depth: int = 0
) -> dict[str, Any] | None:
    """The component with every default filled in; sizes that the walk infers stay absent. None where
    something is wrong, and then `errors` holds all of it."""
    if is_full(errors):
        return None
    entry = _named(family, raw, pointer, errors)
    if entry is None or not isinstance(raw, dict):
        return None
    if depth > MAX_DEPTH:
        fault(errors, pointer, "too_large", f"A net nests at most {MAX_DEPTH} levels; take a level out.")
        return None
    given = {name: value for name, value in raw.items() if name != "type"}
    try:
        struct: Any = msgspec.convert(given, entry.struct, strict=True)
    except msgspec.ValidationError:
        _explain(entry, given, pointer, errors)
        return None
    filled = {name: getattr(struct, name) for name in entry.parameters}
    component = {"type": entry.name} | {name: value for name, value in filled.items() if value is not UNSET}
    before = len(errors)
    for parameter in entry.parameters.values():
        if parameter.holds is not None:
            component[parameter.name] = [
                check_component(
                    parameter.holds, child, join(pointer, parameter.name, place), errors, depth + 1
                )
                for place, child in enumerate(component[parameter.name])
            ]
    return component if len(errors) == before and not is_full(errors) else None


def construct(family: str, component: dict[str, Any], *args: Any) -> Any:
    """The object a checked component names; `args` go first. Raises what the class raises, and KeyError
    for a type that is not in the registry."""
    entry = get(family, component["type"])
    if entry is None:
        raise KeyError(f"no {family} {component['type']!r} in torch as installed")
    keywords = {
        name: lift(parameter.annotation, component[name])
        for name, parameter in entry.parameters.items()
        if parameter.is_passed and name in component
    }
    return entry.make(*args, **keywords)


def _named(family: str, raw: object, pointer: str, errors: list[ProblemError]) -> Entry | None:
    if not isinstance(raw, dict):
        fault(errors, pointer, "wrong_type", f'A {family} is an object with a "type"; {show(raw)} came.')
        return None
    name = raw.get("type")
    if not isinstance(name, str):
        came = f"{show(name)} came" if "type" in raw else "it is missing"
        fault(errors, pointer, "missing", f'A {family} needs "type", the name of a class; {came}.')
        return None
    entry = get(family, name)
    if entry is None:
        valid = names(family)
        hint = suggestion(name, valid)
        message = f"There is no {family} {show(name)}.{hint} Valid are: {', '.join(valid)}."
        fault(errors, join(pointer, "type"), "unknown_type", message)
    return entry


def _explain(entry: Entry, given: dict[str, Any], pointer: str, errors: list[ProblemError]) -> None:
    for name, value in given.items():
        parameter = entry.parameters.get(name)
        if parameter is None:
            fault(errors, join(pointer, str(name)), "unknown_keyword", _unknown(entry, str(name)))
            continue
        try:
            msgspec.convert(value, parameter.kind, strict=True)
        except msgspec.ValidationError as error:
            bound = f" ({error})" if "<=" in str(error) or ">=" in str(error) else ""
            message = f"{entry.name}.{name} is {describe(parameter.kind)}{bound}; {show(value)} came."
            fault(errors, join(pointer, name), "invalid_value", message)
    for name, parameter in entry.parameters.items():
        if parameter.is_required and name not in given:
            message = f'{entry.name} needs "{name}" ({describe(parameter.kind)}); add it.'
            fault(errors, pointer, "missing", message)


def _unknown(entry: Entry, name: str) -> str:
    if name in entry.left_out:
        return f"{entry.name} takes no {show(name)} here: {entry.left_out[name]}. Leave it out."
    takes = ", ".join(entry.parameters) or "none"
    return (
        f"{entry.name} takes no {show(name)}.{suggestion(name, entry.parameters)} Its keywords are: {takes}."
    )


@cache
def _entry(family: str, name: str) -> Entry | None:
    """None where the installed torch lacks the class."""
    home = FAMILIES[family]
    cls = getattr(home.namespace, name, None)
    if cls is None:
        return None
    parameters = {parameter.name: parameter for parameter in _parameters(home, cls)}
    struct = msgspec.defstruct(
        name,
        [_field(parameter) for parameter in parameters.values()],
        forbid_unknown_fields=True,
        kw_only=True,
        frozen=True,
    )
    signature = inspect.signature(cls).parameters
    left_out = {word: reason for word, reason in _of(home.left_out, name).items() if word in signature}
    doc = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return Entry(family, name, cls, struct, parameters, left_out, doc)


def _parameters(family: Family, cls: type) -> typing.Iterator[Parameter]:
    name = cls.__name__
    hints = typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    for word, extra in _of(family.extras, name).items():
        if isinstance(extra.annotation, ComponentList):
            held = extra.annotation.family
            yield Parameter(word, extra.annotation, _Components, is_passed=False, holds=held)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in _of(family.left_out, name):
            continue
        override = _of(family.overrides, name).get(parameter.name)
        annotation = override.annotation if override else hints[parameter.name]
        kind = lower(annotation, family.least.get(parameter.name, -MAX_INT))
        if kind is None:
            continue
        default: Any = UNSET if parameter.default is parameter.empty else plain(parameter.default)
        if override is not None and override.default is not UNSET:
            default = override.default
        if default is not UNSET:
            # torch writes momentum=0 for a float
            default = msgspec.convert(default, kind, strict=True)
        yield Parameter(parameter.name, annotation, kind, default, family.inferred.get(parameter.name))
    for word, extra in _of(family.extras, name).items():
        if not isinstance(extra.annotation, ComponentList):
            yield Parameter(word, extra.annotation, lower(extra.annotation), extra.default, is_passed=False)


def _field(parameter: Parameter) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.dim is not None:
        return (parameter.name, parameter.kind | UnsetType, UNSET)
    if parameter.default is UNSET:
        return (parameter.name, parameter.kind)
    default = parameter.default
    if isinstance(default, list):
        return (parameter.name, parameter.kind, msgspec.field(default_factory=lambda: list(default)))
    return (parameter.name, parameter.kind, default)


def _of(table: dict[str, Any], name: str) -> dict[str, Any]:
    return {key.split(".")[1]: value for key, value in table.items() if _names(key, name)}


def _names(key: str, name: str) -> bool:
    return key.split(".")[0] in ("*", name)


def _info(entry: Entry) -> ComponentInfo:
    parameters = [
        ParameterInfo(
            name=parameter.name,
            type=describe(parameter.kind),
            required=parameter.is_required,
            default=parameter.default,
            inferred=parameter.dim is not None,
        )
        for parameter in entry.parameters.values()
    ]
    return ComponentInfo(family=entry.family, type=entry.name, doc=entry.doc, parameters=parameters)
