"""Weights that are code, or that promise more than they hold: refused before a line of them is run and
before anything is allocated."""

import io
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torchvision import models

from core import ids
from core.db.models import Job, Upload, utc_now
from core.nets.pretrained import WeightsMismatch, load_pretrained
from core.nets.safetensors_file import BadTensors, read_tensors
from core.uploads import upload_key
from tests import house as homes
from tests.memory import MIB, grows_less_than
from tests.weights import HEADER_BOMBS, pickles
from workers.house import House
from workers.tasks import train_one


def test_pickle_checkpoint_would_run_its_code_where_pickles_are_trusted(tmp_path: Path) -> None:
    """So that a marker that is absent says something."""
    for data in pickles(tmp_path / "marker").values():
        torch.load(io.BytesIO(data), weights_only=False)
        (tmp_path / "marker").unlink()


def test_pickle_checkpoint_fails_its_job_in_a_worker_that_lives_on(
    house: House, manifest: homes.Manifest, tmp_path: Path
) -> None:
    """Where a plan could not look into the file: the worker's child is the one to open it."""
    made = pickles(tmp_path / "marker")
    for data in (made["hidden, zip"], made["alone, legacy"]):
        upload_id = ids.upload_id()
        (tmp_path / "file").write_bytes(data)
        house.storage.adopt(upload_key(upload_id), tmp_path / "file")
        job_id = homes.add_job(house, manifest, epochs=1)
        with house.database.write() as session:
            session.add(
                Upload(
                    id=upload_id,
                    owner=homes.OWNER,
                    filename="w.pt",
                    length=len(data),
                    offset=len(data),
                    sha256="0" * 64,
                    created_at=utc_now(),
                    expires_at=utc_now(),
                )
            )
            job = session.get_one(Job, job_id)
            net = {"type": "squeezenet1_1", "num_classes": 10, "weights": {"upload": upload_id}}
            job.spec = job.spec | {"model": job.spec["model"] | {"layers": [net]}}
            job.upload_ids = [upload_id]
            session.commit()
        assert train_one(house)
        with house.database.read() as session:
            ended = session.get_one(Job, job_id)
        assert (ended.state, (ended.error or {})["code"]) == ("failed", "weights_mismatch")
    assert not (tmp_path / "marker").exists()
    well = homes.add_job(house, manifest, epochs=1)
    assert train_one(house)
    with house.database.read() as session:
        assert session.get_one(Job, well).state == "succeeded"


# Safetensors


@pytest.mark.parametrize("what", HEADER_BOMBS)
def test_safetensors_header_bomb_is_refused_before_anything_is_allocated(tmp_path: Path, what: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(HEADER_BOMBS[what])
    started = time.monotonic()
    with grows_less_than(50 * MIB), pytest.raises(BadTensors):
        read_tensors(path)
    assert time.monotonic() - started < 2


def test_weights_in_safetensors_are_those_of_a_state_dict(tmp_path: Path) -> None:
    net = models.squeezenet1_1(num_classes=3)
    data = save(net.state_dict())
    (tmp_path / "w").write_bytes(data)
    other = models.squeezenet1_1(num_classes=3)
    model = {"type": "squeezenet1_1", "num_classes": 3, "weights": {"upload": "u"}}
    assert load_pretrained(other, model, {"u": tmp_path / "w"}, tmp_path) == []
    for name, value in other.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_weights_that_are_large_are_compared_by_name_before_they_are_read(tmp_path: Path) -> None:
    """160 MB, in either format."""
    large = {"features.0.weight": torch.empty(40_000_000)}
    (tmp_path / "safetensors").write_bytes(save(large))
    torch.save(large, tmp_path / "pt")
    del large
    model = {"type": "squeezenet1_1", "num_classes": 3, "weights": {"upload": "u"}}
    for name in ("safetensors", "pt"):
        net = models.squeezenet1_1(num_classes=3)
        with grows_less_than(50 * MIB), pytest.raises(WeightsMismatch, match="lacks"):
            load_pretrained(net, model, {"u": tmp_path / name}, tmp_path)
