"""Query parameters that a route doesn't declare."""

from pathlib import Path

import pytest

from core.errors import Invalid
from core.settings import Settings
from service.app import create_app
from service.queries import declared_parameters, require_known


def test_what_is_declared_is_what_the_openapi_document_lists(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, auth="off", database_url=f"sqlite:///{tmp_path}/m.db")).app
    listed = {}
    for path, item in (app.openapi_schema.paths or {}).items():
        for method in ("get", "put", "post", "patch", "delete", "head"):
            if (operation := getattr(item, method)) is not None:
                queries = [one.name for one in operation.parameters or [] if one.param_in == "query"]
                listed[path, method.upper()] = sorted(queries)
    declared = declared_parameters(app)
    assert {key: declared[key] for key in listed} == listed
    assert declared["/v1/datasets/{name}", "PUT"] == ["filename", "format", "options"]


def test_an_unknown_parameter_is_told_with_the_nearest_and_with_all() -> None:
    with pytest.raises(Invalid) as raised:
        require_known(b"fromat=table&limt=&limit=3", ["format", "limit"])
    first, second = raised.value.errors
    assert first.message == (
        'unknown parameter "fromat"; this route takes format, limit. Did you mean "format"?'
    )
    assert '"limt"' in second.message
    assert raised.value.code == "unknown_parameter"


def test_a_route_without_parameters_says_so() -> None:
    with pytest.raises(Invalid, match="takes no query parameters"):
        require_known(b"x=1", [])


@pytest.mark.parametrize("query", [b"", b"limit=3", b"limit=3&limit=4", b"li%6Dit=3"])
def test_what_is_declared_passes(query: bytes) -> None:
    require_known(query, ["limit"])


def test_a_hostile_query_is_told_of_a_hundred_at_most() -> None:
    query = "&".join(f"p{number}=1" for number in range(5000)).encode()
    with pytest.raises(Invalid) as raised:
        require_known(query, ["limit"])
    assert len(raised.value.errors) == 100
