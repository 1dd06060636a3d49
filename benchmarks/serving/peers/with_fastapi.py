"""FastAPI as its tutorial writes it: a model of pydantic, a plain function, no_grad."""

from typing import Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.given import load_net


class Images(BaseModel):
    instances: list[list[list[int]]]


def make_app() -> FastAPI:
    app, net = FastAPI(), load_net()

    @app.post("/predict")
    def predict(images: Images) -> dict[str, Any]:
        pixels = torch.tensor(images.instances, dtype=torch.float32) / 255
        with torch.no_grad():
            scores, indices = torch.softmax(net(pixels), 1).max(1)
        rows = zip(indices.tolist(), scores.tolist(), strict=True)
        return {"predictions": [{"index": index, "score": score} for index, score in rows]}

    return app
