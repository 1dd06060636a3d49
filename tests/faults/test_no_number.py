"""A loss that is no number: the job goes back once, and either heals or says where it began."""

from pathlib import Path

import numpy as np
import pytest

from core.data.manifest import Manifest
from core.nets.plan import Source, check
from tests import exactness, injected
from tests import house as homes
from workers.house import House
from workers.tasks import train_one

COMPUTED = "workers.trainer:compute_loss"
#: Batches of 100 of 1,350 rows in 14 steps an epoch.
TRAINER = {"epochs": 4, "checkpoint": {"every_steps": 10}}
BAD_ROWS = [17, 230]


@pytest.fixture(scope="module")
def arrays(house: House, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two classes that a line divides; two of the training rows hold what float32 cannot."""
    random = np.random.default_rng(5)
    x = random.normal(size=(500, 6))
    y = (x[:, 0] > 0).astype(np.int64)
    x[BAD_ROWS, 3] = 1e300
    return homes.add_arrays(house, tmp_path_factory.mktemp("arrays"), x, y)


def test_a_glitch_that_does_not_come_again_costs_a_way_back_and_nothing_else(
    house: House, manifest: Manifest
) -> None:
    unbroken = exactness.queue(house, manifest, TRAINER)
    assert train_one(house)
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, COMPUTED, "glitch", call=33)
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert (job.state, job.attempt, job.losses) == ("succeeded", 1, 0)
    assert exactness.outcome(house, job_id) == exactness.outcome(house, unbroken)
    told = [event for event in homes.read_events(house, job_id) if event.type in ("went_astray", "rewound")]
    assert [event.type for event in told] == ["went_astray", "rewound"]
    assert "nan" in told[0].data["message"]
    assert told[1].data["step"] == 30


def test_a_second_glitch_fails_the_job_and_names_its_step(house: House, manifest: Manifest) -> None:
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, COMPUTED, "glitch", call=3, times=2)
    assert train_one(house)
    error = homes.read_job(house, job_id).error
    assert error is not None
    assert error["code"] == "non_finite_loss"
    assert "at step 3" in error["message"]
    events = homes.read_events(house, job_id)
    assert len([event for event in events if event.type == "went_astray"]) == 1


def test_a_learning_rate_far_too_high_fails_naming_the_step_and_the_layer(
    house: House, manifest: Manifest
) -> None:
    job_id = exactness.queue(house, manifest, TRAINER, optimizer={"type": "SGD", "lr": 1e30})
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "non_finite_loss"
    assert "in epoch 1, at step 2" in job.error["message"]
    # The second Linear follows a batch norm, so that its inputs are finite: weights of 1e29 are not enough
    # for the first to overflow, and its sums are.
    assert "layer 5 (Linear)" in job.error["message"] or "layer 2 (BatchNorm1d)" in job.error["message"]
    assert "learning rate" in job.error["hint"]


def test_rows_that_float32_cannot_hold_are_named_by_number_and_split(house: House, arrays: Manifest) -> None:
    raw = {
        "name": "arrays",
        "dataset": "arrays@1",
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 2}]},
        "split": {"validation": [], "seed": 0} | {"validation": 0.1},
        "trainer": {"epochs": 2, "batch_size": 400},
    }
    spec = check(raw, Source("arrays@1", arrays)).spec
    job_id = homes.queue_job(house, spec, "arrays")
    assert train_one(house)
    error = homes.read_job(house, job_id).error
    assert error is not None
    assert error["code"] == "non_finite_loss"
    assert "at step 1" in error["message"]
    assert "rows 17, 230 of train" in error["message"]
    assert "mend these rows" in error["hint"]


def test_weights_that_are_no_numbers_are_never_a_checkpoint(
    house: House, manifest: Manifest, tmp_path: Path
) -> None:
    """The loss is still one at the step that spoils them, and an epoch of one batch ends with it."""
    trainer = {"epochs": 3, "batch_size": 1350, "checkpoint": {"every_epochs": 1}}
    job_id = exactness.queue(house, manifest, trainer, optimizer={"type": "SGD", "lr": 1e38, "momentum": 0.9})
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "non_finite_loss"
    assert all(not row.metrics or row.step < 2 for row in homes.read_checkpoints(house, job_id))
