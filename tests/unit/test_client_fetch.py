"""Asking for one of torchvision's datasets, by client and by command line, against a server on loopback."""

import json

import pytest

from modelyard import Client, errors
from modelyard.cli.app import run
from tests.unit.scripted_service import Answer, ScriptedService, a_dataset

SOURCE = {"type": "torchvision", "dataset": "EMNIST", "options": {"split": "letters"}}


def test_fetch_names_the_source_and_waits_until_it_is_ready(client: Client, service: ScriptedService) -> None:
    begun = a_dataset(name="letters", state="processing", bytes=0, sha256="", source=SOURCE)
    service.on("POST", "/v1/datasets", Answer(202, begun))
    service.on(
        "GET", "/v1/datasets/letters/versions/1", Answer(200, a_dataset(name="letters", source=SOURCE))
    )
    dataset = client.datasets.fetch("letters", torchvision="EMNIST", options={"split": "letters"})
    sent = service.requests_for("POST", "/v1/datasets")[0]
    assert json.loads(sent.body) == {"name": "letters", "source": SOURCE}
    assert sent.headers["content-type"] == "application/json"
    assert (dataset.state, dataset.source) == ("ready", SOURCE)


def test_fetch_tells_why_it_failed(client: Client, service: ScriptedService) -> None:
    reason = {"type": "about:blank", "title": "Unavailable", "status": 503, "code": "fetch_failed",
              "detail": "http://x/y could not be fetched (404 Not Found)"}  # fmt: skip
    service.on("POST", "/v1/datasets", Answer(202, a_dataset(state="failed", error=reason)))
    with pytest.raises(errors.DatasetFailed, match="http://x/y could not be fetched"):
        client.datasets.fetch("d", "MNIST")


def test_command_line_takes_options_of_the_class(
    service: ScriptedService, capfd: pytest.CaptureFixture[str]
) -> None:
    service.on("POST", "/v1/datasets", Answer(200, a_dataset(name="t", source={"dataset": "DTD"})))
    arguments = ["--url", service.url, "--key", "k", "datasets", "fetch", "t", "--torchvision", "DTD"]
    assert run([*arguments, "--no-wait", "--option", "partition=3", "--option", "other=x"]) == 0
    assert json.loads(service.requests[0].body)["source"]["options"] == {"partition": 3, "other": "x"}
    assert "source: dataset DTD" in capfd.readouterr().out
    assert run([*arguments, "--option", "partition"]) != 0
    assert "name=value" in capfd.readouterr().err
