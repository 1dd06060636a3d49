"""A training that is killed at a random step, paused or drained, and taken up by another worker ends as the
one that nothing happened to: the same weights, state, metrics and best checkpoint, by hash."""

import random
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from core.data.manifest import Manifest
from service import steering
from tests import exactness, injected
from tests import house as homes
from workers.house import House
from workers.tasks import train_one

EPOCHS = 4
STEPPED = "workers.trainer:update"

#: Everything at once that has a state of its own, in ways that go together.
BY_STEPS = {
    "trainer": {
        "epochs": EPOCHS,
        "accumulate": 3,
        "clip_grad_norm": 0.5,
        "ema": {"decay": 0.9},
        "checkpoint": {"every_steps": 3, "monitor": "val_accuracy", "mode": "max"},
    },
    "optimizer": {"type": "AdamW", "lr": 0.01},
    "scheduler": {"type": "OneCycleLR", "max_lr": 0.05, "interval": "step"},
    "transforms": {
        "train": [
            {"type": "RandomCrop", "size": [8, 8], "padding": 1},
            {"type": "RandomHorizontalFlip", "p": 0.3},
            {"type": "RandomRotation", "degrees": 10},
        ],
        "eval": [],
    },
}
WITH_WORKERS = BY_STEPS | {"trainer": BY_STEPS["trainer"] | {"num_workers": 2}}
#: With momentum, early stopping that ends it, and a schedule that waits for the validation.
BY_EPOCHS = {
    "trainer": {
        "epochs": 40,
        "early_stopping": {"monitor": "val_loss", "patience": 2, "min_delta": 0.02},
        "checkpoint": {"every_epochs": 2, "keep": 1},
    },
    "optimizer": {"type": "SGD", "lr": 0.2, "momentum": 0.9},
    "scheduler": {"type": "ReduceLROnPlateau", "factor": 0.5, "patience": 0},
}
SPECS: dict[str, dict[str, Any]] = {
    "steps": BY_STEPS,
    "workers": WITH_WORKERS,
    "epochs": BY_EPOCHS,
}
#: Steps that an unbroken run of each makes at least.
STEPS = {"steps": EPOCHS * 5, "workers": EPOCHS * 5, "epochs": 3 * exactness.BATCHES}

POINTS = [
    *range(3),
    *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(3, 20)),
]


@pytest.fixture(scope="module")
def unbroken(house: House, manifest: Manifest) -> Callable[[str], exactness.Outcome]:
    @cache
    def run(spec: str) -> exactness.Outcome:
        job_id = exactness.queue(house, manifest, **SPECS[spec])
        assert train_one(house)
        return exactness.outcome(house, job_id)

    return run


Unbroken = Callable[[str], exactness.Outcome]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("spec", SPECS)
def test_resume_exact_killed_at_a_random_step_ends_as_the_unbroken_one(
    house: House, manifest: Manifest, unbroken: Unbroken, spec: str, point: int
) -> None:
    expected = unbroken(spec)
    job_id = exactness.queue(house, manifest, **SPECS[spec])
    step = random.Random(f"{spec} {point}").randint(1, STEPS[spec])
    injected.inject(house, STEPPED, "kill_after", call=step)
    assert train_one(house)
    assert homes.read_job(house, job_id).state == "queued"
    assert not injected.is_left(house)
    assert train_one(house)
    assert homes.read_job(house, job_id).attempt == 2
    assert exactness.outcome(house, job_id) == expected


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("wanted", ["pause", "drain"])
def test_resume_exact_where_it_stood_ends_as_the_unbroken_one(
    house: House, manifest: Manifest, unbroken: Unbroken, spec: str, wanted: str
) -> None:
    expected = unbroken(spec)
    job_id = exactness.queue(house, manifest, **SPECS[spec])
    step = random.Random(f"{spec} {wanted}").randint(2, STEPS[spec] - 1)
    injected.inject(house, STEPPED, "wait_for_stop", call=step)
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    injected.wait_until_here(house)
    if wanted == "pause":
        homes.ask(house, job_id, steering.pause)
    else:
        house.draining.set()
    thread.join(10)
    house.draining.clear()
    job = homes.read_job(house, job_id)
    assert job.losses == 0
    assert homes.read_checkpoints(house, job_id)[0].step == step
    if wanted == "pause":
        assert (job.state, job.transitions[-1]["reason"]) == ("paused", "paused by its owner")
        homes.ask(house, job_id, steering.resume)
    else:
        assert (job.state, job.transitions[-1]["reason"]) == ("queued", "drained")
    assert train_one(house)
    assert exactness.outcome(house, job_id) == expected


def test_resume_exact_of_10_steps_a_kill_and_10_steps_equals_20_to_the_bit(
    house: House, manifest: Manifest
) -> None:
    trainer = BY_STEPS["trainer"] | {"accumulate": 1, "max_steps": 20}
    spec = BY_STEPS | {"trainer": trainer | {"checkpoint": {"every_steps": 10}}}
    job_ids = [exactness.queue(house, manifest, **spec) for _ in range(2)]
    assert train_one(house)
    injected.inject(house, "workers.trainer:update", "kill_once_committed", call=12)
    assert train_one(house)
    assert [row.step for row in homes.read_checkpoints(house, job_ids[1])] == [10]
    assert train_one(house)
    assert homes.read_job(house, job_ids[1]).attempt == 2
    whole, broken = (exactness.outcome(house, job_id) for job_id in job_ids)
    assert broken == whole
