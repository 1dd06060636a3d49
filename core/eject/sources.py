"""Functions and classes of ours with all that they call, cut out of their modules into one file.

What a script needs of this project is the very code that the job ran, not a copy kept beside it.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

OURS = "core."

_Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass
class _Module:
    """`defined` by name, in the module's own words; `ours` are names that come from another of our modules;
    `imports` are the statements that bring the rest."""

    name: str
    lines: list[str]
    defined: dict[str, _Definition] = field(default_factory=dict)
    ours: dict[str, tuple[str, str]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def import_blocks(statements: Iterable[str]) -> str:
    """Each module once, in the order of isort: the standard library, then what is installed."""
    unique = set(statements)
    bare = {each for each in unique if each.startswith("import ")}
    members: dict[str, set[str]] = {}
    for statement in unique - bare:
        module, names = statement.removeprefix("from ").split(" import ")
        members.setdefault(module, set()).update(names.split(", "))
    lines = [(each.split()[1], each) for each in bare]
    for module, taken in members.items():
        lines.append((module, f"from {module} import {', '.join(sorted(taken, key=in_isort_order))}"))
    blocks = []
    for is_library in (True, False):
        block = [
            each for each in lines if (each[0].partition(".")[0] in sys.stdlib_module_names) is is_library
        ]
        block.sort(key=lambda each: (each[1].startswith("from"), each[0]))
        blocks.append("\n".join(line for _, line in block))
    return "\n\n".join(block for block in blocks if block)


def in_isort_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


class Cutting:
    """A file in the making."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.names: dict[str, None] = {}
        self._modules: dict[str, _Module] = {}
        self._taken: dict[tuple[str, str], None] = {}
        self._parts: list[tuple[_Definition, str]] = []
        self._owners: dict[str, list[str]] = {}

    @property
    def is_empty(self) -> bool:
        return not self._parts

    def name(self, member: Any) -> str:
        """Takes a function or a class with all that it uses. Returns what it is called in the file."""
        called = self._take(member.__module__, member.__name__)
        self.names[called] = None
        return called

    def text(self, heading: str) -> str:
        """The file; `heading` becomes its docstring."""
        return f'"""{heading}"""\n\n{import_blocks(self.imports)}\n{self._definitions()}'

    def _take(self, module_name: str, name: str) -> str:
        module = self._module(module_name)
        if name in module.ours:
            return self._take(*module.ours[name])
        if name in module.imports:
            self.imports.append(module.imports[name])
            return name
        definition = module.defined[name]
        called = self._called(module_name, name)
        if (module_name, name) in self._taken:
            return called
        self._taken[module_name, name] = None
        known = module.defined.keys() | module.ours.keys() | module.imports.keys()
        source = _segment(module, definition)
        for used in dict.fromkeys(node.id for node in ast.walk(definition) if isinstance(node, ast.Name)):
            if used in known and used != name:
                renamed = self._take(module_name, used)
                source = re.sub(rf"\b{used}\b", renamed, source) if renamed != used else source
        if called != name:
            source = re.sub(rf"\b{name}\b", called, source)
        self._parts.append((definition, source))
        return called

    def _definitions(self) -> str:
        """What is used stands before what uses it."""
        parts = []
        was_plain = True  # after imports
        for definition, source in self._parts:
            is_plain = isinstance(definition, ast.Assign | ast.AnnAssign)
            parts.append(("\n" if is_plain and was_plain else "\n\n") + source + "\n")
            was_plain = is_plain
        return "".join(parts)

    def _called(self, module_name: str, name: str) -> str:
        """Two modules may use one name: then the second has a number behind it."""
        owners = self._owners.setdefault(name, [])
        if module_name not in owners:
            owners.append(module_name)
        place = owners.index(module_name)
        return name if place == 0 else f"{name}{place + 1}"

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _read(name)
        return self._modules[name]


def _read(name: str) -> _Module:
    source = inspect.getsource(sys.modules[name])
    module = _Module(name, source.splitlines())
    for node in ast.parse(source).body:
        match node:
            case ast.ImportFrom(module=str() as origin) if origin.startswith(OURS):
                module.ours |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
            case ast.ImportFrom() | ast.Import():
                for alias in node.names:
                    alone = ast.copy_location(_alone(node, alias), node)
                    module.imports[alias.asname or alias.name.partition(".")[0]] = ast.unparse(alone)
            case ast.FunctionDef() | ast.ClassDef():
                module.defined[node.name] = node
            case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(target=ast.Name(id=target)):
                module.defined[target] = node
    return module


def _alone(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(node, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(node.module, [alias], node.level)


def _segment(module: _Module, definition: _Definition) -> str:
    """With its decorators, and with the comment right above."""
    decorators = getattr(definition, "decorator_list", [])
    start = min([definition.lineno, *(each.lineno for each in decorators)]) - 1
    while (
        start > 0
        and module.lines[start - 1].startswith("#")
        and not module.lines[start - 1].startswith("# B ")
    ):
        start -= 1
    return "\n".join(module.lines[start : definition.end_lineno])
