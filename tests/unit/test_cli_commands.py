"""The command line as its users see it: output, standard error, exit status."""

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from modelyard import Client
from modelyard.cli.app import run
from modelyard.cli.session import Session
from modelyard.cli.watching import _show_live
from modelyard.resources import datasets
from tests.unit.scripted_service import (
    AT,
    PNG,
    Answer,
    ScriptedService,
    a_dataset,
    a_job,
    a_move,
    a_reply,
    a_version,
    an_event,
    event_stream,
    failed_job,
    problem,
    sse,
    succeeded_job,
    weights,
)


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(service: ScriptedService, capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*tokens: str) -> Ran:
        status = run(["--url", service.url, "--key", "k", *tokens])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Ran(status, captured.out, captured.err)

    return call


def test_push_uploads_and_waits(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    (tmp_path / "iris.csv").write_bytes(b"x,y\n1,2\n")
    service.on("PUT", "/v1/datasets/iris", Answer(202, a_dataset(name="iris", state="processing")))
    service.on("GET", "/v1/datasets/iris/versions/1", Answer(200, a_dataset(name="iris")))
    ran = cli("datasets", "push", "iris", str(tmp_path / "iris.csv"), "--format", "table")
    assert ran.status == 0
    assert "dataset: iris@1" in ran.out
    assert "state: ready" in ran.out
    assert service.requests[0].query["format"] == "table"
    assert service.requests[0].body == b"x,y\n1,2\n"


def test_push_says_why_an_upload_was_refused(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    service.on("PUT", "/v1/datasets/d", problem(422, "bad_archive", "the zip is cut off; send it again"))
    ran = cli("datasets", "push", "d", str(tmp_path / "a.zip"))
    assert ran == (1, "", "modelyard: Bad archive: the zip is cut off; send it again\n")


def test_a_push_that_is_interrupted_says_how_to_go_on(
    cli: Cli, service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "IN_PIECES_BYTES", 1)
    (tmp_path / "a.csv").write_bytes(b"x,y\n1,2\n")
    upload = {"id": "upl_1", "offset": 0, "length": 8, "expires_at": AT}
    service.on("POST", "/v1/uploads", Answer(201, upload))
    service.on("PATCH", "/v1/uploads/upl_1", problem(507, "broken", "the disk broke"))
    ran = cli("datasets", "push", "d", str(tmp_path / "a.csv"))
    assert (ran.status, ran.out) == (1, "")
    assert "go on with --resume upl_1" in ran.err
    assert "the disk broke" in ran.err
    stands = {"Upload-Offset": "8", "Upload-Length": "8", "Upload-Expires": AT}
    service.on("HEAD", "/v1/uploads/upl_1", Answer(200, None, stands))
    service.on("PATCH", "/v1/uploads/upl_1", Answer(204, None, stands))
    service.on("POST", "/v1/datasets", Answer(200, a_dataset(name="d")))
    service.on("DELETE", "/v1/uploads/upl_1", Answer(204, None))
    service.on("GET", "/v1/datasets/d/versions/1", Answer(200, a_dataset(name="d")))
    assert cli("datasets", "push", "d", str(tmp_path / "a.csv"), "--resume", "upl_1").status == 0


def test_a_file_that_is_not_there_is_named(cli: Cli) -> None:
    ran = cli("datasets", "push", "d", "/nowhere/a.zip")
    assert ran.status == 1
    assert "/nowhere/a.zip" in ran.err


def test_lists_are_lines_for_pipes_and_json_for_programs(cli: Cli, service: ScriptedService) -> None:
    service.on(
        "GET", "/v1/datasets", Answer(200, {"items": [a_dataset(), a_dataset(version=2)], "next": None})
    )
    lines = cli("datasets", "list").out.splitlines()
    assert [line.split("\t")[:3] for line in lines] == [["mnist", "1", "ready"], ["mnist", "2", "ready"]]
    assert [row["version"] for row in json.loads(cli("datasets", "list", "--json").out)] == [1, 2]


@pytest.mark.parametrize("what", ["jobs", "datasets", "models"])
@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_list_of_less_than_one_row_is_wrong_usage(cli: Cli, what: str, limit: str) -> None:
    ran = cli(what, "list", "--limit", limit)
    assert ran.status == 2
    assert "--limit" in ran.err


def test_show_samples_preview_and_delete(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    rows = [{"index": 3, "values": {"image": [[[0, 1]]], "label": "seven"}}]
    service.on("GET", "/v1/datasets/mnist", Answer(200, a_dataset()))
    service.on("GET", "/v1/datasets/mnist/samples", Answer(200, {"split": "train", "items": rows}))
    service.on("GET", "/v1/datasets/mnist/preview.png", Answer(200, PNG))
    service.on("DELETE", "/v1/datasets/mnist/versions/1", Answer(204))
    assert "splits: train 2, test 1" in cli("datasets", "show", "mnist").out
    assert cli("datasets", "samples", "mnist").out == "3\t[…]\tseven\n"
    assert cli("datasets", "preview", "mnist", "-o", str(tmp_path / "f.png")).status == 0
    assert (tmp_path / "f.png").read_bytes() == PNG
    assert cli("datasets", "delete", "mnist", "1").out == "deleted mnist@1\n"


YAML_SPEC = """
name: mnist-mlp          # a comment
dataset: mnist@1
model: {type: Sequential, layers: [{type: Flatten}]}
optimizer: {type: SGD, lr: 1e-3, nesterov: no}
trainer:
  epochs: 5
"""


def test_submit_reads_yaml_as_people_mean_it(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(YAML_SPEC)
    service.on("POST", "/v1/jobs", Answer(202, a_job(state="queued", warnings=["few rows"])))
    ran = cli("jobs", "submit", str(tmp_path / "spec.yaml"))
    assert ran == (0, "job_1\n", "warning: few rows\n")
    body = service.requests[0].json()
    assert isinstance(body, dict)
    assert body["optimizer"] == {"type": "SGD", "lr": 0.001, "nesterov": "no"}
    assert body["trainer"] == {"epochs": 5}


def test_submit_reads_standard_input(
    cli: Cli, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"name": "m"}'))
    service.on("POST", "/v1/jobs", Answer(202, a_job()))
    assert cli("jobs", "submit", "-").status == 0
    assert service.requests[0].json() == {"name": "m"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"name": "m", "name": "n"}', "the key 'name' stands twice"),
        ("name: m\nname: n\n", "the key 'name' stands twice"),
        ("- a\n- b\n", "expected a mapping"),
        ("a: [1\n", "expected JSON or YAML"),
        ("a: !!python/object/apply:os.system [ls]", "expected JSON or YAML"),
        ("[" * 50_000, "expected JSON or YAML"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_before_anything_is_sent(
    cli: Cli, service: ScriptedService, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    ran = cli("jobs", "submit", str(tmp_path / "spec.yaml"))
    assert ran.status == 1
    assert says in ran.err
    assert service.requests == []


def test_a_spec_that_cannot_train_is_told_pointer_by_pointer(
    cli: Cli, service: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / "spec.json").write_text('{"name": "m"}')
    wrong = [{"pointer": "/model/layers/2/in_features", "code": "shape", "message": "expected 784, got 700"}]
    service.on("POST", "/v1/plans", problem(422, "invalid", "the job cannot train", errors=wrong))
    ran = cli("jobs", "plan", str(tmp_path / "spec.json"))
    assert ran.status == 1
    assert ran.err.splitlines() == [
        "modelyard: Invalid: the job cannot train",
        "  /model/layers/2/in_features: expected 784, got 700",
    ]


def test_plan_shows_the_layers(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{}")
    layer = {"path": "1", "type": "Linear", "output_shape": [64, 10], "parameters": 7850, "trainable": True}
    plan = {"spec": {}, "layers": [layer], "transforms": {"train": [], "eval": []}, "parameters": 7850,
            "trainable": 7850, "steps_per_epoch": 3, "steps": 6, "memory_bytes": 2**20,
            "estimated_seconds": None, "warnings": []}  # fmt: skip
    service.on("POST", "/v1/plans", Answer(200, plan))
    out = cli("jobs", "plan", str(tmp_path / "spec.json")).out
    assert "1\tLinear\t[64, 10]\t7850" in out
    assert "memory: 1.0 MiB" in out


def watched(service: ScriptedService, end: dict[str, object]) -> None:
    service.on("POST", "/v1/jobs", Answer(202, a_job(state="queued")))
    service.on("GET", "/v1/jobs/job_1", Answer(200, end))
    text = an_event(1, "started", step=1) + an_event(2, "epoch", epoch=1, metrics={"val_loss": 0.25})
    now = {"state": "running", "progress": {"fraction": 0.5}, "metrics": {}}
    service.on("GET", "/v1/jobs/job_1/events", event_stream(text + sse("progress", now) + sse("end", {})))


def test_watching_prints_plain_lines_where_there_is_no_terminal(cli: Cli, service: ScriptedService) -> None:
    watched(service, succeeded_job())
    ran = cli("jobs", "watch", "job_1")
    assert ran.status == 0
    assert [line.split(" ", 1)[1] for line in ran.out.splitlines()] == [
        "started step 1",
        "epoch 1  val_loss 0.25",
        "as mnist-mlp@3  test_accuracy 0.971",
    ]


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(
    cli: Cli, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(service, succeeded_job())

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelyard.cli.watching._line", interrupted)
    ran = cli("jobs", "watch", "job_1")
    assert ran.status == 130
    assert "goes on" in ran.err
    assert "`modelyard jobs watch job_1`" in ran.err


def test_watching_draws_the_curves_on_a_terminal_and_lets_go_of_what_was_rewound(
    service: ScriptedService,
) -> None:
    """The numbers come from the metrics; a stream that breaks off loses none of them."""
    rows = [{"name": "train_loss", "step": s, "epoch": 0, "value": 1 / s, "at": AT} for s in (1, 2, 3, 9)]
    told = {"state": "running", "progress": {"step": 9, "fraction": 0.5}, "metrics": {}}
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))
    metrics = "/v1/jobs/job_1/metrics"
    service.on(
        "GET", metrics, Answer(200, {"items": rows, "next": None}), Answer(200, {"items": [], "next": None})
    )
    text = sse("progress", told) + an_event(1, "rewound", step=2) + sse("end", {})
    service.on("GET", "/v1/jobs/job_1/events", event_stream(text))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=30, no_color=True)
    with Client(service.url, "k") as client:
        _show_live(Session(out=console), client.jobs.handle("job_1"))
    screen = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train_loss 0.1111" in screen
    assert "train_loss 0.5" in screen
    assert service.requests_for("GET", metrics)[-1].query["after"] == "2:"


def test_submit_and_watch_fails_where_the_job_fails(
    cli: Cli, service: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / "spec.json").write_text("{}")
    watched(service, failed_job())
    ran = cli("jobs", "submit", str(tmp_path / "spec.json"), "--watch")
    assert ran.status == 1
    assert "non_finite_loss" in ran.err
    assert "lower optimizer.lr" in ran.err
    assert "/optimizer/lr" in ran.err


def test_jobs_list_show_cancel_and_metrics(cli: Cli, service: ScriptedService) -> None:
    metric = {"name": "val_loss", "step": 5, "epoch": 1, "value": None, "at": AT, "non_finite": "nan"}
    service.on("GET", "/v1/jobs", Answer(200, {"items": [a_job()], "next": None}))
    service.on("GET", "/v1/jobs/job_1", Answer(200, succeeded_job()))
    service.on("POST", "/v1/jobs/job_1/cancel", Answer(200, a_job()))
    service.on("GET", "/v1/jobs/job_1/metrics", Answer(200, {"items": [metric], "next": None}))
    assert cli("jobs", "list", "--state", "running").out.startswith("job_1\tmnist-mlp\trunning\tmnist@1\t50%")
    assert service.requests[0].query["state"] == "running"
    assert "registered: mnist-mlp@3" in cli("jobs", "show", "job_1").out
    assert cli("jobs", "cancel", "job_1").out == "job_1 is running and will be cancelled\n"
    assert cli("jobs", "metrics", "job_1", "--names", "val_loss").out.startswith("val_loss\t1\t5\tnan\t")


def test_jobs_pause_and_resume_say_what_will_be(cli: Cli, service: ScriptedService) -> None:
    service.on(
        "POST",
        "/v1/jobs/job_1/pause",
        Answer(202, a_job(wanted="pause")),
        Answer(200, a_job(state="paused", wanted="pause")),
    )
    service.on(
        "POST",
        "/v1/jobs/job_1/resume",
        Answer(200, a_job()),
        Answer(200, a_job(state="queued")),
        problem(409, "no_such_transition", "job job_1 is queued and not paused"),
    )
    assert cli("jobs", "pause", "job_1").out == "job_1 is running and will be paused\n"
    assert cli("jobs", "pause", "job_1").out == "job_1 is paused\n"
    assert cli("jobs", "resume", "job_1").out == "job_1 is running and goes on\n"
    assert cli("jobs", "resume", "job_1").out == "job_1 is queued\n"
    refused = cli("jobs", "resume", "job_1")
    assert refused.status == 1
    assert "is queued and not paused" in refused.err


def test_jobs_fork_prints_the_new_jobs_id(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    (tmp_path / "patch.yaml").write_text("trainer: {epochs: 9}\nscheduler: null\n")
    origin = {"job": "job_1", "checkpoint": "ckpt_1"}
    child = a_job(id="job_2", forked_from=origin, warnings=["few rows"])
    service.on("POST", "/v1/jobs/job_1/fork", Answer(202, child))
    service.on("GET", "/v1/jobs/job_2", Answer(200, child))
    ran = cli("jobs", "fork", "job_1", str(tmp_path / "patch.yaml"), "--from", "best")
    assert ran == (0, "job_2\n", "warning: few rows\n")
    assert cli("jobs", "fork", "job_1").status == 0
    sent = service.requests_for("POST", "/v1/jobs/job_1/fork")
    patch = {"trainer": {"epochs": 9}, "scheduler": None}
    assert [one.json() for one in sent] == [{"patch": patch, "from": "best"}, {"patch": {}}]
    assert "forked from: job_1, weights of ckpt_1" in cli("jobs", "show", "job_2").out


def test_models_list_show_and_alias(cli: Cli, service: ScriptedService) -> None:
    model = {"name": "m", "created_at": AT, "latest": 3, "aliases": {"production": 3}}
    loaded = {"version": 3, "state": "loaded", "bytes": 2**21, "waiting_rows": 2, "in_flight_rows": 1}
    service.on("GET", "/v1/models", Answer(200, {"items": [model], "next": None}))
    service.on("GET", "/v1/models/m", Answer(200, model | {"loaded": [loaded]}))
    versions = [a_version(), a_version(version=2, aliases=[])]
    service.on("GET", "/v1/models/m/versions", Answer(200, {"items": versions, "next": None}))
    service.on("GET", "/v1/models/m/versions/3", Answer(200, a_version()))
    service.on("PUT", "/v1/models/m/aliases/production", Answer(200, model))
    assert cli("models", "list").out.startswith("m\t3\tproduction 3")
    first, second = cli("models", "show", "m").out.splitlines()[-2:]
    assert first.startswith("3\tready\tclassification\tproduction")
    assert first.endswith("2.0 MiB\t2\t1")
    assert second.endswith("-\t-\t-")
    assert "inputs: image UINT8 [-1, 1, 28, 28]" in cli("models", "show", "m", "--version", "3").out
    assert cli("models", "alias", "m", "production", "3").out == "m@production is version 3\n"


def test_models_unload_says_what_that_gave_back(cli: Cli, service: ScriptedService) -> None:
    gone = {"model": "m", "versions": [3, 1], "bytes": 3 * 2**20, "returned_bytes": 2**20}
    service.on("POST", "/v1/models/m/unload", Answer(200, gone))
    out = cli("models", "unload", "m").out
    assert out == "unloaded: m@3, m@1\nweights: 3.0 MiB\nmemory given back: 1.0 MiB\n"
    assert json.loads(cli("models", "unload", "m", "--json").out) == gone


def test_models_promote_rollback_history_and_delete(cli: Cli, service: ScriptedService) -> None:
    alias = "/v1/models/m/aliases/production"
    model = {"name": "m", "created_at": AT, "latest": 3, "aliases": {"production": 2}}
    refusal = "m@3 must be better than m@2 by 0 in val_accuracy (max); m@3 has 0.91, m@2 has 0.93"
    service.on("PUT", alias, Answer(200, model), problem(409, "requirement_failed", refusal))
    service.on("POST", f"{alias}/rollback", Answer(200, model))
    service.on("GET", f"{alias}/history", Answer(200, {"items": [a_move(1)], "next": None}))
    service.on("DELETE", "/v1/models/m/versions/1", Answer(204))
    required = ("--metric", "val_accuracy", "--min-delta", "-0.01")
    assert cli("models", "promote", "m", "production", "2", *required).out == "m@production is version 2\n"
    ran = cli("models", "promote", "m", "production", "3", *required)
    assert (ran.status, refusal in ran.err) == (1, True)
    assert cli("models", "rollback", "m", "production").out == "m@production is version 2\n"
    assert (
        "set\t1\t2\tci\tval_accuracy 0.95, before 0.9\t-" in cli("models", "history", "m", "production").out
    )
    (move,) = json.loads(cli("models", "history", "m", "production", "--json").out)
    assert (move["from"], move["to"]) == (1, 2)
    assert cli("models", "delete", "m", "1").out == "deleted m@1\n"
    sent = service.requests_for("PUT", alias)[0].json()
    assert sent == {"version": 2, "require": {"metric": "val_accuracy", "min_delta": -0.01, "mode": None}}


def test_predict_asks_the_version_that_answered_first_about_every_image(
    cli: Cli, service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.cli.predict.MAX_FILES", 2)
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for file in files:
        file.write_bytes(PNG)
    service.on("POST", "/v1/models/mnist-mlp/predict", Answer(200, a_reply("7", "0")))
    service.on("POST", "/v1/models/mnist-mlp@3/predict", Answer(200, a_reply("1")))
    ran = cli("predict", "mnist-mlp", *map(str, files))
    assert ran == (0, f"{files[0]}\t7  0.75\n{files[1]}\t0  0.75\n{files[2]}\t1  0.75\n", "")
    reply = json.loads(cli("predict", "mnist-mlp", *map(str, files), "--json").out)
    assert [prediction["label"] for prediction in reply["predictions"]] == ["7", "0", "1"]


def test_predict_sends_one_image_and_files_of_rows_as_they_are(
    cli: Cli, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("POST", "/v1/models/m/predict", Answer(200, a_reply("7")))
    for name, content in {"a.png": PNG, "b.CSV": b"x\n1\n", "c.arrow": b"stream"}.items():
        (tmp_path / name).write_bytes(content)
        assert cli("predict", "m", str(tmp_path / name)).status == 0
    kinds = [request.headers["content-type"] for request in service.requests]
    assert kinds == ["image/png", "text/csv", "application/vnd.apache.arrow.stream"]
    both = cli("predict", "m", str(tmp_path / "a.png"), str(tmp_path / "b.CSV"))
    assert (both.status != 0, "not several" in both.err) == (True, True)


def test_predict_writes_a_heat_map_beside_each_image_and_shows_columns(
    cli: Cli, service: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "rows.csv").write_bytes(b"age\n1\n")
    of_image = a_reply("7")
    of_image["predictions"][0]["explanation"] = {  # type: ignore[index]
        "method": "saliency",
        "heat_map": base64.b64encode(b"heat").decode(),
    }
    of_row = a_reply("7")
    of_row["predictions"][0]["explanation"] = {"method": "saliency", "columns": {"age": 0.5}}  # type: ignore[index]
    service.on("POST", "/v1/models/m/predict", Answer(200, of_image), Answer(200, of_row))
    assert cli("predict", "m", str(tmp_path / "a.png"), "--explain", "saliency").status == 0
    assert (tmp_path / "a.png.saliency.png").read_bytes() == b"heat"
    ran = cli("predict", "m", str(tmp_path / "rows.csv"), "--explain", "saliency")
    assert ran.out == "[0]\t7  0.75  (age 0.5)\n"
    assert [request.query["explain"] for request in service.requests] == ["saliency"] * 2


def test_predict_takes_instances_and_fails_where_a_row_could_not_be_read(
    cli: Cli, service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"type": "about:blank", "title": "Invalid", "status": 422, "detail": "no width", "code": "missing"}
    reply = {"model": "m", "version": 1, "predictions": [{"value": 3.5}, {"error": bad}]}
    service.on("POST", "/v1/models/m/predict", Answer(200, reply))
    (tmp_path / "rows.json").write_text('{"instances": [{"width": 1}, {}]}')
    ran = cli("predict", "m", str(tmp_path / "rows.json"))
    assert ran == (1, "[0]\t3.5\n[1]\terror: Invalid: no width\n", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO('[{"width": 1}, {}]'))
    cli("predict", "m", "-", "--top-k", "2")
    assert service.requests[-1].json() == {"instances": [{"width": 1}, {}], "top_k": 2}


def test_checkpoints_download_and_components(cli: Cli, service: ScriptedService, tmp_path: Path) -> None:
    component = {
        "family": "layer",
        "type": "Linear",
        "doc": "y = xA^T + b",
        "parameters": [
            {"name": "in_features", "type": "int", "required": False, "inferred": True},
            {"name": "out_features", "type": "int", "required": True},
            {"name": "bias", "type": "bool", "required": False, "default": True},
        ],
    }
    service.on("GET", "/v1/checkpoints/ckpt_1/weights", weights(b"state_dict"))
    service.on("GET", "/v1/components", Answer(200, [component]))
    assert cli("checkpoints", "download", "ckpt_1", "-o", str(tmp_path / "w.pt")).status == 0
    assert (tmp_path / "w.pt").read_bytes() == b"state_dict"
    service.on("GET", "/v1/models/m/versions/3/weights", weights(b"graph"))
    ran = cli("models", "download", "m", "3", "--format", "torch_export", "-o", str(tmp_path / "m.pt2"))
    assert (ran.status, service.requests[-1].query) == (0, {"format": "torch_export"})
    assert (tmp_path / "m.pt2").read_bytes() == b"graph"
    assert (
        cli("components", "layer").out == "layer\tLinear\tin_features (inferred), out_features, bias=True\n"
    )
    assert service.requests[-1].query["family"] == "layer"


@pytest.mark.parametrize(
    "tokens",
    [
        ("datasets", "push", "only-a-name"),
        ("jobs", "list", "--colour", "red"),
        ("jobs", "show", "job_1", "--as-json"),
        ("nonsense",),
        ("models", "alias", "m", "production", "three"),
    ],
)
def test_wrong_usage_is_status_two_and_a_line_on_standard_error(
    cli: Cli, service: ScriptedService, tokens: tuple[str, ...]
) -> None:
    ran = cli(*tokens)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("modelyard: ")
    assert service.requests == []


def test_help_names_every_command(cli: Cli) -> None:
    ran = cli("--help")
    assert ran.status == 0
    for command in [
        "checkpoints",
        "components",
        "datasets",
        "doctor",
        "jobs",
        "migrate",
        "models",
        "predict",
        "serve",
        "up",
        "worker",
    ]:
        assert f" {command} " in ran.out
