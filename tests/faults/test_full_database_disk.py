"""The disk that holds everything is full: the API still reads, refuses what it cannot write, and no job is
lost."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import invariants
from tests.needs import missing
from tests.servers import running_broker
from tests.site import Site, running_site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

#: More than the digits, their packed cache and a job take.
SIZE_MIB = 48


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:
    mounted = folder / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(mounted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        missing("no mount")
    if done.returncode != 0:
        missing(f"a small file system cannot be mounted here: {done.stderr}")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@pytest.fixture
def tight(folder: Path, small: Path) -> Iterator[Site]:
    with (
        running_broker(folder / "broker") as broker,
        running_site(
            folder / "site",
            f"sqlite:///{small / 'modelyard.db'}",
            broker.url,
            home=small / "home",
            tensorboard="off",
            lease_s=20,
        ) as site,
    ):
        site.service()
        site.worker()
        yield site


def test_enospc_of_everything_leaves_an_api_that_reads_and_a_job_that_goes_on(
    tight: Site, small: Path
) -> None:
    tight.plan("child.step", "hold 20")
    job_id = tight.submit(epochs=4)
    tight.wait_for("child.step")
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            pass
    tight.let_go("child.step")
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}", "/v1/datasets", "/health/ready"):
        reply = tight.http.get(path)
        assert reply.status_code == 200, (path, reply.text)
    refused = tight.http.post("/v1/jobs", json=tight.spec())
    assert refused.status_code in (503, 507), refused.text
    assert int(refused.headers["Retry-After"]) >= 1
    time.sleep(4)
    assert tight.job(job_id).state in ("running", "queued")
    filler.unlink()
    freed = time.monotonic()
    until(lambda: tight.http.post("/v1/plans", json=tight.spec()).status_code == 200, "it works again", 30)
    tight.wait(job_id, within_s=120)
    print(f"the job went on and ended {time.monotonic() - freed:.1f} s after there was room")
    assert tight.job(job_id).state == "succeeded"
    invariants.require(tight.house, [job_id])
