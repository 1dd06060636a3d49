"""`modelyard components`: what a spec may name."""

from modelyard.cli.session import AsJson, Shared
from modelyard.specs import ComponentInfo, ParameterInfo


def components(family: str | None = None, *, as_json: AsJson = False, session: Shared) -> None:
    """All that a spec may name, with parameters and defaults.

    Args:
        family: only these, such as layer, loss, optimizer, scheduler or transform
    """
    with session.client() as client:
        found = client.components(family)
    if as_json:
        session.show_json(found)
        return
    session.show_table(("family", "type", "parameters"), ((c.family, c.type, _signature(c)) for c in found))


def _signature(component: ComponentInfo) -> str:
    return ", ".join(_parameter(parameter) for parameter in component.parameters)


def _parameter(parameter: ParameterInfo) -> str:
    if parameter.inferred:
        return f"{parameter.name} (inferred)"
    return parameter.name if parameter.required else f"{parameter.name}={parameter.default!r}"
