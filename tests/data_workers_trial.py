"""Run by test_data_workers.py as a process of its own, which forks before it has a second thread.

python -m tests.data_workers_trial FOLDER       prints one JSON object
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.photos import source_of_photos, write_photos
from workers.batches import Batches
from workers.data_workers import DataWorkerEnded, DataWorkers
from workers.loaders import Source, open_rows

CPU = torch.device("cpu")
ROWS = 60
DRAWING: list[dict[str, Any]] = [{"type": "Resize", "size": [24, 24]}, {"type": "AugMix"}]
CROPPING: list[dict[str, Any]] = [{"type": "RandomResizedCrop", "size": 16}]
BOTH: list[dict[str, Any]] = [{"type": "RandAugment"}, {"type": "RandomResizedCrop", "size": 16}]


def batches_of(source: Source) -> Batches:
    rows = open_rows(source)
    fields: dict[str, Any] = {"shuffle": True, "makers": rows.makers, "accumulate": 2}
    return Batches(rows.train_inputs, rows.targets, rows.train, source.train, 8, 5, CPU, **fields)


def digest(batches: Batches, epoch: int, first_batch: int = 0) -> list[str]:
    found = []
    for batch in batches.of_epoch(epoch, first_batch):
        assert torch.equal(batch.targets, batch.index % 3)
        found.append(hashlib.sha256(batch.inputs[0].numpy().tobytes()).hexdigest()[:16])
    return found


def of_epochs(source: Source) -> dict[str, Any]:
    batches = batches_of(source)
    torch.manual_seed(1)
    found: dict[str, Any] = {"whole": digest(batches, 2), "tail": digest(batches, 2, first_batch=3)}
    for number, _ in enumerate(leaving := batches.of_epoch(7)):
        if number == 1:
            break
    leaving.close()  # type: ignore[attr-defined]  # a generator
    return found | {"after": digest(batches, 2), "drawn": torch.rand(1).item()}


def pids_of(workers: DataWorkers) -> list[int]:
    return [worker.pid for worker in workers._workers]


def ended_within(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def main(folder: Path) -> None:
    crews = {count: [DataWorkers(count) for _ in range(3)] for count in (1, 2)}
    broken, killed, unused = DataWorkers(1), DataWorkers(2), DataWorkers(2)
    began = time.perf_counter()
    DataWorkers(2).close()
    found: dict[str, Any] = {"start_s": time.perf_counter() - began}
    orphans = orphaned(folder)
    manifest = write_photos(folder, ROWS)

    lists = {"drawing": DRAWING, "cropping": CROPPING, "both": BOTH}
    for place, (name, train) in enumerate(lists.items()):
        found[name] = [of_epochs(source_of_photos(folder, manifest, train))]
        for count in (1, 2):
            source = source_of_photos(folder, manifest, train, data_workers=crews[count][place])
            found[name].append(of_epochs(source))

    source = source_of_photos(folder, manifest, [{"type": "Resize", "size": [8, 8]}], data_workers=unused)
    pids = pids_of(unused)
    found["unused"] = [open_rows(source).makers is None, ended_within(pids, 2)]

    rows = open_rows(source_of_photos(folder, manifest, BOTH, data_workers=broken))
    outside = torch.tensor([0, ROWS + 5])
    bad = Batches(rows.train_inputs, torch.zeros(ROWS + 9), outside, None, 2, 5, CPU, makers=rows.makers)
    try:
        list(bad.of_epoch(0))
    except Exception as error:
        found["error"] = [type(error).__name__, "".join(error.__notes__)]

    batches = batches_of(source_of_photos(folder, manifest, BOTH, data_workers=killed))
    arriving = batches.of_epoch(0)
    next(arriving)
    os.kill(pids_of(killed)[1], signal.SIGKILL)
    try:
        list(arriving)
    except DataWorkerEnded as error:
        found["killed"] = str(error)

    found["orphans_ended"] = ended_within(orphans, 5)
    print(json.dumps(found))


def orphaned(folder: Path) -> list[int]:
    """The data workers of a process that was killed."""
    path = folder / "pids"
    pid = os.fork()
    if pid == 0:
        path.with_suffix(".part").write_text(json.dumps(pids_of(DataWorkers(2))))
        path.with_suffix(".part").rename(path)
        time.sleep(60)
        os._exit(0)
    while not path.exists():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pids: list[int] = json.loads(path.read_text())
    return pids


if __name__ == "__main__":
    main(Path(sys.argv[1]))
