"""A model answers a whole dataset and a file, through the client and the command line, against the stack."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy.embed import RunningStack
from modelyard import Client
from modelyard.cli.app import run
from tests.make_data import csv_bytes


@pytest.mark.timeout(120)
def test_a_dataset_and_a_file_are_answered_row_by_row(
    stack: RunningStack, client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, 2)).round(3)
    side = np.where(x[:, 0] > 0, "right", "left")
    rows = tmp_path / "sides.csv"
    rows.write_bytes(csv_bytes([["a", "b", "side"], *zip(*x.T.tolist(), side.tolist(), strict=True)]))
    client.datasets.push("sides", rows)
    layers = [{"type": "Linear", "out_features": 2}]
    spec = {"name": "sides", "dataset": "sides", "model": {"type": "Sequential", "layers": layers}}
    client.jobs.submit(spec).wait(timeout_s=100)

    batch = client.batch_predictions.submit("sides", "sides")
    ended = batch.wait(timeout_s=60)
    table = pq.read_table(batch.download(tmp_path / "all.parquet")).to_pydict()
    assert ended.progress.rows_done == 3000
    assert table["row"] == list(range(3000))
    some = client.models.predict("sides@1", [{"a": a, "b": b} for a, b in x[:500].tolist()]).predictions
    assert table["label"][:500] == [one.label for one in some]
    assert table["score"][:500] == pytest.approx([one.score for one in some], abs=1e-6)

    with rows.open("ab") as file:
        file.write(b"much,0.5,left\n")
    output, failed = tmp_path / "file.csv", tmp_path / "failed.csv"
    words = ["predict-batch", "sides", str(rows), "--output", str(output), "--errors", str(failed)]
    assert run(["--url", stack.url, "--key", stack.key, *words]) == 0
    assert "3000 rows answered by sides@1" in capfd.readouterr().out
    answered, told = (list(csv.DictReader(path.read_text().splitlines())) for path in (output, failed))
    assert [row["label"] for row in answered] == table["label"]
    assert [(row["row"], row["code"]) for row in told] == [("3000", "bad_instance")]
