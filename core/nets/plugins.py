"""Layers, transforms and losses of packages that the operator has installed and named in MODELYARD_PLUGINS.

A package offers them as entry points; nothing of it is imported unless it is named. They join the registry's
families under rules that keep a spec's words torch's own: no name of torch's is taken, every keyword has its
annotation. `load` is called once at the start of each process that builds nets.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, Literal

from msgspec import Struct
from torch import nn

from core.data.tasks import LOSS_TASKS
from core.errors import Unavailable
from core.nets import registry
from core.nets.components import FAMILIES
from core.nets.components.facts import ARITY
from core.nets.components.transforms import FACTS, Fact
from core.nets.lower import lower
from modelyard.specs.jobspec import Task

#: The entry points of a package, and the family that each group joins.
GROUPS = {"modelyard.layers": "layer", "modelyard.transforms": "transform", "modelyard.losses": "loss"}

#: The setting's word for every package that offers something.
ALL = "all"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_MOST_INPUTS = 100


class PluginError(Exception):
    """A package can't be taken as it is; the message is for whoever started the process."""


class Plugin(Struct, frozen=True):
    """A class and where it comes from."""

    family: str
    name: str
    package: str
    version: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


def load(setting: str) -> list[Plugin]:
    """Adds what the named packages offer to the registry; a second call adds nothing. Raises PluginError that
    names the package and what to mend."""
    if not setting.strip():
        return []
    offered = [(GROUPS[group], point) for group in GROUPS for point in metadata.entry_points(group=group)]
    wanted = {_normal(name) for name in setting.split(",") if name.strip()}
    found = {_normal(_distribution(point).name) for _, point in offered}
    if wanted != {ALL} and (missing := sorted(wanted - found)):
        raise PluginError(
            f"MODELYARD_PLUGINS names {', '.join(missing)}, which offers no {', '.join(GROUPS)} here; "
            f"packages that do: {', '.join(sorted(found)) or 'none'}. Install it, or take it out."
        )
    return [
        _add(family, point)
        for family, point in offered
        if wanted == {ALL} or _normal(_distribution(point).name) in wanted
    ]


def used(*parts: Any) -> dict[str, str]:
    """The plugins that parts of a spec name: `{"<type>": "<package>==<version>"}`."""
    return {name: _LOADED[name].requirement for name in _types(list(parts)) if name in _LOADED}


def used_by(spec: dict[str, Any]) -> dict[str, str]:
    """The plugins that a whole spec names."""
    return used(*_parts(spec).values())


def require(requirements: dict[str, str]) -> None:
    """Raises Unavailable where this process lacks one of the plugins with which a version was trained."""
    missing = {name: requirement for name, requirement in requirements.items() if name not in _LOADED}
    if missing:
        raise Unavailable(
            f"The model uses {_shown(missing)}, and no such plugin is loaded here; install the package and "
            "name it in MODELYARD_PLUGINS.",
            code="plugin_missing",
        )


def check(spec: dict[str, Any], began_with: dict[str, str] | None) -> None:
    """Before a checked spec trains here: raises PluginError where it names what this process lacks, or where
    an earlier attempt used other versions, with which it would not be the same training."""
    lacking = [
        f"the {FAMILIES[family].noun} {name}"
        for family, part in _parts(spec).items()
        for name in dict.fromkeys(_types(part))
        if registry.get(family, name) is None
    ]
    if lacking:
        raise PluginError(
            f"This worker lacks {', '.join(lacking)}: the service that checked the job has a plugin, or a "
            "torch, that this worker has not."
        )
    here = used_by(spec)
    if began_with is not None and began_with != here:
        raise PluginError(
            f"The job began with the plugins {_shown(began_with)}, and this worker has {_shown(here)}."
        )


#: What this process has loaded, by the type that a spec names.
_LOADED: dict[str, Plugin] = {}


def _parts(spec: dict[str, Any]) -> dict[str, Any]:
    """Where a spec may name plugins, by their family. Its metadata may hold anything."""
    return {"model": spec["model"], "loss": spec.get("loss"), "transform": spec.get("transforms")}


