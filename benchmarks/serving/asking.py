"""One image as each server takes it, and what its reply says."""

import http.client
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.serving.pictures import Pixels
from benchmarks.serving.results import top

TIMEOUT_S = 60
JSON = {"Content-Type": "application/json"}
HEADER_LENGTH = "inference-header-content-length"

#: The body and the headers (names in lower case) of a reply -> the class that it names.
Read = Callable[[bytes, Mapping[str, str]], int]


class WrongAnswer(Exception):
    """A server does not say what it should."""


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes
    read: Read
    headers: dict[str, str] = field(default_factory=dict)

    def with_key(self, key: str) -> "Request":
        return Request(self.path, self.body, self.read, {**self.headers, "Authorization": f"Bearer {key}"})


def v1_json(model: str, pixels: Pixels) -> Request:
    return as_json(f"/v1/models/{model}/predict", pixels)


def v1_jpeg(model: str, jpeg: bytes) -> Request:
    path = f"/v1/models/{model}/predict"
    return Request(path, jpeg, _index_of_prediction, {"Content-Type": "image/jpeg"})


def as_json(path: str, pixels: Pixels) -> Request:
    """Rows of integers, as /v1 takes them: one channel has no axis of its own."""
    instance = (pixels[0] if len(pixels) == 1 else pixels).tolist()
    return Request(path, _json({"instances": [instance]}), _index_of_prediction, JSON)


def v2_json(model: str, pixels: Pixels) -> Request:
    """One channel without its axis: what a runtime of MLServer hands to a net that flattens."""
    shape = [1, *pixels.shape[1:]]
    data = pixels.reshape(-1).tolist()
    inputs = [{"name": "input", "shape": shape, "datatype": "UINT8", "data": data}]
    return Request(f"/v2/models/{model}/infer", _json({"inputs": inputs}), _index_of_scores, JSON)


def v2_binary(model: str, pixels: Pixels) -> Request:
    """The binary tensor extension both ways."""
    raw = pixels.tobytes()
    entry = {"name": "input", "shape": [1, *pixels.shape], "datatype": "UINT8"}
    wanted = {"name": "scores", "parameters": {"binary_data": True}}
    head = _json({"inputs": [entry | {"parameters": {"binary_data_size": len(raw)}}], "outputs": [wanted]})
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(f"/v2/models/{model}/infer", head + raw, _index_of_raw_scores, headers)


def ask(url: str, request: Request) -> int:
    """The class that the server names. Raises WrongAnswer where it answers anything but 200, OSError where
    nobody listens."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise WrongAnswer(f"{url}{request.path}: expected 200, got {reply.status}: {body[:500]!r}")
        return request.read(body, {name.lower(): value for name, value in reply.getheaders()})
    finally:
        connection.close()


def _index_of_prediction(body: bytes, _: Mapping[str, str]) -> int:
    return int(json.loads(body)["predictions"][0]["index"])


def _index_of_scores(body: bytes, _: Mapping[str, str]) -> int:
    return top(json.loads(body)["outputs"][0]["data"])


def _index_of_raw_scores(body: bytes, headers: Mapping[str, str]) -> int:
    raw = body[int(headers[HEADER_LENGTH]) :]
    return top([*struct.unpack(f"<{len(raw) // 4}f", raw)])


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
