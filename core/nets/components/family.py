"""What an allow-list is: a namespace, names in it, and one line for each place where a signature falls short.

Keys of the tables are `Class.keyword`, or `*.keyword` for every class of the family.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field


class Override(Struct, frozen=True):
    """Replaces what the signature says; `default` unset keeps the signature's. `only` is the one value that
    is taken: the keyword may be written, as a script would, but not otherwise."""

    reason: str
    annotation: Any
    default: Any | UnsetType = UNSET
    only: Any | UnsetType = UNSET


class Extra(Struct, frozen=True):
    """A keyword that the signature lacks; `is_passed` where the class takes it all the same. With
    `is_optional` it may stay away, and then nothing is passed."""

    reason: str
    annotation: Any
    default: Any | UnsetType = UNSET
    is_passed: bool = False
    is_optional: bool = False


class Holds(Struct, frozen=True):
    """The annotation of a keyword that holds components of a family, or of some `types` in it: one, or a list
    of them."""

    family: str
    is_list: bool = True
    is_optional: bool = False
    types: tuple[str, ...] = ()


class Size(Struct, frozen=True):
    """A keyword that may be left out: the size of dimension `dim` of the layer's input number `of`. With
    `is_list` the keyword takes it as a list of one."""

    dim: int
    of: int = 0
    is_list: bool = False


class Family(Struct, frozen=True):
    """An allow-list.

    `types` are names in `namespace`; `own` are classes or functions by the name a spec gives them, which
    win over the namespace. `signatures` says where the signature of a name is read when its own hides it.
    `absent` are the namespace's classes that no spec may name, each with the reason. `least` bounds the
    integers of a keyword from below; `inferred` maps a keyword that may be left out to where its value
    comes from, and those `from_data` are filled in from the dataset. `is_listed` families stand in the
    catalogue.
    """

    name: str
    namespace: ModuleType
    types: tuple[str, ...]
    own: dict[str, Callable[..., Any]] = field(default_factory=dict)
    signatures: dict[str, Callable[..., Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, Override] = field(default_factory=dict)
    extras: dict[str, Extra] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    inferred: dict[str, Size] = field(default_factory=dict)
    from_data: frozenset[str] = frozenset()
    is_listed: bool = True

    @property
    def noun(self) -> str:
        """What an error calls a member: a model or a node of a Graph is a layer to whoever wrote it."""
        return self.name if self.is_listed else "layer"

    def find(self, name: str) -> Callable[..., Any] | None:
        """None for a name that is not listed, or that the installed torch lacks."""
        if name in self.own:
            return self.own[name]
        return getattr(self.namespace, name, None) if name in self.types else None

    @property
    def names(self) -> list[str]:
        """In the order of the list, those of ours after torch's."""
        types = [name for name in self.types if self.find(name) is not None]
        return types + [name for name in self.own if name not in self.types]


def joined(name: str, first: Family, second: Family, extras: dict[str, Extra] | None = None) -> Family:
    """A family that names all that two others name, with further keywords. Not listed: its members are."""
    members = {
        name: member
        for family in (first, second)
        for name in family.names
        if (member := family.find(name)) is not None
    }
    return msgspec.structs.replace(
        first,
        name=name,
        types=(),
        own=members,
        signatures=first.signatures | second.signatures,
        left_out=first.left_out | second.left_out,
        overrides=first.overrides | second.overrides,
        extras=first.extras | second.extras | (extras or {}),
        least=first.least | second.least,
        inferred=first.inferred | second.inferred,
        from_data=first.from_data | second.from_data,
        is_listed=False,
    )