def _types(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        for child in value.values():
            yield from _types(child)
    elif isinstance(value, list):
        for child in value:
            yield from _types(child)


def _shown(requirements: dict[str, str]) -> str:
    return ", ".join(f"{name} of {requirement}" for name, requirement in requirements.items()) or "none"


def _normal(package: str) -> str:
    """As the packaging specification compares names."""
    return re.sub(r"[-_.]+", "-", package.strip()).lower()


def _distribution(point: metadata.EntryPoint) -> metadata.Distribution:
    assert point.dist is not None, "entry points are those of installed packages"
    return point.dist


def _add(family: str, point: metadata.EntryPoint) -> Plugin:
    distribution = _distribution(point)
    plugin = Plugin(family, point.name, distribution.name, distribution.version)
    if _LOADED.get(plugin.name) == plugin:
        return plugin
    _check_name(plugin)
    try:
        member = point.load()
    except Exception as error:  # a package may do anything when it is imported
        raise _fault(plugin, f"its import failed: {type(error).__name__}: {error}") from error
    if not isinstance(member, type) or not issubclass(member, nn.Module):
        raise _fault(plugin, f"it is a subclass of torch.nn.Module, and {point.value} is not")
    _check_keywords(plugin, member)
    note = _NOTES[family]
    note(plugin, member)
    try:
        registry.add(family, plugin.name, member)
    except Exception as error:  # a default that its annotation doesn't allow, say
        raise _fault(plugin, f"its signature can't be read: {error}") from error
    _LOADED[plugin.name] = plugin
    return plugin


def _check_name(plugin: Plugin) -> None:
    family = FAMILIES[plugin.family]
    if not _NAME.fullmatch(plugin.name):
        raise _fault(plugin, "a name has letters, digits and _, and at most 63 of them")
    if plugin.name in _LOADED:
        raise _fault(plugin, f"{_LOADED[plugin.name].requirement} has the name already; install one of them")
    homes = [family, FAMILIES["model"]] if plugin.family == "layer" else [family]
    is_taken = any(plugin.name in home.names or plugin.name in home.absent for home in homes)
    if is_taken or hasattr(family.namespace, plugin.name):
        raise _fault(plugin, "torch or Modelyard has the name; a plugin never takes one: rename it")


def _check_keywords(plugin: Plugin, member: type[nn.Module]) -> None:
    """Every keyword says what JSON it takes, and none is a word that specs use themselves."""
    init = member.__init__
    if init is nn.Module.__init__:
        return
    hints = typing.get_type_hints(init)
    for word, parameter in list(inspect.signature(init).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise _fault(plugin, f"a spec can't give {parameter} of its __init__: name each keyword")
        if word in _reserved(plugin.family):
            raise _fault(plugin, f"specs use the word {word!r} themselves: rename that keyword")
        if word not in hints:
            raise _fault(plugin, f"its keyword {word!r} has no annotation: a spec's value is checked by it")
        if lower(hints[word]) is None and parameter.default is parameter.empty:
            raise _fault(
                plugin, f"no JSON value fits the annotation of its keyword {word!r}; give it a default"
            )


def _reserved(family: str) -> set[str]:
    homes = [FAMILIES[family], *([FAMILIES["node"]] if family == "layer" else [])]
    tables = [table for home in homes for table in (home.left_out, home.extras)]
    return {"type"} | {key[2:] for table in tables for key in table if key.startswith("*.")}


def _note_layer(plugin: Plugin, member: type[nn.Module]) -> None:
    """A layer takes as many inputs as its `forward` has parameters."""
    parameters = list(inspect.signature(member.forward).parameters.values())[1:]
    least = sum(
        parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        for parameter in parameters
    )
    is_open = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    if not parameters:
        raise _fault(plugin, "its forward takes no input")
    ARITY[plugin.name] = (max(1, least), _MOST_INPUTS if is_open else len(parameters))


def _note_transform(plugin: Plugin, member: type[nn.Module]) -> None:
    is_random, takes = getattr(member, "is_random", None), getattr(member, "takes", "any")
    pixels: dict[str, Literal["any", "uint8", "float"]] = {"any": "any", "uint8": "uint8", "float": "float"}
    if not isinstance(is_random, bool):
        raise _fault(plugin, "a transform's class says `is_random = True` or `is_random = False`")
    if takes not in pixels:
        raise _fault(plugin, f'a transform\'s class says `takes = "any"`, "uint8" or "float", not {takes!r}')
    FACTS[plugin.name] = Fact(
        is_random=is_random,
        takes=pixels[takes],
        keeps_size=bool(getattr(member, "keeps_size", True)),
        recolours=bool(getattr(member, "recolours", False)),
    )


def _note_loss(plugin: Plugin, member: type[nn.Module]) -> None:
    tasks = getattr(member, "tasks", None)
    valid = typing.get_args(Task)
    if not isinstance(tasks, tuple) or not tasks or any(task not in valid for task in tasks):
        raise _fault(plugin, f"a loss's class says `tasks`, a tuple of {', '.join(valid)}")
    LOSS_TASKS[plugin.name] = tasks


_NOTES: dict[str, Callable[[Plugin, type[nn.Module]], None]] = {
    "layer": _note_layer,
    "transform": _note_transform,
    "loss": _note_loss,
}


def _fault(plugin: Plugin, why: str) -> PluginError:
    return PluginError(f"The {plugin.family} {plugin.name} of {plugin.requirement} can't be loaded: {why}.")
