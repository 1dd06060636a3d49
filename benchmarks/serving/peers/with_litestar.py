"""A bare Litestar handler on msgspec: decoded into structs, the forward inline, nothing gathered."""

import torch
from litestar import Litestar, post
from msgspec import Struct

from benchmarks.serving.peers.given import load_net


class Images(Struct):
    instances: list[list[list[int]]]


class Prediction(Struct):
    index: int
    score: float


class Reply(Struct):
    predictions: list[Prediction]


def make_app() -> Litestar:
    net = load_net()

    @post("/predict", status_code=200)
    async def predict(data: Images) -> Reply:
        pixels = torch.tensor(data.instances, dtype=torch.float32) / 255
        with torch.no_grad():
            scores, indices = torch.softmax(net(pixels), 1).max(1)
        return Reply([*map(Prediction, indices.tolist(), scores.tolist())])

    return Litestar([predict], openapi_config=None)
