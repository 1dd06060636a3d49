"""The routes that are asked thousands of times a second, without the framework around them: JSON to
`/v1/models/{name}[@{ref}]/predict`, and `/v2/models/{name}[/versions/{ref}]/infer`. The same keys, limits,
errors and counts as any other route.

A request that this way does not know in every detail (another content type, a query, an encoded body) goes
the usual one, through `service/api/predictions.py` and `service/api/open_inference.py`.
"""

import asyncio
import re
from typing import NamedTuple

import msgspec
from litestar.types import HTTPScope

from modelyard.specs import PredictRequest
from service.api.predictions import MAX_BODY_BYTES
from service.auth import Scope as Needed
from service.bodies import decode, read_whole, too_large
from service.exchange import Exchange, Headers
from service.explanations import predict_explained
from service.gate import bearer_of
from service.open_inference.compression import accepted
from service.open_inference.inference import HEADER_LENGTH, infer
from service.open_inference.inference import MAX_BODY_BYTES as MAX_INFER_BYTES
from service.parts import Parts
from service.predicting import MANY_SCORES

PREDICT = re.compile(r"/v1/models/([^/@]+)(?:@([^/]+))?/predict")
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
PREDICT_ROUTE = "/v1/models/{model}/predict"
INFER_ROUTE = "/v2/models/{model}/infer"
INFER_VERSION_ROUTE = "/v2/models/{model}/versions/{reference}/infer"
JSON = b"application/json"

#: As the same routes ask for where they go the usual way.
NEEDED = Needed.PREDICT

_HEADER_LENGTH = HEADER_LENGTH.encode()

_encode = msgspec.json.Encoder().encode


class Way(NamedTuple):
    """`route` is the template that counts and logs name."""

    route: str
    model: str
    reference: str | None


class Quick:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def way(self, scope: HTTPScope, headers: Headers) -> Way | None:
        """None for what goes the usual one."""
        path = scope["path"]
        if scope["method"] != "POST" or scope["query_string"] or b"content-encoding" in headers:
            return None
        if path.endswith("/predict"):
            matched = PREDICT.fullmatch(path) if headers.get(b"content-type") == JSON else None
            return None if matched is None else Way(PREDICT_ROUTE, matched[1], matched[2])
        if path.endswith("/infer"):
            matched = INFER.fullmatch(path)
            if matched is None or _wants_compressed(headers):
                return None
            route = INFER_ROUTE if matched[2] is None else INFER_VERSION_ROUTE
            return Way(route, matched[1], matched[2])
        return None

    async def answer(self, way: Way, scope: HTTPScope, exchange: Exchange) -> None:
        """Raises what is to be told as a problem."""
        parts = self._parts
        is_infer = way.route != PREDICT_ROUTE
        authorization: str | None = exchange.headers.get(b"authorization", b"").decode("latin-1") or None
        if is_infer:
            authorization = bearer_of(authorization)
        principal = await parts.gate.admit(scope, authorization, NEEDED)
        await (self._infer if is_infer else self._predict)(way, principal.owner, exchange)

    async def _predict(self, way: Way, owner: str, exchange: Exchange) -> None:
        found = await self._parts.names.resolve(owner, way.model, way.reference)
        size = _announced(exchange.headers, MAX_BODY_BYTES)
        with self._parts.body_room.taken(min(size, MAX_BODY_BYTES)):
            raw = await self._body(exchange, size, MAX_BODY_BYTES)
            asked = decode(raw, PredictRequest)
            reply = await predict_explained(
                self._parts, found, asked.instances, asked.top_k, len(raw), asked.explain
            )
        is_short = len(reply.predictions) * asked.top_k <= MANY_SCORES
        body = _encode(reply) if is_short else await asyncio.to_thread(_encode, reply)
        await exchange.answer(200, [(b"content-type", JSON)], body)

    async def _infer(self, way: Way, owner: str, exchange: Exchange) -> None:
        """The body is read before anything is refused, so that clients of one connection keep it."""
        headers = exchange.headers
        size = _announced(headers, MAX_INFER_BYTES)
        with self._parts.body_room.taken(min(size, MAX_INFER_BYTES)):
            raw = await self._body(exchange, size, MAX_INFER_BYTES)
            found = await self._parts.names.resolve(owner, way.model, way.reference)
            length = headers.get(_HEADER_LENGTH)
            encoded = await infer(
                self._parts, found, raw, None if length is None else length.decode("latin-1")
            )
        told = [(b"content-type", encoded.media_type.encode())]
        if encoded.json_length is not None:
            told.append((_HEADER_LENGTH, b"%d" % encoded.json_length))
        await exchange.answer(200, told, encoded.body)

    async def _body(self, exchange: Exchange, announced: int, limit: int) -> bytes:
        if announced > limit:
            raise too_large(limit, f"{announced} were announced")
        return await read_whole(exchange.receive, limit=limit, timeout_s=self._parts.settings.chunk_timeout_s)


def _announced(headers: Headers, unknown: int) -> int:
    said = headers.get(b"content-length", b"")
    return int(said) if said.isdigit() and len(said) < 20 else unknown


def _wants_compressed(headers: Headers) -> bool:
    said = headers.get(b"accept-encoding")
    return said is not None and accepted(said.decode("latin-1")) is not None
