"""Python expressions as a tree, printed as `ruff format` prints them: what fits stays on a line, the rest is
opened bracket by bracket."""

import re
from collections.abc import Sequence
from enum import Enum

import torch
from msgspec import Struct

WIDTH = 88

_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Bracketed(Struct, frozen=True):
    """`head(a, name=b)` with `bracket` (, [ or {. Each item is what stands before it (`name=`) and itself.
    One that `is_open` has an item a line, whatever its length."""

    items: list[tuple[str, "Node"]]
    head: str = ""
    bracket: str = "("
    is_open: bool = False


Node = str | Bracketed


def call(head: str, *arguments: Node, **keywords: Node) -> Bracketed:
    named = [(f"{name}=", value) for name, value in keywords.items()]
    return Bracketed([("", value) for value in arguments] + named, head)


def literal(value: object) -> Node:
    """A value of a spec, as torch takes it. Raises TypeError for what is none."""
    match value:
        case None | bool() | int():
            return repr(value)
        case float():
            return repr(value) if abs(value) != float("inf") and value == value else f'float("{value}")'
        case Enum():
            return f"v2.{type(value).__name__}.{value.name}"
        case str():
            return text(value)
        case torch.dtype():
            return str(value)
        case tuple() if len(value) == 1:
            return f"({flat(literal(value[0]))},)"
        case tuple() | list():
            bracket = "(" if isinstance(value, tuple) else "["
            return Bracketed([("", literal(item)) for item in value], bracket=bracket)
    raise TypeError(f"no literal for a {type(value).__name__}")


def text(value: str) -> str:
    """A string in ASCII; raw where that spares backslashes."""
    if re.fullmatch(r"[ !#-&(-~]*\\[ !#-&(-~]*", value) and not value.endswith("\\"):
        return f'r"{value}"'
    printed = ascii(value)
    return f'"{printed[1:-1]}"' if '"' not in value and "'" not in value else printed


def show(node: Node, indent: int = 0, before: int = 0, after: int = 0) -> str:
    """From where `before` columns of its line are taken beside the `indent`, with `after` to come."""
    line = flat(node)
    if line is not None and indent + before + len(line) + after <= WIDTH:
        return line
    if isinstance(node, str):
        return node
    pad, close = " " * (indent + 4), _CLOSING[node.bracket]
    parts = [flat(item) for _, item in node.items]
    inner = None
    if node.bracket == "(" and node.head and not node.is_open and None not in parts:
        joined = ", ".join(f"{word}{part}" for (word, _), part in zip(node.items, parts, strict=True))
        inner = f"{pad}{joined}\n" if len(pad) + len(joined) <= WIDTH else None
    if inner is None:
        lines = [f"{pad}{word}{show(item, indent + 4, len(word), 1)},\n" for word, item in node.items]
        inner = "".join(lines)
    return f"{node.head}{node.bracket}\n{inner}{' ' * indent}{close}"


def flat(node: Node) -> str | None:
    """On one line; None where a bracket in it is open."""
    if isinstance(node, str):
        return node
    parts = [flat(item) for _, item in node.items]
    if node.is_open or None in parts:
        return None
    joined = ", ".join(f"{word}{part}" for (word, _), part in zip(node.items, parts, strict=True))
    return f"{node.head}{node.bracket}{joined}{_CLOSING[node.bracket]}"


def assign(name: str, node: Node, indent: int = 0) -> str:
    """`name = node`, a whole line or several."""
    return f"{' ' * indent}{name} = {show(node, indent, len(name) + 3)}"


def statement(node: Node, indent: int = 0) -> str:
    return f"{' ' * indent}{show(node, indent)}"


def block(lines: Sequence[str]) -> str:
    return "\n".join(lines)
