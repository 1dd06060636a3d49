"""The one registry of components: structs made from the signatures of the allow-listed classes.

A component `{"type": "Conv2d", "out_channels": 8, "kernel_size": 3}` names a class and its keywords; which
keywords there are, of which kind and with which default, is torch's to say (`lower.py` turns its types into
what JSON has, `components/` holds the allow-lists and one-line overrides).
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import msgspec
import torch
from msgspec import UNSET, Struct

from core.faults import fault, is_full, join, show, suggestion
from core.nets.components import FAMILIES, JOINED
from core.nets.decode import decode_struct
from core.nets.lower import describe, lift, meaning, struct_of
from core.nets.signatures import Entry, Parameter, read
from core.nets.sources import source_of
from modelyard.specs import ComponentInfo, ParameterInfo, ProblemError

MAX_DEPTH = 32
#: More names than this are not listed in an error.
MAX_SHOWN_NAMES = 40

#: What the child of a keyword that holds components is built into.
Build = Callable[[dict[str, Any]], Any]


def names(family: str) -> list[str]:
    """The types of a family that the installed torch has."""
    return FAMILIES[family].names


def get(family: str, name: str) -> Entry | None:
    """None for a type that is not allow-listed, or that the installed torch lacks."""
    return _entry(family, name)


def add(family: str, name: str, member: Callable[..., Any]) -> None:
    """One more class, under a name that is free. Raises what reading its signature raises, and then it isn't
    added."""
    homes = [FAMILIES[each] for each in (family, *JOINED.get(family, ()))]
    for home in homes:
        home.own[name] = member
    _entry.cache_clear()  # it remembers that there was no such name
    try:
        for home in homes:
            get(home.name, name)
    except Exception:
        for home in homes:
            del home.own[name]
        raise


def catalogue(family: str | None = None) -> list[ComponentInfo]:
    """All that a spec may name; KeyError for an unknown family."""
    families = [name for name in FAMILIES if FAMILIES[name].is_listed] if family is None else [family]
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
    component = {"type": entry.name} | {
        name: msgspec.to_builtins(value) if isinstance(value, Struct) else value
        for name, value in filled.items()
        if value is not UNSET
    }
    before = len(errors)
    for parameter in entry.parameters.values():
        if parameter.only is not UNSET and component.get(parameter.name) != parameter.only:
            message = (
                f"{entry.name}.{parameter.name} is always {show(parameter.only)} here: {parameter.reason}; "
                f"{show(component.get(parameter.name))} came. Leave it out."
            )
            fault(errors, join(pointer, parameter.name), "invalid_value", message)
        if parameter.holds is not None and component.get(parameter.name) is not None:
            component[parameter.name] = _check_held(
                parameter, component[parameter.name], pointer, errors, depth + 1
            )
    return component if len(errors) == before and not is_full(errors) else None


def construct(family: str, component: dict[str, Any], *args: Any, build: Build | None = None) -> Any:
    """The object a checked component names; `args` go first. What it holds is made by `build`, else by
    `construct`, before it is. Raises what the class raises, and KeyError for a type that is not in the
    registry."""
    entry = get(family, component["type"])
    if entry is None:
        raise KeyError(f"no {family} {component['type']!r} in torch as installed")
    keywords: dict[str, Any] = {}
    for name, parameter in entry.parameters.items():
        if not parameter.is_passed or name not in component:
            continue
        value = component[name]
        if parameter.holds is None:
            keywords[name] = lift(parameter.annotation, value)
        elif value is not None:
            make = build or partial(construct, parameter.holds.family)
            keywords[name] = [make(child) for child in value] if parameter.holds.is_list else make(value)
    return entry.make(*args, **keywords)


def _check_held(
    parameter: Parameter, value: Any, pointer: str, errors: list[ProblemError], depth: int
) -> Any:
    assert parameter.holds is not None
    family, here = parameter.holds.family, join(pointer, parameter.name)
    types = parameter.holds.types
    if not parameter.holds.is_list:
        checked = check_component(family, value, here, errors, depth)
        if checked is not None and types and checked["type"] not in types:
            message = f"{parameter.name} is a {' or '.join(types)}; {show(checked['type'])} came. Take one."
            fault(errors, join(here, "type"), "wrong_type", message)
        return checked
    return [
        check_component(family, child, join(here, place), errors, depth) for place, child in enumerate(value)
    ]


def _named(family: str, raw: object, pointer: str, errors: list[ProblemError]) -> Entry | None:
    if not isinstance(raw, dict):
        fault(
            errors,
            pointer,
            "wrong_type",
            f'A {FAMILIES[family].noun} is an object with a "type"; {show(raw)} came.',
        )
        return None
    name = raw.get("type")
    if not isinstance(name, str):
        came = f"{show(name)} came" if "type" in raw else "it is missing"
        fault(
            errors,
            pointer,
            "missing",
            f'A {FAMILIES[family].noun} needs "type", the name of a class; {came}.',
        )
        return None
    entry = get(family, name)
    if entry is None:
        fault(errors, join(pointer, "type"), "unknown_type", _unknown_type(family, name))
    return entry


def _unknown_type(family: str, name: str) -> str:
    valid, noun = names(family), FAMILIES[family].noun
    why = FAMILIES[family].absent.get(name)
    if why is not None:
        return f"The {noun} {show(name)} is left out: {why}."
    if name in FAMILIES[family].types:
        return f"The {noun} {show(name)} is not in torch {torch.__version__}, which is installed here."
    shown = ", ".join(valid) if len(valid) <= MAX_SHOWN_NAMES else f"the {len(valid)} of GET /v1/components"
    return f"There is no {noun} {show(name)}.{suggestion(name, valid)} Valid are: {shown}."


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
            struct = struct_of(parameter.kind)
            if struct is not None and isinstance(value, dict):
                decode_struct(value, struct, join(pointer, name), errors)
                continue
            message = f"{entry.name}.{name} is {meaning(parameter.kind)}{bound}; {show(value)} came."
            fault(errors, join(pointer, name), "invalid_value", message)
    for name, parameter in entry.parameters.items():
        if parameter.is_required and name not in given:
            message = f'{entry.name} needs "{name}" ({meaning(parameter.kind)}); add it.'
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
    return read(FAMILIES[family], name)


def _info(entry: Entry) -> ComponentInfo:
    parameters = [
        ParameterInfo(
            name=parameter.name,
            type=describe(parameter.kind),
            required=parameter.is_required,
            default=parameter.default,
            inferred=parameter.size is not None or parameter.is_optional,
            note=parameter.reason or None,
        )
        for parameter in entry.parameters.values()
    ]
    return ComponentInfo(
        family=entry.family,
        type=entry.name,
        doc=entry.doc,
        parameters=parameters,
        source=source_of(FAMILIES[entry.family], entry.name),
    )
