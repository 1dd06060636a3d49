"""The ceiling of one process without batching: an ASGI function, msgspec, the forward inline."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import torch

from benchmarks.serving.peers.given import load_net

Message = dict[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Images(msgspec.Struct):
    instances: list[list[list[int]]]


class Prediction(msgspec.Struct):
    index: int
    score: float


class Reply(msgspec.Struct):
    predictions: list[Prediction]


def make_app() -> App:
    net = load_net()
    decoder, encoder = msgspec.json.Decoder(Images), msgspec.json.Encoder()

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        assert scope["type"] == "http"
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body += message.get("body", b"")
            is_more = message.get("more_body", False)
        pixels = torch.tensor(decoder.decode(body).instances, dtype=torch.float32) / 255
        with torch.inference_mode():
            scores, indices = torch.softmax(net(pixels), 1).max(1)
        answer = encoder.encode(Reply([*map(Prediction, indices.tolist(), scores.tolist())]))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app
