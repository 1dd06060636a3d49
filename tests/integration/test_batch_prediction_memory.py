"""What a batch prediction's process holds does not grow with the rows."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.nets.plan import Source, check
from tests import batch_predictions as batches
from tests import house as homes
from workers import children
from workers.house import House
from workers.tasks import predict_one, train_one

FEW, MANY = 5_000, 200_000
#: By how much the two peaks may differ; the rows alone differ by 50 MB, their answers as objects by more.
SLACK_BYTES = 24 * 1024 * 1024


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    children.preload()
    opened = homes.open_house(f"sqlite:///{tmp_path / 'modelyard.db'}", tmp_path / "home")
    yield opened
    opened.database.close()


@pytest.mark.deep
@pytest.mark.timeout(300)
def test_forty_times_the_rows_take_no_more_memory(house: House, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    peaks = []
    for rows in (FEW, MANY):
        x, y = rng.standard_normal((rows, 32)), rng.integers(0, 3, rows)
        manifest = homes.add_arrays(house, tmp_path, x, y, name=f"arrays{rows}")
        if rows == FEW:
            layers = [{"type": "Linear", "out_features": 3}]
            raw = {"name": "a", "dataset": "a@1", "model": {"type": "Sequential", "layers": layers}}
            spec = check(raw | {"trainer": {"epochs": 1}}, Source("a@1", manifest)).spec
            homes.queue_job(house, spec, dataset=f"arrays{rows}")
            assert train_one(house)
        batch_id = batches.queue(house, f"arrays{rows}", format="parquet")
        peaks.append(peak_while_predicting(house))
        assert len(batches.answers(house, batch_id)) == rows
    assert peaks[1] - peaks[0] < SLACK_BYTES, peaks


def peak_while_predicting(house: House) -> int:
    """Bytes of the child's own memory; the pages of mapped files are the kernel's to take back."""
    thread = threading.Thread(target=predict_one, args=(house,))
    thread.start()
    peak = 0
    while thread.is_alive():
        for process in multiprocessing.active_children():
            peak = max(peak, own_bytes(process.pid))
        time.sleep(0.02)
    return peak


def own_bytes(pid: int | None) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024 if "RssAnon" in fields else 0
