"""The catalogue of what a spec may name."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType


class ParameterInfo(Struct, omit_defaults=True):
    """`default` is absent where the parameter is required; `note` says why it differs from the signature."""

    name: str
    type: str
    required: bool
    default: Any | UnsetType = UNSET
    inferred: bool = False
    note: str | None = None


class ComponentInfo(Struct):
    """`source` is the page of whoever wrote the class; None for what is Modelyard's own."""

    family: str
    type: str
    doc: str
    parameters: list[ParameterInfo]
    source: str | None = None
