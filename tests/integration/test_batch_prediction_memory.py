"""What a batch prediction's process holds does not grow with the rows."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.data.manifest import Manifest
from core.nets.plan import Source, check
from tests import batch_predictions as batches
from tests import house as homes
from workers import children
from workers.house import House
from workers.tasks import predict_one, train_one

#: Both more than one row group of the output, which memory holds.
FEW, MANY = 70_000, 280_000
#: By how much the two peaks may differ; the rows alone differ by 50 MB, their answers as objects by more.
SLACK_BYTES = 12 * 1024 * 1024


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    children.preload()
    opened = homes.open_house(f"sqlite:///{tmp_path / 'modelyard.db'}", tmp_path / "home")
    yield opened
    opened.database.close()


@pytest.mark.deep
@pytest.mark.timeout(300)
def test_four_times_the_rows_take_no_more_memory(house: House, tmp_path: Path) -> None:
    layers = [{"type": "Linear", "out_features": 3}]
    raw = {"name": "a", "dataset": "a@1", "model": {"type": "Sequential", "layers": layers}}
    spec = check(raw | {"trainer": {"epochs": 1}}, Source("a@1", arrays(house, tmp_path, 500))).spec
    homes.queue_job(house, spec, dataset="arrays500")
    assert train_one(house)
    peaks = []
    for rows in (FEW, MANY):
        arrays(house, tmp_path, rows)
        batch_id = batches.queue(house, f"arrays{rows}", format="parquet")
        peaks.append(peak_while_predicting(house))
        assert len(batches.answers(house, batch_id)) == rows
    print(f"peaks: {peaks}")
    assert peaks[1] - peaks[0] < SLACK_BYTES


def arrays(house: House, folder: Path, rows: int) -> Manifest:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, 32)), rng.integers(0, 3, rows)
    return homes.add_arrays(house, folder, x, y, name=f"arrays{rows}")


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
