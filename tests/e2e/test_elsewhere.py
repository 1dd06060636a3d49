"""The same code on PostgreSQL, a broker of one's own and an object store: one job through all of it."""

import zipfile
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from deploy.embed import running_stack
from examples.digits.make_digits import pictures, write_zip
from modelyard import Client
from tests.house import NET

BUCKET = "modelyard-test"


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://…` of a store that speaks S3 on loopback."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}/some/prefix"
    server.stop()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_goes_the_whole_way_on_postgresql_and_an_object_store(
    database_url: str, broker_url: str, object_store: str, tmp_path: Path
) -> None:
    write_zip(tmp_path / "digits.zip")
    home = tmp_path / "home"
    elsewhere = {"database_url": database_url, "broker_url": broker_url, "storage_url": object_store}
    with running_stack(home, **elsewhere) as stack, Client(stack.url, stack.key) as client:
        dataset = client.datasets.push("digits", tmp_path / "digits.zip")
        job = client.jobs.submit(
            {
                "name": "digits",
                "dataset": "digits",
                "model": NET,
                "optimizer": {"type": "AdamW", "lr": 0.01},
                "trainer": {"epochs": 6, "batch_size": 32},
            }
        )
        done = job.wait(timeout_s=120)
        assert done.metrics["test_accuracy"] > 0.9
        picture = pictures("test")[0]
        answer = client.models.predict_image("digits", picture.png).predictions[0]
        assert answer.label == str(picture.label)
        best = next(checkpoint for checkpoint in job.checkpoints() if checkpoint.is_best)
        weights = client.checkpoints.download(best.id, tmp_path / "weights.pt")
        assert zipfile.is_zipfile(weights)  # what torch.save writes
        assert dataset.sha256 == done.dataset.sha256
    assert not (home / "modelyard.db").exists()
    assert not (home / "artifacts").exists()
    assert not (home / "broker.sock").exists()
