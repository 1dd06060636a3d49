"""Batch predictions through the client and the command line, against a real server on loopback."""

from pathlib import Path

import pytest

from modelyard import Client, errors
from modelyard.cli.app import run
from modelyard.specs import BatchState
from tests.unit.scripted_service import AT, Answer, ScriptedService, problem, weights

ROUTE = "/v1/batch-predictions"
ONE = f"{ROUTE}/bp_1"


def a_batch(state: str = "running", *, rows_done: int = 5, **changes: object) -> dict[str, object]:
    return {
        "id": "bp_1", "state": state, "terminal": state not in ("queued", "running"), "model": "m",
        "version": 3, "format": "csv", "attempt": 1, "losses": 0,
        "progress": {"rows_done": rows_done, "rows": 10, "errors": 1, "fraction": rows_done / 10,
                     "rows_per_second": 2.5},
        "dataset": {"name": "d", "version": 1, "sha256": "0" * 64, "split": "test"}, "upload": None,
        "output": None, "errors": None, "error": None, "transitions": [], "warnings": [],
        "created_at": AT, "started_at": AT, "finished_at": None, "later": 1,
    } | changes  # fmt: skip


def succeeded() -> dict[str, object]:
    file = {"rows": 9, "size": 4, "sha256": "0" * 64}
    return a_batch("succeeded", rows_done=10, output=file, errors={**file, "rows": 1})


def test_submit_sends_what_is_given_with_a_key_of_its_own(client: Client, service: ScriptedService) -> None:
    service.on("POST", ROUTE, Answer(202, a_batch("queued")))
    handle = client.batch_predictions.submit("m@best-one", "d", split="test", format="csv")
    client.batch_predictions.submit("m", upload="upl_1", idempotency_key="mine")
    first, second = service.requests
    assert first.json() == {"model": "m@best-one", "dataset": "d", "split": "test", "format": "csv"}
    assert second.json() == {"model": "m", "upload": "upl_1", "format": "parquet"}
    assert len(first.headers["idempotency-key"]) == 32
    assert second.headers["idempotency-key"] == "mine"
    assert (handle.id, handle.batch.version) == ("bp_1", 3)


def test_rows_from_nowhere_or_from_two_places_are_not_sent(client: Client, service: ScriptedService) -> None:
    for given in ({}, {"dataset": "d", "upload": "upl_1"}):
        with pytest.raises(errors.InvalidArgument):
            client.batch_predictions.submit("m", **given)  # type: ignore[arg-type] # the names are its own
    assert service.requests == []


def test_waiting_tells_the_progress_and_outlives_an_outage(client: Client, service: ScriptedService) -> None:
    service.on("POST", ROUTE, Answer(202, a_batch("queued", rows_done=0)))
    service.on(
        "GET",
        ONE,
        Answer(200, a_batch(rows_done=2)),
        problem(503, "unavailable", "in a moment", Retry_After="0"),
        Answer(200, a_batch(rows_done=7)),
        Answer(200, succeeded()),
    )
    told: list[int] = []
    handle = client.batch_predictions.submit("m", "d")
    batch = handle.wait(on_progress=lambda seen: told.append(seen.progress.rows_done))
    assert told == [2, 7, 10]
    assert (batch.state, handle.batch) == (BatchState.SUCCEEDED, batch)
    assert service.requests[-1].query["wait"] == "30"


def test_one_that_failed_raises_with_its_reason(client: Client, service: ScriptedService) -> None:
    error = {"code": "out_of_memory", "message": "too large", "hint": "smaller", "pointer": None}
    service.on("GET", ONE, Answer(200, a_batch("failed", error=error)))
    handle = client.batch_predictions.handle("bp_1")
    with pytest.raises(errors.BatchPredictionFailed, match=r"out_of_memory\): too large smaller"):
        handle.wait()
    assert handle.wait(raise_on_failure=False).state is BatchState.FAILED


def test_waiting_ends_at_its_time(client: Client, service: ScriptedService) -> None:
    service.on("GET", ONE, Answer(200, a_batch()))
    with pytest.raises(errors.WaitTimeout):
        client.batch_predictions.handle("bp_1").wait(timeout_s=0.1)


def test_the_files_arrive_whole_or_not_at_all(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("GET", f"{ONE}/output", weights(b"row\n0\n"))
    service.on("GET", f"{ONE}/errors", weights(b""))
    assert client.batch_predictions.download("bp_1", tmp_path / "a.csv").read_bytes() == b"row\n0\n"
    assert client.batch_predictions.download_errors("bp_1", tmp_path / "b.csv").read_bytes() == b""
    service.on("GET", f"{ONE}/output", Answer(200, b"row\n", {"ETag": f'"{"0" * 64}"'}))
    with pytest.raises(errors.UnexpectedReply):
        client.batch_predictions.download("bp_1", tmp_path / "c.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_the_command_submits_waits_and_writes(
    service: ScriptedService, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service.on("POST", ROUTE, Answer(202, a_batch("queued")))
    service.on("GET", ONE, Answer(200, a_batch()), Answer(200, succeeded()))
    service.on("GET", f"{ONE}/output", weights(b"row\n0\n"))
    service.on("GET", f"{ONE}/errors", weights(b"why\n"))
    shared = ["--url", service.url, "--key", "k"]
    output, failed = tmp_path / "out.jsonl", tmp_path / "failed.jsonl"
    words = ["predict-batch", "m", "--dataset", "d", "--output", str(output), "--errors", str(failed)]
    assert run([*shared, *words]) == 0
    assert service.requests[0].json() == {"model": "m", "dataset": "d", "format": "jsonl"}
    assert (output.read_bytes(), failed.read_bytes()) == (b"row\n0\n", b"why\n")
    assert "9 rows answered by m@3" in capfd.readouterr().out
    assert run([*shared, "batch-predictions", "show", "bp_1"]) == 0
    assert "rows: 10 of 10, 1 without an answer" in capfd.readouterr().out
    assert run([*shared, "predict-batch", "m"]) == 1
    service.on("GET", ROUTE, Answer(200, {"items": [a_batch()], "next": None}))
    assert run([*shared, "batch-predictions", "list"]) == 0
    assert "bp_1\trunning\tm@3\t10\t50%" in capfd.readouterr().out
    service.on("POST", f"{ONE}/cancel", Answer(202, a_batch()))
    assert run([*shared, "batch-predictions", "cancel", "bp_1"]) == 0
    assert "bp_1 is being cancelled" in capfd.readouterr().out


def test_the_command_says_why_one_failed(
    service: ScriptedService, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    error = {"code": "internal", "message": "no", "hint": "", "pointer": None}
    service.on("GET", ONE, Answer(200, a_batch("failed", error=error)))
    words = ["batch-predictions", "download", "bp_1", "--output", str(tmp_path / "a")]
    assert run(["--url", service.url, "--key", "k", *words]) == 1
    assert "batch prediction bp_1 failed (internal): no" in capfd.readouterr().err
    assert not (tmp_path / "a").exists()
