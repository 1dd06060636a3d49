"""The page at /schema: routes, parameters, bodies, replies. No script, nothing from outside."""

import json
from html import escape
from typing import Any

METHODS = ("get", "put", "post", "patch", "delete")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; text-transform: capitalize; }
section { border-top: 1px solid #ddd; padding: .5rem 0 1rem; }
code, pre, h3 { font-family: ui-monospace, monospace; }
h3 { font-size: 1rem; margin: .75rem 0 .25rem; overflow-wrap: anywhere; }
.method { display: inline-block; min-width: 4.5rem; font-weight: bold; color: #06548c; }
.scope { color: #666; font-weight: normal; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0; }
pre { background: #f6f6f6; padding: .75rem; overflow-x: auto; font-size: .85rem; }
a { color: #06548c; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } pre { background: #222; } section { border-color: #444; }
  a, .method { color: #7cc0f4; } .scope { color: #aaa; }
}
"""


def render_page(schema: dict[str, Any]) -> str:
    """`schema` is an OpenAPI document as plain values."""
    info = schema["info"]
    groups = _by_tag(schema["paths"])
    shapes = sorted(schema["components"]["schemas"].items())
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])}</title>",
            '<link rel="stylesheet" href="/schema/style.css"></head><body>',
            f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])} ",
            'The same as <a href="/schema/openapi.json">OpenAPI 3.1</a>.</p>',
            *(_group(tag, operations) for tag, operations in groups.items()),
            "<h2>Shapes</h2>",
            *(_shape(name, shape) for name, shape in shapes),
            "</body></html>",
        ]
    )


def _by_tag(paths: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, item in sorted(paths.items()):
        for method in METHODS:
            if method in item:
                tag = (item[method].get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append((method, path, item[method]))
    return groups


def _group(tag: str, operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    return f"<h2>{escape(tag)}</h2>" + "".join(_operation(*one) for one in operations)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    scope = operation["x-scope"]
    needed = "open" if scope == "open" else f"needs {scope}"
    return "".join(
        [
            f'<section><h3><span class="method">{method.upper()}</span> {escape(path)} ',
            f'<span class="scope">{escape(needed)}</span></h3>',
            f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>",
            _parameters(operation.get("parameters", [])),
            _contents("Body", operation.get("requestBody", {}).get("content", {})),
            *(
                _contents(f"Reply {status}", reply.get("content", {}), reply.get("description", ""))
                for status, reply in operation["responses"].items()
            ),
            "</section>",
        ]
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{_kind(one.get('schema', {}))}</td><td>{escape(one.get('description') or '')}</td></tr>"
        for one in parameters
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _contents(title: str, content: dict[str, Any], description: str = "") -> str:
    if not content:
        return f"<div>{escape(title)}: {escape(description)}</div>" if description else ""
    shown = ", ".join(
        f"<code>{escape(kind)}</code> {_kind(one.get('schema', {}))}" for kind, one in content.items()
    )
    return f"<div>{escape(title)}: {shown}</div>"


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words; a named one as a link to its shape."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if options := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_kind(option) for option in options)
    if "enum" in schema:
        return escape(", ".join(str(value) for value in schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("default", "default"))
        if key in schema
    ]
    return escape(" ".join([str(schema.get("type", "anything")), *bounds]))


def _shape(name: str, schema: dict[str, Any]) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False, default=str)
    return f'<section id="{escape(name)}"><h3>{escape(name)}</h3><pre>{escape(text)}</pre></section>'
