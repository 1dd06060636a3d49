"""One machine's clock jumps by an hour: no lease is lost for it, and every wake-up is heard."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import invariants
from tests.needs import missing
from tests.servers import running_broker
from tests.site import Site, running_site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

#: In front of the C library: its wall clock and no other, moved by the seconds that a file holds.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long moved(void) {
    long seconds = 0;
    const char *path = getenv("CLOCK_MOVED_BY");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*original)(clockid_t, struct timespec *);
    if (!original) original = dlsym(RTLD_NEXT, "clock_gettime");
    int result = original(clock, at);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += moved();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def shim(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        missing("no C compiler")
    source, library = folder / "moved.c", folder / "moved.so"
    source.write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def site(folder: Path, shim: Path) -> Iterator[Site]:
    """Whose worker's clock can be moved."""
    wrapper = ["env", f"LD_PRELOAD={shim}", f"CLOCK_MOVED_BY={folder / 'moved'}"]
    with (
        running_broker(folder / "broker") as broker,
        running_site(folder / "site", f"sqlite:///{folder / 'modelyard.db'}", broker.url) as running,
    ):
        running.service()
        running.worker(wrapper=wrapper)
        yield running


@pytest.mark.parametrize("hours", [1, -1])
def test_clock_jump_of_a_worker_loses_no_lease_and_no_wake_up(site: Site, folder: Path, hours: int) -> None:
    moved = folder / "moved"
    moved.unlink(missing_ok=True)
    site.plan("child.step", "hold 20")
    job_id = site.submit()
    site.wait_for("child.step")
    moved.write_text(str(hours * 3600))
    time.sleep(3 * site.house.settings.lease_s)
    site.let_go("child.step")
    site.wait(job_id)
    job = site.job(job_id)
    assert (job.attempt, job.losses) == (1, 0)
    shifted_s = (job.finished_at - job.queued_at).total_seconds()
    assert abs(shifted_s - hours * 3600) < 300, "its clock was moved"
    posted = time.monotonic()
    after = site.submit()
    site.wait(after)
    print(
        f"beside a worker {hours:+} h off a job ended {time.monotonic() - posted:.1f} s after it was posted"
    )
    invariants.require(site.house, [job_id, after])
