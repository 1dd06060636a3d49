"""The network to the broker swallows packets: nobody is told, and everybody must notice by himself."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import pytest

from tests import invariants
from tests.proxy import Proxy
from tests.servers import running_broker
from tests.site import Site, running_site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def proxy(folder: Path) -> Iterator[Proxy]:
    with running_broker(folder / "broker") as broker, Proxy(broker.port) as running:
        yield running


@pytest.fixture(scope="module")
def site(folder: Path, proxy: Proxy) -> Iterator[Site]:
    url = f"sqlite:///{folder / 'modelyard.db'}"
    with running_site(folder / "site", url, f"redis://127.0.0.1:{proxy.port}/0") as running:
        running.service()
        running.worker()
        yield running


def p99_s(site: Site) -> float:
    took_s = []
    for _ in range(200):
        started = time.monotonic()
        assert site.http.get("/v1/jobs").status_code == 200
        took_s.append(time.monotonic() - started)
    return quantiles(took_s, n=100)[98]


def test_redis_blackhole_costs_the_api_nothing_and_is_over_within_60_s(site: Site, proxy: Proxy) -> None:
    before_s = p99_s(site)
    proxy.blackhole()
    dark = time.monotonic()
    job_id = site.submit()
    posted_s = time.monotonic() - dark
    until(lambda: site.http.get("/health/ready").json()["broker"] == "unreachable", "it is told", 10)
    told_s = time.monotonic() - dark
    within_s = p99_s(site)
    assert posted_s < 0.5
    assert within_s < max(3 * before_s, 0.1)
    time.sleep(max(0.0, dark + 20 - time.monotonic()))
    proxy.heal()
    healed = time.monotonic()
    site.wait(job_id, within_s=60)
    print(
        f"posted in {posted_s:.2f} s, told after {told_s:.1f} s, p99 of a list {before_s * 1000:.0f} ms "
        f"before and {within_s * 1000:.0f} ms within; a job ended {time.monotonic() - healed:.1f} s after"
    )
    invariants.require(site.house, [job_id])


def test_redis_blackhole_of_slow_and_broken_connections_loses_no_job(site: Site, proxy: Proxy) -> None:
    proxy.delay_s = 0.1
    slow = site.submit(epochs=1)
    proxy.reset()
    broken = site.submit(epochs=1)
    site.wait(slow, broken, within_s=120)
    proxy.delay_s = 0.0
    invariants.require(site.house, [slow, broken])
