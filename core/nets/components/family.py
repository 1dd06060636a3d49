"""What an allow-list is: a namespace, names in it, and one line for each place where a signature falls short.

Keys of the tables are `Class.keyword`, or `*.keyword` for every class of the family.
"""

from types import ModuleType
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field


class Override(Struct, frozen=True):
    """Replaces what the signature says; `default` unset keeps the signature's."""

    reason: str
    annotation: Any
    default: Any | UnsetType = UNSET


class Extra(Struct, frozen=True):
    """A keyword of ours: it stands in the spec and isn't passed to the class."""

    reason: str
    annotation: Any
    default: Any | UnsetType = UNSET


class ComponentList(Struct, frozen=True):
    """The annotation of a keyword that holds components of a family."""

    family: str


class Family(Struct, frozen=True):
    """`least` bounds the integers of a keyword from below; `inferred` maps a keyword that may be left out
    to the dimension of the input that gives it."""

    name: str
    namespace: ModuleType
    types: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, Override] = field(default_factory=dict)
    extras: dict[str, Extra] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    inferred: dict[str, int] = field(default_factory=dict)
