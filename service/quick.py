"""The one route that is asked thousands of times a second, without the framework around it: JSON to
`/v1/models/{name}[@{ref}]/predict`. The same keys, limits, errors and counts as any other route.

A request that this way does not know in every detail (another content type, a query, an encoded body) goes
the usual one, through `service/api/predictions.py`.
"""

import asyncio
import re
from collections.abc import Mapping

import msgspec
from litestar.types import HTTPScope, Receive, Send

from modelyard.specs import PredictRequest
from service.api.predictions import MAX_BODY_BYTES
from service.auth import Scope as Needed
from service.bodies import decode, read_whole, too_large
from service.explanations import predict_explained
from service.parts import Parts
from service.predicting import MANY_SCORES

ROUTE = re.compile(r"/v1/models/([^/@]+)(?:@([^/]+))?/predict")
ROUTE_NAME = "/v1/models/{model}/predict"
JSON = b"application/json"

#: As the same route asks for where it goes the usual way.
NEEDED = Needed.PREDICT

_encode = msgspec.json.Encoder().encode

Headers = Mapping[bytes, bytes]


class Quick:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def takes(self, scope: HTTPScope, headers: Headers) -> bool:
        return (
            scope["method"] == "POST"
            and scope["path"].endswith("/predict")
            and headers.get(b"content-type") == JSON
            and not scope["query_string"]
            and b"content-encoding" not in headers
            and ROUTE.fullmatch(scope["path"]) is not None
        )

    async def answer(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        """Raises what is to be told as a problem."""
        parts = self._parts
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        principal = await parts.gate.admit(scope, authorization or None, NEEDED)
        matched = ROUTE.fullmatch(scope["path"])
        assert matched is not None
        found = await parts.names.resolve(principal.owner, matched[1], matched[2])
        raw = await self._body(headers, receive)
        asked = decode(raw, PredictRequest)
        reply = await predict_explained(parts, found, asked.instances, asked.top_k, len(raw), asked.explain)
        is_short = len(reply.predictions) * asked.top_k <= MANY_SCORES
        body = _encode(reply) if is_short else await asyncio.to_thread(_encode, reply)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", JSON), (b"content-length", b"%d" % len(body))],
            }
        )
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES, f"{announced.decode()} were announced")
        timeout_s = self._parts.settings.chunk_timeout_s
        return await read_whole(receive, limit=MAX_BODY_BYTES, timeout_s=timeout_s)
