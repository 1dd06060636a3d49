"""Specs of nets that no machine holds, and of weights that are code: told where they are, at once, and the
service is as large as before."""

import io
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from safetensors.torch import save
from sqlalchemy import select
from torchvision import models

from core.db.models import Dataset
from tests.attempts import c, seq
from tests.memory import MIB, grows_less_than
from tests.running_service import Owner, RunningService, run_service
from tests.uploads import complete
from tests.weights import HEADER_BOMBS, pickles
from workers import children

LINE = c("Linear", out_features=3)
#: The four features as one channel: a kernel of five leaves nothing of it.
SIGNAL = c("Unflatten", dim=1, unflattened_size=[1, 4])
DEEP = (
    b'{"name":"m","dataset":"d","model":'
    + b'{"type":"Sequential","layers":[' * 20_000
    + b"]}" * 20_000
    + b"}"
)
BUDGET_S = 2.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, service_fork_server: None) -> Iterator[RunningService]:
    """What a spec says has nothing to do with which database it is."""
    home = tmp_path_factory.mktemp("home")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home) as running:
        with running.owner() as me:
            _warm(me)
        yield running
    # A process has one fork server; the tests of workers after these want theirs.
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # its own tests' way
    children.preload()


def _warm(me: Owner) -> None:
    """Before anything is measured: the children's first imports take long on a busy machine."""
    me.dataset()
    me.client.timeout = httpx2.Timeout(100)
    assert me.client.post("/v1/plans", json=me.job()).status_code == 200


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"model": c("Linear", in_features=2**31, out_features=2**31)}, "/model/in_features"),
        ({"model": seq(LINE, c("Linear", out_features=2**31 - 1))}, "/model/layers/1"),
        ({"model": seq(*[c("ReLU")] * 10_000)}, "/model/layers"),
        ({"model": c("Linear", out_features=2**31 - 1)}, "/model"),
        ({"model": seq(c("Conv1d", out_channels=1, kernel_size=9))}, "/model/layers/0"),
        ({"model": seq(SIGNAL, c("Conv1d", out_channels=1, kernel_size=5))}, "/model/layers/1"),
        ({"model": seq(c("Conv1d", out_channels=1, kernel_size=1, stride=-1))}, "/model/layers/0/stride"),
        ({"model": {"type": ["Linear"]}}, "/model"),
        ({"model": LINE, "optimizer": c("SGD", param_groups=[{"match": "x"}] * 10_000)}, "/optimizer"),
        ({"model": LINE, "target_transform": [c("Bin", quantiles=2**31 - 1)]}, "/target_transform"),
    ],
)
def test_param_bomb_is_422_that_names_its_layer_and_the_service_stays_small(
    me: Owner, changes: dict[str, Any], pointer: str
) -> None:
    me.dataset()
    with grows_less_than(50 * MIB):
        started = time.monotonic()
        reply = me.client.post("/v1/plans", json=me.job(**changes))
        took_s = time.monotonic() - started
    assert reply.status_code == 422, reply.text
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert any(error["pointer"].startswith(pointer) for error in reply.json()["errors"]), reply.text
    assert took_s < BUDGET_S
    assert me.client.post("/v1/plans", json=me.job()).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (DEEP, 400),
        (b'{"name":"m","dataset":"d","model":{"type":"Linear","out_features":NaN}}', 400),
        (b" " * 2**20 + b"{}", 413),
    ],
    ids=["lists", "layers", "nan", "long"],
)
def test_json_depth_of_a_plan_is_refused_and_the_next_plan_is_well(
    me: Owner, body: bytes, status: int
) -> None:
    me.dataset()
    reply = me.client.post("/v1/plans", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert me.client.post("/v1/plans", json=me.job()).status_code == 200


# Weights that a spec names


@pytest.fixture
def image_dataset(me: Owner) -> None:
    me.dataset("i")
    with me.database.write() as session:
        row = session.scalars(select(Dataset).where(Dataset.owner == me.name, Dataset.name == "i")).one()
        assert row.manifest is not None
        features = row.manifest["features"] | {"x": {"dtype": "float32", "shape": [3, 32, 32]}}
        row.manifest = row.manifest | {"features": features}
        session.commit()


def post(me: Owner, route: str, data: bytes) -> Any:
    net = {"type": "squeezenet1_1", "num_classes": 3, "weights": {"upload": complete(me, data)}}
    return me.client.post(route, json=me.job(model=net, dataset="i"))


def refused(me: Owner, data: bytes) -> str:
    """By a plan and by a job, at the place that names the upload; the reason."""
    for route in ("/v1/plans", "/v1/jobs"):
        reply = post(me, route, data)
        assert reply.status_code == 422, reply.text
        (error,) = reply.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/model/weights/upload", "wrong_weights")
    return str(error["message"])


@pytest.mark.usefixtures("image_dataset")
def test_pickle_checkpoint_is_422_and_nothing_of_it_is_run(me: Owner, tmp_path: Path) -> None:
    for data in pickles(tmp_path / "marker").values():
        assert "torch.save(model.state_dict()" in refused(me, data)
    assert not (tmp_path / "marker").exists()
    good = io.BytesIO()
    torch.save(models.squeezenet1_1(num_classes=3).state_dict(), good)
    assert post(me, "/v1/plans", good.getvalue()).status_code == 200


@pytest.mark.usefixtures("image_dataset")
def test_safetensors_header_bomb_is_422_where_it_is_named(me: Owner) -> None:
    for what in ("header of a terabyte", "overlapping", "too many tensors"):
        message = refused(me, HEADER_BOMBS[what])
        assert "header" in message or "tensors" in message


@pytest.mark.usefixtures("image_dataset")
def test_weights_in_safetensors_are_taken_where_they_fit(me: Owner) -> None:
    state = models.squeezenet1_1(num_classes=3).state_dict()
    assert post(me, "/v1/plans", save(state)).status_code == 200
    wrong = save({**state, "features.0.weight": torch.ones(1)})
    assert "features.0.weight is [1], expected [64, 3, 3, 3]" in refused(me, wrong)
