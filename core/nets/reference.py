"""`python -m core.nets.reference DIR`: the reference pages, one a family, from the registry itself.

What stands in them is what the installed torch has; a test compares them with the committed pages, so that a
release that changes a signature is seen.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import UNSET

from core.nets import registry
from core.nets.components import FAMILIES
from core.nets.components.family import Family
from modelyard.specs import ComponentInfo, ParameterInfo

_INTRO = {
    "layer": "What `model` is made of.",
    "architecture": "Whole nets by name, wherever a layer may stand.",
    "loss": "`loss`: what training minimises.",
    "metric": "`metrics`: measured on validation and test rows.",
    "optimizer": "`optimizer`: how weights change.",
    "scheduler": "`scheduler`: how the learning rate changes.",
    "transform": "`transforms`: what happens to images.",
    "prepare": "`prepare`: what happens to the columns of a table, text among them.",
    "target_transform": "`target_transform`: what happens to the target.",
    "initializer": "`initialize`: how parameters begin.",
    "sampler": "`trainer.sampler`: which rows make an epoch, in which order.",
}


def pages() -> dict[str, str]:
    """Markdown by file name."""
    listed = [family for family in FAMILIES.values() if family.is_listed]
    written = {f"{family.name}.md": _page(family) for family in listed}
    total = sum(len(family.names) for family in listed)
    lines = [
        "# What a spec may name",
        "",
        f"{total} components, made from the signatures that torch has.",
        "",
    ]
    lines += [f"- [{family.name}]({family.name}.md): {len(family.names)}" for family in listed]
    return {"README.md": "\n".join(lines) + "\n"} | written


def _page(family: Family) -> str:
    infos = registry.catalogue(family.name)
    lines = [f"# {family.name}", "", _INTRO[family.name], ""]
    lines += ["`inferred`: may be left out, and is then filled in from what comes before.", ""]
    for info in infos:
        lines += _component(info)
    if family.absent:
        lines += ["## Left out", ""]
        lines += [f"- `{name}`: {reason}" for name, reason in sorted(family.absent.items())]
        lines += [""]
    if family.left_out:
        lines += ["## Keywords left out", ""]
        lines += [f"- `{key}`: {reason}" for key, reason in sorted(family.left_out.items())]
        lines += [""]
    return "\n".join(lines)


def _component(info: ComponentInfo) -> Iterator[str]:
    yield f"## {info.type}"
    yield ""
    source = f" ([source]({info.source}))" if info.source else ""
    yield f"{info.doc}{source}"
    yield ""
    if info.parameters:
        yield "| keyword | type | default | note |"
        yield "|---|---|---|---|"
        yield from (_row(parameter) for parameter in info.parameters)
        yield ""


def _row(parameter: ParameterInfo) -> str:
    kind = parameter.type.replace("|", "\\|")
    return f"| `{parameter.name}` | {kind} | {_default(parameter)} | {parameter.note or ''} |"


def _default(parameter: ParameterInfo) -> str:
    if parameter.inferred:
        return "inferred"
    if parameter.required:
        return "required"
    if parameter.default is UNSET:
        return "left to torch"
    return f"`{msgspec.json.encode(parameter.default).decode()}`"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
