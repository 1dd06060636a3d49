"""A job on two devices through the whole service."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from modelyard import Client
from tests.house import NET


@pytest.fixture(scope="module")
def digits(client: Client, digits_zip: Path) -> str:
    return client.datasets.push("digits", digits_zip).name


def test_a_job_on_two_devices_succeeds_and_its_version_predicts(client: Client, digits: str) -> None:
    trainer = {"epochs": 8, "batch_size": 64, "devices": 2}
    spec = {"name": "pair", "dataset": digits, "model": NET, "trainer": trainer}
    job = client.jobs.submit(spec).wait(timeout_s=100)
    assert (job.state, job.resolved["devices"]) == ("succeeded", 2)
    assert job.metrics["test_accuracy"] > 0.8
    images_NHW = np.rint(load_digits().images[:20] * (255 / 16)).astype(int).tolist()
    answers = client.models.predict("pair", images_NHW).predictions
    right = [answer.label == str(digit) for answer, digit in zip(answers, load_digits().target, strict=False)]
    assert sum(right) >= 14
