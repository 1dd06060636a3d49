"""The Open Inference Protocol byte by byte: bodies by hand, quirks of its clients, all ways of failing."""

import gzip
import json
import zlib
from typing import Any

import httpx2
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from core.errors import Unavailable
from service.inference.engine import Engine
from service.open_inference.inference import MAX_BODY_BYTES
from service.room import Room
from tests.triton import ROWS, Zoo, tensor, wanted

PATH = "/v2/models/arrays/infer"


@pytest.fixture
def http(zoo: Zoo) -> httpx2.Client:
    return zoo.owner.client


def asked(data: Any = None, shape: tuple[int, ...] = (2, 3), **fields: Any) -> dict[str, Any]:
    values = ROWS.ravel().tolist() if data is None else data
    return {"inputs": [{"name": "input", "shape": list(shape), "datatype": "FP32", "data": values}], **fields}


def binary(raw: bytes = ROWS.tobytes(), size: int | None = None, **fields: Any) -> tuple[bytes, bytes]:
    """The JSON, and the whole body."""
    parameters = {"binary_data_size": len(raw) if size is None else size}
    one = {"name": "input", "shape": [2, 3], "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [one], **fields}).encode()
    return head, head + raw


def refusal(reply: httpx2.Response, status: int) -> str:
    """Its words; every refusal is checked for its shape on the way."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"].startswith("application/json")
    assert "content-encoding" not in reply.headers
    body = reply.json()
    assert isinstance(body["error"], str)
    return str(body["error"])


def test_plain_json_gives_plain_json(http: httpx2.Client) -> None:
    reply = http.post(PATH, json=asked(ROWS.tolist()), headers={"Accept-Encoding": "identity"})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in reply.headers
    body = reply.json()
    assert (body["model_name"], body["model_version"], "id" in body) == ("arrays", "1", False)
    scores, label = body["outputs"]
    assert (scores["datatype"], scores["shape"], len(scores["data"])) == ("FP32", [2, 4], 8)
    assert (label["datatype"], label["shape"], len(label["data"])) == ("BYTES", [2], 2)


def test_flat_and_nested_data_are_the_same(http: httpx2.Client) -> None:
    flat, nested = (
        http.post(PATH, json=asked(data)).json() for data in (ROWS.ravel().tolist(), ROWS.tolist())
    )
    assert flat == nested
    said = refusal(http.post(PATH, json=asked(ROWS.T.tolist())), 400)
    assert "nested" in said


def test_binary_data_may_be_asked_for_as_a_whole_and_for_one_output(http: httpx2.Client) -> None:
    one_in_json = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}]
    reply = http.post(PATH, json=asked(parameters={"binary_data_output": True}, outputs=one_in_json))
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers["inference-header-content-length"])
    head = json.loads(reply.content[:length])
    label, scores = head["outputs"]
    assert ("data" in label, "parameters" in label) == (True, False)
    assert scores["parameters"]["binary_data_size"] == len(reply.content) - length == 2 * 4 * 4


def test_the_header_counts_json_before_compression_both_ways(http: httpx2.Client) -> None:
    head, body = binary(parameters={"binary_data_output": True})
    for encoding, packed in (("gzip", gzip.compress(body, mtime=0)), ("deflate", zlib.compress(body))):
        headers = {
            "Inference-Header-Content-Length": str(len(head)),
            "Content-Encoding": encoding,
            "Accept-Encoding": f"br;q=1.0, {encoding};q=0.5",
        }
        reply = http.post(PATH, content=packed, headers=headers)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-encoding"] == encoding
        length = int(reply.headers["inference-header-content-length"])
        assert json.loads(reply.content[:length])["model_name"] == "arrays"  # the client has inflated it


@pytest.mark.parametrize("accept", ["br", "zstd, br", "identity", "gzip;q=0, deflate;q=0.0", ""])
def test_a_reply_is_never_in_an_encoding_that_these_clients_cannot_read(
    http: httpx2.Client, accept: str
) -> None:
    reply = http.post(PATH, json=asked(), headers={"Accept-Encoding": accept})
    assert "content-encoding" not in reply.headers


def test_nothing_but_inference_is_compressed(http: httpx2.Client) -> None:
    for path in (
        "/v2",
        "/v2/models/arrays",
        "/v2/models/arrays/config",
        "/v2/models/stats",
        "/v2/health/live",
    ):
        reply = http.get(path, headers={"Accept-Encoding": "gzip, deflate"})
        assert reply.status_code == 200
        assert "content-encoding" not in reply.headers
    refusal(http.post(PATH, json={}, headers={"Accept-Encoding": "gzip, deflate"}), 400)
    assert "content-encoding" not in http.post("/v2/repository/index").headers


def test_a_header_left_over_from_a_binary_call_does_no_harm(zoo: Zoo) -> None:
    headers = {"Authorization": f"Bearer {zoo.owner.key}"}
    with InferenceServerClient(zoo.address) as client:
        for compression in (None, "gzip", "deflate"):
            client.infer(
                "arrays", [tensor("input", ROWS)], headers=headers, request_compression_algorithm=compression
            )
            assert "Inference-Header-Content-Length" in headers  # the client's own doing
            for rows in (ROWS, ROWS[:1], np.repeat(ROWS, 9, axis=0)):
                result = client.infer(
                    "arrays",
                    [tensor("input", rows, binary=False)],
                    outputs=[wanted("scores", binary_data=False)],
                    headers=headers,
                )
                assert result.as_numpy("scores").shape == (len(rows), 4)


def test_one_connection_serves_call_after_call(zoo: Zoo) -> None:
    """Also after a refusal: what was sent is read before it is answered."""
    connections = zoo.service.server.server_state.connections
    headers = {"Authorization": f"Bearer {zoo.owner.key}"}
    with InferenceServerClient(zoo.address, concurrency=1) as client:
        client.is_server_live()
        before = set(connections)
        for _ in range(3):
            client.infer("arrays", [tensor("input", ROWS)], headers=dict(headers))
            with pytest.raises(InferenceServerException, match="no model"):
                client.infer("nobody", [tensor("input", ROWS)], headers=dict(headers))
        assert set(connections) <= before


@pytest.mark.parametrize(
    ("body", "header", "said"),
    [
        (b"", None, "JSON"),
        (b"{", None, "JSON"),
        (b"[]", None, "object"),
        (b"\xff\xfe", None, "JSON"),
        (b'{"inputs": 1}', None, "inputs"),
        (b'{"inputs": [{"data": ' + b"[" * 100_000, None, "deep"),
        (b'{"inputs": NaN' + b"[" * 100_000, None, "JSON"),
        (binary()[1], "x", "Inference-Header"),
        (binary()[1], "0", "Inference-Header"),
        (binary()[1], "-5", "Inference-Header"),
        (binary()[1], "999999", "Inference-Header"),
        (binary()[1], "9" * 5000, "Inference-Header"),
        (binary()[1], None, "JSON"),
        (binary()[1][:-1], str(len(binary()[0])), "24 bytes in all; 23"),
        (binary()[1] + b"x", str(len(binary()[0])), "24 bytes in all; 25"),
        (binary(size=-1)[1], str(len(binary(size=-1)[0])), ">= 0"),
        (binary(ROWS.tobytes()[:20])[1], str(len(binary(ROWS.tobytes()[:20])[0])), "expected 24 bytes"),
    ],
)
def test_a_body_that_is_no_request_is_400(
    http: httpx2.Client, body: bytes, header: str | None, said: str
) -> None:
    headers = {} if header is None else {"Inference-Header-Content-Length": header}
    assert said in refusal(http.post(PATH, content=body, headers=headers), 400)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datatype": "FLOAT"}, "expected a datatype"),
        ({"shape": [-1, 3]}, "negative"),
        ({"shape": [2**40, 2**40]}, "most"),
        ({"shape": [0, 2**62]}, "most"),
        ({"shape": [1] * 40}, "at most 32"),
        ({"shape": [2.5]}, "shape"),
        ({"shape": [7]}, "expected 7 values"),
        ({"data": ["a"] * 6}, "expected numbers"),
        ({"data": [True] * 6}, "expected numbers"),
        ({"data": [10**400] * 6}, "FP32 can hold"),
        ({"datatype": "INT8", "data": [300] * 6}, "INT8 can hold"),
        ({"datatype": "INT64", "data": [1.5] * 6}, "expected integers"),
        ({"datatype": "BF16"}, "binary"),
        ({"data": {}}, "list"),
        ({"data": None}, "list"),
        ({"parameters": {"binary_data_size": 0}}, "both"),
        ({"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 24}}, "shared memory"),
        ({"name": 5}, "name"),
    ],
)
def test_a_tensor_that_is_none_is_400_and_named(
    http: httpx2.Client, changes: dict[str, Any], said: str
) -> None:
    body = asked()
    body["inputs"][0] |= changes
    text = refusal(http.post(PATH, json=body), 400)
    assert said in text
    assert "input" in text


def test_a_name_that_comes_twice_is_400(http: httpx2.Client) -> None:
    body = asked()
    assert "twice" in refusal(http.post(PATH, json={"inputs": body["inputs"] * 2}), 400)
    assert "twice" in refusal(http.post(PATH, json=body | {"outputs": [{"name": "scores"}] * 2}), 400)


def test_an_infinity_is_read_and_refused_by_the_model(http: httpx2.Client) -> None:
    body = json.dumps(asked([float("inf")] * 6)).encode()
    assert b"Infinity" in body
    assert "finite" in refusal(http.post(PATH, content=body), 400)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_inflates_without_end_is_413(http: httpx2.Client, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    bomb = pack(bytes(MAX_BODY_BYTES + 1))
    assert len(bomb) < 100_000
    refusal(http.post(PATH, content=bomb, headers={"Content-Encoding": encoding}), 413)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", 400),
        (gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 20, "gzip", 400),
        (b"{}", "br", 415),
        (b"{}", "zstd", 415),
    ],
)
def test_an_encoding_that_cannot_be_undone_is_refused(
    http: httpx2.Client, body: bytes, encoding: str, status: int
) -> None:
    refusal(http.post(PATH, content=body, headers={"Content-Encoding": encoding}), status)


def test_a_body_over_the_bound_is_413_before_it_is_read(http: httpx2.Client) -> None:
    refusal(http.post(PATH, content=bytes(MAX_BODY_BYTES + 1)), 413)


def test_json_over_its_own_bound_is_413_and_points_at_binary_data(http: httpx2.Client) -> None:
    assert "binary data" in refusal(http.post(PATH, content=b'{"inputs":[]}' + b" " * 17_000_000), 413)


def test_every_refusal_around_the_routes_has_its_shape(zoo: Zoo, http: httpx2.Client) -> None:
    with zoo.service.client() as nobody, zoo.service.client("mdy_wrong") as wrong:
        refusal(nobody.post(PATH, json=asked()), 401)
        refusal(wrong.get("/v2"), 401)
        refusal(nobody.get("/v2/nothing"), 404)
    refusal(http.get("/v2/models/a/b/c"), 404)
    refusal(http.get(PATH), 405)
    refusal(http.get("/v2/models/arrays?odd=1"), 400)
    refusal(http.get("/v2", headers={"Host": "elsewhere.example"}), 400)
    refusal(http.get("/v2/models/a%00b"), 400)
    with zoo.service.owner("read") as reader:
        refusal(reader.client.post(PATH, json=asked()), 403)


def test_what_fails_on_our_side_is_500_and_says_nothing_of_it(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Engine, "run", broken)
    assert "secret" not in refusal(http.post(PATH, json=asked()), 500)


def test_a_full_queue_is_503_with_a_time_to_come_back(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> None:
        raise Unavailable("too many wait", retry_after_s=7)

    monkeypatch.setattr(Engine, "run", full)
    reply = http.post(PATH, json=asked())
    refusal(reply, 503)
    assert reply.headers["retry-after"] == "7"


def test_bodies_have_so_much_room_together_and_no_more(
    zoo: Zoo, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.service.server.config.app.parts.body_room, "_limit", 100)
    reply = http.post(PATH, json=asked())
    assert "100 is the bound" in refusal(reply, 503)
    assert "retry-after" in reply.headers
    room = Room(100)
    with room.taken(60), pytest.raises(Unavailable), room.taken(60):
        pass
    with room.taken(100):
        pass


def test_a_request_that_is_not_answered_within_its_timeout_is_504(http: httpx2.Client) -> None:
    rows = np.zeros((5000, 3)).ravel().tolist()
    late = asked(rows, (5000, 3), parameters={"timeout": 1})
    assert "1 microseconds" in refusal(http.post(PATH, json=late), 504)
    assert http.post(PATH, json=asked(parameters={"timeout": 30_000_000})).status_code == 200
