"""What the service takes and gives: OpenAPI 3.1 at /schema/openapi.json, the same as a page at /schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router, get
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.routes import HTTPRoute

from core.errors import NotFound
from modelyard import specs
from service.auth import OPEN, needs
from service.open_inference.refusals import Refusal, speaks
from service.open_inference.replies import InferReply
from service.open_inference.requests import IndexRequest, InferRequest, LoadRequest, UnloadRequest
from service.page import STYLE, render_page
from service.problems import MEDIA_TYPE

VERSION = "1"
PREFIX = "#/components/schemas/"

#: Structs that handlers decode themselves, so that Litestar does not see them in a signature.
UNSEEN: tuple[type[msgspec.Struct], ...] = (
    specs.JobSpec,
    specs.ForkRequest,
    specs.AliasUpdate,
    specs.RollbackRequest,
    specs.DatasetSource,
    specs.DatasetUpload,
    specs.UploadRequest,
    specs.PredictRequest,
    specs.BatchRequest,
    specs.KeyRequest,
    specs.RotationRequest,
    specs.WebhookRequest,
    specs.ReplayRequest,
    specs.Problem,
    InferRequest,
    InferReply,
    IndexRequest,
    LoadRequest,
    UnloadRequest,
    Refusal,
)

BINARY = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
TEXT = Schema(type=OpenAPIType.STRING)

#: An event of a stream, as browsers read it.
EVENT = Schema(
    type=OpenAPIType.OBJECT, properties={"id": TEXT, "event": TEXT, "data": TEXT}, required=["data"]
)

#: How the framework describes an answer without a body.
_NOTHING = {"application/json": {"schema": {"type": "null"}}}

_UNCHANGED = ResponseSpec(None, generate_examples=False, description="the client has it already")


def form(*required: str, **fields: Reference | Schema) -> Schema:
    """The body of a `multipart/form-data` route."""
    return Schema(type=OpenAPIType.OBJECT, properties=fields, required=list(required))


def body(
    media_type: str,
    *kinds: type[msgspec.Struct],
    also: Sequence[str] = (),
    forms: Schema | None = None,
    is_required: bool = True,
) -> type[Operation]:
    """The `operation_class` of a route that reads its body by itself: one of `kinds`, or bytes. `also` are
    media types of raw bytes, and `forms` is what a form must hold."""
    references = [Reference(ref=PREFIX + kind.__name__) for kind in kinds]
    schema = BINARY if not kinds else references[0] if len(kinds) == 1 else Schema(one_of=references)
    content = {media_type: OpenAPIMediaType(schema=schema)}
    content |= {other: OpenAPIMediaType(schema=BINARY) for other in also}
    if forms is not None:
        content["multipart/form-data"] = OpenAPIMediaType(schema=forms)

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=content, required=is_required)

    return WithBody


def also_answers(
    kinds: Mapping[int, tuple[Any, str]], *, may_be_unchanged: bool = False
) -> dict[int, ResponseSpec]:
    """The `responses` of a route that has other statuses than its usual one: what each holds, and why."""
    answers = {
        status: ResponseSpec(kind, generate_examples=False, description=why)
        for status, (kind, why) in kinds.items()
    }
    return {**answers, 304: _UNCHANGED} if may_be_unchanged else answers


def answers_file(media_type: str = "application/octet-stream") -> dict[int, ResponseSpec]:
    """The `responses` of a route that sends a stored file, beside 200 with all of it."""
    part = ResponseSpec(
        bytes, generate_examples=False, media_type=media_type, description="the range asked for"
    )
    return {206: part, 304: _UNCHANGED}


def page_or_stream() -> type[Operation]:
    """The `operation_class` of a route that answers with a page, or with a stream of events."""

    @dataclass
    class WithStream(Operation):
        def __post_init__(self) -> None:
            answer = (self.responses or {})["200"]
            assert isinstance(answer, OpenAPIResponse)
            assert answer.content is not None
            both = answer.content["application/json"].schema
            assert isinstance(both, Schema)
            assert both.one_of is not None
            answer.content["application/json"] = OpenAPIMediaType(schema=both.one_of[0])
            answer.content["text/event-stream"] = OpenAPIMediaType(schema=EVENT)

    return WithStream


def openapi_config() -> OpenAPIConfig:
    scheme = SecurityScheme(type="http", scheme="bearer", description="Authorization: Bearer mdy_…")
    return OpenAPIConfig(
        title="Modelyard",
        version=VERSION,
        description="Trains PyTorch models from declarative jobs and serves them.",
        components=Components(security_schemes={"key": scheme}),
        use_handler_docstrings=True,
        render_plugins=[Page(path="/"), Json()],
        openapi_router=Router(
            "/schema",
            route_handlers=[style],
            include_in_schema=False,
            opt=needs(OPEN),
            after_request=_refuse_html_404,
        ),
    )


class Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, complete(openapi_schema, request.app))


class Page(OpenAPIRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return render_page(complete(openapi_schema, request.app)).encode()


@get("/style.css", media_type="text/css", sync_to_thread=False)
def style() -> str:
    return STYLE


def complete(schema: dict[str, Any], app: Litestar) -> dict[str, Any]:
    """Adds what the framework cannot know: bodies that handlers decode, the one shape of every error, the
    scope of every route. In place; doing it twice changes nothing."""
    _, components = msgspec.json.schema_components(UNSEEN, ref_template=PREFIX + "{name}")
    schema["components"].setdefault("schemas", {}).update(components)
    problem = {
        "description": "Anything else: a problem (RFC 9457).",
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"{PREFIX}Problem"}}},
    }
    refusal = {
        "description": "Anything else: an error of the Open Inference Protocol.",
        "content": {"application/json": {"schema": {"$ref": f"{PREFIX}Refusal"}}},
    }
    for route in app.routes:
        path = schema["paths"].get(route.path_format) if isinstance(route, HTTPRoute) else None
        if not isinstance(route, HTTPRoute) or path is None:
            continue
        for method, (handler, _model) in route.route_handler_map.items():
            operation = path.get(method.lower())
            if operation is None:
                continue
            scope = handler.opt["scope"]
            operation["security"] = [] if scope is OPEN else [{"key": []}]
            operation["x-scope"] = str(scope)
            operation["responses"].pop("400", None)  # the framework's own shape, which is never sent
            for answer in operation["responses"].values():
                if answer.get("content") == _NOTHING:
                    del answer["content"]
            operation["responses"]["default"] = refusal if speaks(route.path_format) else problem
    return schema


async def _refuse_html_404(response: Response[Any]) -> Response[Any]:
    """The framework answers unknown pages below /schema in HTML; ours is a problem like any other."""
    if response.status_code == 404:
        raise NotFound("There is no such page; /schema and /schema/openapi.json are there.")
    return response
