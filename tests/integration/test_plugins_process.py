"""A plugin through real processes: planned in the helper's child, trained in a worker's, served here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.datasets import load_digits

from core.nets import plugins
from core.nets.plan import Source, check
from core.predict import Predictor
from core.settings import Settings
from service import planner
from service.app import create_app
from service.helper import Helper, plans
from service.startup import CannotStart
from tests import house as homes
from tests.plugins import install_example, on_path
from workers import children
from workers.tasks import train_one

PACKAGE = "modelyard-example-plugin"
USED = dict.fromkeys(("ScaledSwish", "SignActivation", "Pixelate", "FocalLoss"), f"{PACKAGE}==1.0.0")
SPEC: dict[str, Any] = {
    "name": "digits",
    "dataset": "digits@1",
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Flatten"},
            {"type": "Linear", "out_features": 64},
            {"type": "ScaledSwish", "beta": 1.5},
            {"type": "Linear", "out_features": 64},
            {"type": "SignActivation"},
            {"type": "Linear", "out_features": 10},
        ],
    },
    "transforms": {"train": [{"type": "Pixelate", "size": 1}]},
    "loss": {"type": "FocalLoss"},
    "trainer": {"epochs": 8, "batch_size": 100},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Installed for this process and those it starts."""
    folder = install_example(tmp_path_factory.mktemp("plugin"))
    with on_path(folder):
        yield folder


@pytest.fixture
def house(site: Path, tmp_path: Path) -> Iterator[homes.House]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    opened = homes.open_house(url, tmp_path / "home", plugins=PACKAGE)
    children.preload()
    yield opened
    opened.database.close()


def test_a_job_of_plugins_trains_in_a_worker_and_its_version_predicts(
    house: homes.House, tmp_path: Path
) -> None:
    manifest = homes.add_digits(house, tmp_path)
    plugins.load(PACKAGE)
    job_id = homes.queue_job(house, check(SPEC, Source("digits@1", manifest)).spec)
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.resolved["plugins"] == USED
    assert job.metrics["test_accuracy"] > 0.7
    (version,) = homes.read_versions(house)
    assert version.lineage["environment"]["plugins"] == USED
    (checkpoint, *_) = homes.read_checkpoints(house, job_id)
    files = [house.storage.fetch(key) for key in (version.manifest_key, checkpoint.weights_key)]
    predictor = Predictor.load(*files)
    assert predictor.manifest.plugins == {name: USED[name] for name in USED if name != "FocalLoss"}
    digits = load_digits()
    image = (digits.images[-1:] * 255 / 16).astype("uint8").tolist()
    (prediction,) = predictor.predict(image)
    assert prediction.label == str(digits.target[-1])


def test_a_job_whose_plugin_a_worker_lacks_fails_and_says_what_is_missing(
    house: homes.House, tmp_path: Path
) -> None:
    manifest = homes.add_digits(house, tmp_path)
    plugins.load(PACKAGE)
    job_id = homes.queue_job(house, check(SPEC, Source("digits@1", manifest)).spec)
    house.settings = house.settings.model_copy(update={"plugins": ""})
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "device_unavailable"
    assert "lacks the layer ScaledSwish, the layer SignActivation, the loss FocalLoss" in job.error["message"]
    assert "MODELYARD_PLUGINS" in job.error["hint"]


async def test_a_spec_is_planned_with_plugins_in_the_helpers_child(
    house: homes.House, tmp_path: Path
) -> None:
    manifest = msgspec.json.encode(homes.add_digits(house, tmp_path))
    request = planner.encode(planner.Examine(msgspec.json.encode(SPEC), "digits@1", manifest, 10**9))
    helper = Helper(plans(Settings(home=tmp_path, plan_processes=1)), planner.answer, PACKAGE)
    helper.start()
    try:
        reply = planner.decode(await helper.ask(request))
    finally:
        helper.close()
    assert isinstance(reply, planner.Passed)
    assert reply.checked.plan.layers[2].type == "ScaledSwish"


def test_a_service_with_a_plugin_that_is_not_installed_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="MODELYARD_PLUGINS names nobody"):
        create_app(Settings(home=tmp_path, plugins="nobody"))


def test_a_worker_with_a_plugin_that_is_not_installed_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="the fork server's first child ended with 1"):
        children.preload("nobody")
