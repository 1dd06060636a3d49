"""An alias that moves ten times a second while many ask: every answer is that of a version that it names."""

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from core.predict import Predictor
from tests.running_service import Owner, RunningService, run_service

ROWS = {"instances": [[1.0, 1.0, 1.0, 1.0]]}
FLIP_EVERY_S, FLIPS, ASKERS = 0.1, 20, 4


@pytest.fixture(params=[2**30, 1], ids=["all stay loaded", "each sends the other away"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    home = tmp_path_factory.mktemp("home")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home, model_cache_bytes=request.param) as service:
        yield service


@pytest.fixture
def me(running: RunningService) -> Iterator[Owner]:
    """Version n of the model m answers the class of index n - 1, and the alias names the first."""
    with running.owner() as owner:
        for index in range(3):
            net = nn.Sequential(nn.Linear(4, 3))
            with torch.no_grad():
                net[0].weight.zero_()
                net[0].bias.copy_(10.0 * torch.eye(3)[index])
            owner.version(running.settings, net)
        point_to(owner, 1)
        yield owner


def test_while_an_alias_flips_every_answer_is_that_of_one_of_its_two_versions(
    running: RunningService, me: Owner
) -> None:
    stop = threading.Event()

    def ask() -> Counter[tuple[int, int, int]]:
        seen: Counter[tuple[int, int, int]] = Counter()
        with running.client(me.key) as client:
            while not stop.is_set():
                reply = client.post("/v1/models/m@production/predict", json=ROWS)
                body = reply.json() if reply.status_code == 200 else {"version": 0, "predictions": [{}]}
                seen[reply.status_code, body["version"], body["predictions"][0].get("index", -1)] += 1
        return seen

    with ThreadPoolExecutor(ASKERS) as threads:
        asking = [threads.submit(ask) for _ in range(ASKERS)]
        try:
            for flip in range(FLIPS):
                time.sleep(FLIP_EVERY_S)
                point_to(me, 2 - flip % 2)
        finally:
            stop.set()
        seen = sum((one.result(20) for one in asking), Counter())
    assert set(seen) == {(200, 1, 0), (200, 2, 1)}
    assert min(seen.values()) > FLIPS


def test_the_version_before_stays_until_those_who_asked_it_have_their_answer(
    running: RunningService, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    me.client.post("/v1/models/m/predict", json=ROWS)
    models = running.server.config.app.parts.models  # type: ignore[union-attr]  # the app as it was given
    (version_id,) = models._kept
    predictor = weakref.ref(models.peek(version_id).predictor)
    begun, let_go, real = threading.Event(), threading.Event(), Predictor.answers

    def held(self: Predictor, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self is predictor():
            begun.set()
            assert let_go.wait(20)
        return real(self, inputs)

    monkeypatch.setattr(Predictor, "answers", held)
    with ThreadPoolExecutor(2) as threads:
        before = threads.submit(ask, running, me)
        assert begun.wait(10)
        with running.client(me.key) as client:
            client.put("/v1/models/m/aliases/production", json={"version": 2}).raise_for_status()
            after = threads.submit(ask, running, me)
            client.post("/v1/models/m/unload").raise_for_status()
            assert predictor() is not None
            let_go.set()
            assert (before.result(20), after.result(20)) == (1, 2)
    gc.disable()  # it is counted out, not collected
    try:
        until(lambda: predictor() is None)
    finally:
        gc.enable()


def ask(running: RunningService, me: Owner) -> int:
    """The version that answers."""
    with running.client(me.key) as client:
        return int(client.post("/v1/models/m@production/predict", json=ROWS).json()["version"])


def point_to(me: Owner, version: int) -> None:
    reply = me.client.put("/v1/models/m/aliases/production", json={"version": version})
    assert reply.status_code == 200, reply.text


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass within 10 s"
        time.sleep(0.01)
