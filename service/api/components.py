"""`/v1/components`: all that a spec may name."""

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from core.errors import Invalid
from core.nets.components import FAMILIES
from core.nets.registry import catalogue
from modelyard.specs import ComponentInfo
from service.auth import Scope, needs

_LISTED = [name for name, family in FAMILIES.items() if family.is_listed]

Family = Annotated[str | None, QueryParameter(description=f"one of {', '.join(_LISTED)}")]


class Components(Controller):
    path = "/v1/components"
    tags = ("jobs",)

    @get(opt=needs(Scope.READ), sync_to_thread=True)
    def list_all(self, family: Family = None) -> list[ComponentInfo]:
        """With parameters, types, defaults and a line of docs."""
        if family is not None and family not in _LISTED:
            raise Invalid(
                f"family: expected one of {', '.join(_LISTED)}, got {family[:100]!r}.", code="unknown_family"
            )
        return catalogue(family)
