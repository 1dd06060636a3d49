"""Callers who close their connection while they wait for a forward: over real sockets, each way of asking."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from torch import nn

from core.predict import Predictor
from service.inference import batcher
from tests.running_service import Owner, RunningService, run_service

ROW = [0.1, -2.0, 3.0, 0.5]
ROWS = {"instances": [ROW]}
TENSOR = {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}

#: By the short way past the framework, by the usual one, and in the other protocol.
WAYS = [
    ("/v1/models/m/predict", "application/json", ROWS),
    ("/v1/models/m/predict", "application/json; charset=utf-8", ROWS),
    ("/v2/models/m/infer", "application/json", TENSOR),
]


class Gate:
    """Forwards begin, and end when they are let go; the rows of each are counted."""

    def __init__(self) -> None:
        self.forwards: list[int] = []
        self.let_go = threading.Event()

    def answers(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        self.forwards.append(len(inputs[0]))
        assert self.let_go.wait(20)
        return torch.full((len(inputs[0]), 3), 1 / 3)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    home: Path = tmp_path_factory.mktemp("home")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home) as service:
        yield service


@pytest.fixture
def me(running: RunningService) -> Iterator[Owner]:
    """With a model that has no golden samples: nobody knows how long it takes, so a thread computes it."""
    with running.owner() as owner:
        owner.version(running.settings, nn.Sequential(nn.Linear(4, 3)))
        yield owner


@pytest.fixture
def gate(me: Owner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """One request's forward is under way, which nothing of the tests ends but `let_go`."""
    assert me.client.post("/v1/models/m/predict", json=ROWS).status_code == 200  # it is loaded
    gate = Gate()
    monkeypatch.setattr(Predictor, "answers", lambda _self, inputs: gate.answers(inputs))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(me.client.post, "/v1/models/m/predict", json=ROWS)
        until(lambda: gate.forwards == [1])
        try:
            yield gate
        finally:
            gate.let_go.set()
        assert first.result(20).status_code == 200


@pytest.mark.parametrize(("path", "kind", "body"), WAYS)
def test_callers_who_left_are_not_computed(
    running: RunningService, me: Owner, gate: Gate, path: str, kind: str, body: dict[str, Any]
) -> None:
    asked = [sent(running, me, path, kind, body) for _ in range(50)]
    until(lambda: loaded(running, me) == {"waiting_rows": 50, "in_flight_rows": 1})
    for connection in asked:
        connection.close()
    until(lambda: loaded(running, me) == {"waiting_rows": 0, "in_flight_rows": 1})
    with ThreadPoolExecutor(1) as threads:
        living = threads.submit(ask, running, me)
        until(lambda: loaded(running, me)["waiting_rows"] == 1)
        gate.let_go.set()
        assert living.result(20).status_code == 200
    assert gate.forwards == [1, 1]  # of 52 rows that were asked for


def test_a_queue_full_of_callers_who_left_refuses_nobody(
    running: RunningService, me: Owner, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "MAX_WAITING_ROWS", 20)
    asked = [sent(running, me, *WAYS[0]) for _ in range(20)]
    until(lambda: loaded(running, me)["waiting_rows"] == 20)
    refused = ask(running, me)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    for connection in asked:
        connection.close()
    until(lambda: loaded(running, me)["waiting_rows"] == 0)
    with ThreadPoolExecutor(20) as threads:
        living = [threads.submit(ask, running, me) for _ in range(20)]
        until(lambda: loaded(running, me)["waiting_rows"] == 20)
        gate.let_go.set()
        assert {one.result(20).status_code for one in living} == {200}
    assert sum(gate.forwards) == 1 + 20


def test_whoever_stays_is_answered_however_long_they_waited(
    running: RunningService, me: Owner, gate: Gate
) -> None:
    leaving = [sent(running, me, *WAYS[0]) for _ in range(10)]
    with ThreadPoolExecutor(10) as threads:
        staying = [threads.submit(ask, running, me) for _ in range(10)]
        until(lambda: loaded(running, me)["waiting_rows"] == 20)
        for connection in leaving:
            connection.close()
        until(lambda: loaded(running, me)["waiting_rows"] == 10)
        gate.let_go.set()
        assert {one.result(20).status_code for one in staying} == {200}
    assert gate.forwards == [1, 10]


def ask(running: RunningService, me: Owner) -> httpx2.Response:
    with running.client(me.key) as client:
        return client.post("/v1/models/m/predict", json=ROWS)


def sent(running: RunningService, me: Owner, path: str, kind: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which the request was sent, and nothing was read."""
    host, port = running.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {me.key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(head.encode() + content)
    return connection


def loaded(running: RunningService, me: Owner) -> dict[str, int]:
    """What the model's page says of the queue."""
    with running.client(me.key) as client:
        (version,) = client.get("/v1/models/m").json()["loaded"]
    return {name: version[name] for name in ("waiting_rows", "in_flight_rows")}


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass within 10 s"
        time.sleep(0.01)
