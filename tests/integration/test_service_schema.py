"""/schema says what the service takes and gives."""

from collections.abc import Iterator
from typing import Any

from tests.running_service import RunningService


def test_the_schema_is_openapi_and_its_page_loads_nothing_from_outside(service: RunningService) -> None:
    with service.client() as client:
        schema = client.get("/schema/openapi.json").json()
        page = client.get("/schema")
        style = client.get("/schema/style.css")
    assert schema["openapi"].startswith("3.1")
    operations = [one for path in schema["paths"].values() for one in path.values()]
    assert all("default" in one["responses"] and "x-scope" in one for one in operations)
    body = schema["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/JobSpec"}
    references = set(_references(schema))
    assert {"#/components/schemas/Job", "#/components/schemas/Problem"} <= references
    for reference in references:
        assert reference.rpartition("/")[2] in schema["components"]["schemas"], reference
    assert page.headers["content-type"].startswith("text/html")
    assert style.headers["content-type"].startswith("text/css")
    assert "<script" not in page.text
    assert "//" not in page.text.replace("application/json", "").split("<h2>Shapes")[0]
    for path in schema["paths"]:
        assert path in page.text


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
