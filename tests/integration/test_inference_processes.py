"""Inference processes over a real socket: what ends one costs its own requests a 503, and nobody else."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from torch import nn

from core.nets import artifacts
from core.nets.artifacts import Golden, VersionManifest
from core.predict import Predictor
from core.settings import Settings
from service.inference.engine import Engine, alone
from service.inference.files import VersionFiles, load_files
from service.inference.processes.elsewhere import Elsewhere
from service.inference.processes.pool import Pool
from service.inference.served import Served
from service.inference.statistics import VersionName
from tests import trap
from tests.injected import until
from tests.plugins import on_path
from tests.running_service import Owner, RunningService, run_service

#: A forward that takes longer is given up.
DEADLINE_S = 2.0

ROWS = trap.rows(5)

pytestmark = pytest.mark.usefixtures("service_fork_server")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with on_path(trap.install(tmp_path_factory.mktemp("plugin"))):
        yield


@pytest.fixture(scope="module")
def service(
    plugin: None, service_fork_server: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """With one inference process."""
    home = tmp_path_factory.mktemp("home")
    settings: dict[str, Any] = {
        "inference_processes": 1,
        "inference_deadline_s": DEADLINE_S,
        "inference_load_deadline_s": DEADLINE_S,
        "plugins": trap.PACKAGE,
    }
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home, **settings) as running:
        until_ready(running)
        yield running


@pytest.fixture
def trapped(tmp_path: Path) -> trap.Trapped:
    return trap.Trapped(tmp_path / "trap")


def until_ready(service: RunningService) -> None:
    with service.client() as client:
        until(lambda: client.get("/health/ready").status_code == 200, "it is ready", 60)


def pids(service: RunningService) -> list[int]:
    pool = service.server.config.app.parts.processes
    return [seat._process.pid for seat in pool._seats]


def ask(client: httpx2.Client, model: str, rows: Any = ROWS) -> httpx2.Response:
    return client.post(f"/v1/models/{model}/predict", json={"instances": rows, "top_k": 3})


def register(me: Owner, service: RunningService, trapped: trap.Trapped, model: str) -> None:
    me.version(service.settings, trapped.net, model=model, described=trapped.described)


def plain(me: Owner, service: RunningService, model: str = "plain") -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 3))
    me.version(service.settings, net, model=model)
    return net


def require_503(reply: httpx2.Response, *codes: str) -> None:
    assert (reply.status_code, reply.json()["code"] in codes) == (503, True), reply.text
    assert int(reply.headers["retry-after"]) >= 1


def test_predictions_are_those_of_plain_torch(service: RunningService, me: Owner) -> None:
    net = plain(me, service)
    reply = ask(me.client, "plain")
    assert reply.status_code == 200, reply.text
    with torch.inference_mode():
        expected = net(torch.tensor(ROWS)).softmax(dim=1).tolist()
    for prediction, scores in zip(reply.json()["predictions"], expected, strict=True):
        by_label = {one["label"]: one["score"] for one in prediction["top"]}
        assert [by_label[label] for label in "abc"] == pytest.approx(scores, abs=1e-6)


def test_killed_under_load_it_is_replaced_and_every_answer_is_right_or_503(
    service: RunningService, me: Owner
) -> None:
    plain(me, service)
    right = ask(me.client, "plain").json()
    (before,), own = pids(service), os.getpid()
    replies: list[httpx2.Response] = []
    stop = threading.Event()

    def load() -> None:
        with service.client(me.key) as client:
            while not stop.is_set():
                replies.append(ask(client, "plain"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(replies) > 20, "there is load")
    killed_at = time.monotonic()
    os.kill(before, signal.SIGKILL)
    until(lambda: pids(service) != [before], "it is replaced")
    until_ready(service)
    assert time.monotonic() - killed_at < 10
    seen = len(replies)
    until(lambda: len(replies) > seen + 20, "it answers again")
    stop.set()
    for thread in threads:
        thread.join()
    for reply in replies:
        if reply.status_code == 200:
            assert reply.json() == right
        else:
            require_503(reply, "inference_process_ended", "inference_replacing")
    assert replies[-1].status_code == 200
    assert (own, pids(service) != [before]) == (os.getpid(), True)


def test_until_what_was_loaded_is_loaded_again_it_is_not_ready(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    register(me, service, trapped, "trapped")
    ready = "/v2/models/trapped/ready"
    right = ask(me.client, "trapped").json()
    assert me.client.get(ready).status_code == 200
    (before,) = pids(service)
    trapped.set("build", "wait")
    os.kill(before, signal.SIGKILL)
    until(lambda: pids(service) != [before], "the next process loads it")
    time.sleep(0.3)
    said = me.client.get("/health/ready")
    assert (said.status_code, said.json()["inference"], said.headers["retry-after"]) == (
        503,
        "replacing",
        "1",
    )
    assert me.client.get("/v2/health/ready").status_code == 503
    assert me.client.get(ready).status_code == 503
    assert me.client.get("/health/live").status_code == 200
    trapped.unset("build")
    until_ready(service)
    assert me.client.get(ready).status_code == 200
    assert ask(me.client, "trapped").json() == right


def test_a_version_that_hangs_as_it_is_loaded_again_is_left_out(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    plain(me, service)
    register(me, service, trapped, "trapped")
    for model in ("trapped", "plain"):
        assert ask(me.client, model).status_code == 200
    trapped.set("build", "hang")
    os.kill(pids(service)[0], signal.SIGKILL)
    until(lambda: me.client.get("/health/ready").status_code == 503, "it is not ready")
    until_ready(service)
    require_503(ask(me.client, "trapped"), "version_held_back")
    require_503(me.client.get("/v2/models/trapped/ready"), "version_held_back")
    assert ask(me.client, "plain").status_code == 200


def test_a_forward_that_aborts_costs_its_own_request_and_others_go_on(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    plain(me, service)
    register(me, service, trapped, "trapped")
    right = ask(me.client, "plain").json()
    assert ask(me.client, "trapped").status_code == 200
    trapped.set("forward", "abort once")
    require_503(ask(me.client, "trapped"), "inference_process_ended")
    assert ask(me.client, "plain").json() == right
    assert ask(me.client, "trapped").status_code == 200


def test_a_version_that_ends_its_process_again_and_again_is_held_back(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    plain(me, service)
    register(me, service, trapped, "trapped")
    trapped.set("forward", "abort")
    for _ in range(3):
        require_503(ask(me.client, "trapped"), "inference_process_ended")
    until_ready(service)
    (pid,) = pids(service)
    held = ask(me.client, "trapped")
    require_503(held, "version_held_back")
    assert int(held.headers["retry-after"]) > 500
    assert ask(me.client, "plain").status_code == 200
    assert pids(service) == [pid]


def test_a_forward_that_hangs_is_ended_at_its_deadline_and_others_go_on(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    plain(me, service)
    register(me, service, trapped, "trapped")
    right = ask(me.client, "plain").json()
    assert ask(me.client, "trapped").status_code == 200
    trapped.set("forward", "hang")
    began = time.monotonic()
    hung: list[httpx2.Response] = []
    asking = threading.Thread(target=lambda: hung.append(ask(me.client, "trapped")))
    asking.start()
    time.sleep(0.3)
    with service.client(me.key) as other:
        assert ask(other, "plain").json() == right  # it waited for the next process
    asking.join()
    require_503(hung[0], "inference_overdue")
    assert DEADLINE_S <= time.monotonic() - began < DEADLINE_S + 8
    require_503(ask(me.client, "trapped"), "version_held_back")


def test_a_load_that_aborts_is_a_failed_load(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    plain(me, service)
    assert ask(me.client, "plain").status_code == 200
    register(me, service, trapped, "trapped")
    trapped.set("build", "abort")
    for _ in range(3):
        require_503(ask(me.client, "trapped"), "inference_process_ended")
    require_503(ask(me.client, "trapped"), "version_held_back")
    assert ask(me.client, "plain").status_code == 200


def test_what_a_net_raises_is_told_as_in_the_service_itself(
    service: RunningService, me: Owner, trapped: trap.Trapped
) -> None:
    register(me, service, trapped, "trapped")
    (pid,) = pids(service)
    trapped.set("forward", "raise")
    reply = ask(me.client, "trapped")
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    trapped.unset("forward")
    assert ask(me.client, "trapped").status_code == 200
    assert pids(service) == [pid]


def test_a_version_whose_golden_samples_come_out_otherwise_is_not_loaded(
    service: RunningService, me: Owner
) -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    layers = [{"type": "Linear", "in_features": 4, "out_features": 3}]
    golden = [Golden(ROWS[0], [1.0, 0.0, 0.0])]
    described = trap.described({"type": "Sequential", "layers": layers}, [4], golden)
    me.version(service.settings, net, described=described)
    reply = ask(me.client, "m")
    assert (reply.status_code, reply.json()["code"]) == (500, "version_differs")


def test_what_is_unloaded_is_forgotten_by_its_process(service: RunningService, me: Owner) -> None:
    plain(me, service)
    (seat,) = service.server.config.app.parts.processes._seats
    before = set(seat._models)
    assert ask(me.client, "plain").status_code == 200
    (number,) = set(seat._models) - before
    assert me.client.post("/v2/repository/models/plain/unload").status_code == 200
    until(lambda: number not in seat._models, "it is forgotten")
    assert ask(me.client, "plain").status_code == 200


@pytest.mark.parametrize("processes", [1, 2])
async def test_answers_through_a_process_are_those_of_the_service_itself_to_the_bit(
    tmp_path: Path, processes: int
) -> None:
    """Of a net that is computed on the event loop, and of one that is not; in batches of many sizes."""
    settings = Settings(home=tmp_path, inference_processes=processes)
    pool = Pool(settings)
    pool.start()
    engine, loader = Engine(), ThreadPoolExecutor(1, initializer=alone)
    try:
        await asyncio.to_thread(until, lambda: pool.is_up, "they are up", 60)
        for name, net, spec, shape in _nets():
            golden = _golden(net, shape)
            files = _files(tmp_path / name, trap.described(spec, shape, golden), net)
            named = VersionName("owner", name, 1)
            placed = await asyncio.to_thread(pool.load, name, files)
            load_here = partial(Served, named, load_files(files), engine, _uncounted)
            here = await asyncio.get_running_loop().run_in_executor(loader, load_here)
            there = Elsewhere(named, Predictor.without_net(files.manifest), placed, _uncounted)
            for count in (1, 2, 7, 32):
                rows = [(torch.randn(shape),) for _ in range(count)]
                (expected,) = await here.outputs(rows)
                (computed,) = await there.outputs(rows)
                assert torch.equal(computed.answers, expected.answers), (name, count)
            assert there.size_bytes == here.size_bytes
    finally:
        loader.shutdown()
        await pool.close()
        engine.close()


def _uncounted(_rows: int, _seconds: float, _transform_s: float) -> None:
    pass


def _nets() -> Iterator[tuple[str, nn.Module, dict[str, Any], list[int]]]:
    torch.manual_seed(1)
    linear = {"type": "Linear", "in_features": 64, "out_features": 3}
    yield "quick", nn.Sequential(nn.Linear(64, 3)), {"type": "Sequential", "layers": [linear]}, [64]
    convolution = {"type": "Conv2d", "in_channels": 3, "out_channels": 32, "kernel_size": 5}
    wide = {"type": "Linear", "in_features": 32 * 44 * 44, "out_features": 3}
    layers = [convolution, {"type": "ReLU"}, {"type": "Flatten"}, wide]
    net = nn.Sequential(nn.Conv2d(3, 32, 5), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 44 * 44, 3))
    yield "slow", net, {"type": "Sequential", "layers": layers}, [3, 48, 48]


def _golden(net: nn.Module, shape: list[int]) -> list[Golden]:
    instance = torch.randn(shape)
    with torch.inference_mode():
        return [Golden(instance.tolist(), net(instance[None]).softmax(dim=1)[0].tolist())]


def _files(folder: Path, described: VersionManifest, net: nn.Module) -> VersionFiles:
    folder.mkdir()
    artifacts.write_manifest(described, folder / "manifest.json")
    artifacts.save(net.state_dict(), folder / "weights.pt")
    return VersionFiles("m@1", folder / "manifest.json", folder / "weights.pt")
