"""What Prometheus reads, alone: the text by its own parser, histograms against counting by hand."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.db.engines import open_async_database
from core.db.models import Version
from core.errors import Overloaded, Unavailable
from service.inference.statistics import Stages, Statistics
from service.metrics import families, process
from service.metrics.histogram import BOUNDS_S, Histogram
from service.metrics.stored import KEPT_S, Counts, Stored
from service.metrics.text import Family, labels, render
from service.metrics.traffic import Traffic
from tests.scraped import Scraped, scraped


def read(*made: Family) -> Scraped:
    return scraped(render(made).decode())


@given(st.lists(st.integers(0, 20 * 10**9), max_size=50))
def test_a_bucket_counts_what_took_no_longer_than_its_bound(durations: list[int]) -> None:
    histogram = Histogram()
    for ns in durations:
        histogram.add(ns)
    family = Family("seconds", "histogram", "Durations.")
    family.add(histogram, labels(model="m"))
    page = read(family)
    buckets = page.buckets("seconds", model="m")
    assert [float(bound) for bound in buckets] == [*BOUNDS_S, math.inf]
    for bound, count in buckets.items():
        assert count == sum(ns <= float(bound) * 1e9 for ns in durations)
    assert page.value("seconds_count") == len(durations)
    assert page.value("seconds_sum") == pytest.approx(sum(durations) / 1e9)


@pytest.mark.parametrize("bound", BOUNDS_S)
def test_a_bound_is_in_its_own_bucket(bound: float) -> None:
    histogram = Histogram()
    histogram.add(round(bound * 1e9))
    histogram.add(round(bound * 1e9) + 1)
    place = BOUNDS_S.index(bound)
    assert histogram.buckets[place : place + 2] == [1, 1]


def test_what_is_added_after_the_page_was_begun_is_not_in_it() -> None:
    histogram = Histogram()
    family = Family("seconds", "histogram", "Durations.")
    family.add(histogram)
    histogram.add(1)
    assert read(family).value("seconds_count") == 0


@given(st.text())
def test_any_label_comes_back_as_it_went(value: str) -> None:
    family = Family("x", "gauge", "Anything.")
    family.add(1, labels(word=value, other="o"))
    assert read(family).labels("x") == [{"word": value, "other": "o"}]


def test_tritons_counters_keep_their_names_and_are_counters() -> None:
    statistics = Statistics()
    statistics.of(version("a", "m", 1))
    text = render(families.of_asked(statistics.all())).decode()
    for name in ("nv_inference_request_success", "nv_inference_count", "nv_inference_queue_duration_us"):
        assert f"\n# TYPE {name} counter\n" in text
        assert f'\n{name}{{owner="a",model="m",version="1"}} 0\n' in text


def version(owner: str, model: str, number: int) -> Version:
    return Version(id=f"{owner}/{model}/{number}", owner=owner, model=model, version=number)


def test_two_owners_models_of_one_name_are_two_series() -> None:
    statistics = Statistics()
    for owner, rows in (("a", 3), ("b", 5)):
        statistics.of(version(owner, "m", 1)).answered(rows, 10, Stages())
    page = read(*families.of_asked(statistics.all()))
    assert page.value("nv_inference_count", owner="a", model="m", version="1") == 3
    assert page.value("nv_inference_count", owner="b", model="m", version="1") == 5


def test_a_failure_is_a_refusal_where_too_much_waited() -> None:
    statistics = Statistics()
    counted = statistics.of(version("a", "m", 1))
    for error in (ValueError("bad"), Unavailable("stopping"), Overloaded("full")):
        counted.failed(10, error)
    page = read(*families.of_asked(statistics.all()))
    assert page.value("nv_inference_request_failure") == 3
    assert page.value("modelyard_inference_refusals_total") == 1
    assert page.value("nv_inference_request_success") == 0


def test_requests_are_counted_by_route_and_status_and_timed_by_route() -> None:
    traffic = Traffic()
    for status, ns in ((200, 2_000_000), (200, 3_000_000), (503, 1_000)):
        traffic.add("POST", "/v1/models/{model}/predict", status, ns)
    page = read(*families.of_traffic(traffic))
    named = {"method": "POST", "route": "/v1/models/{model}/predict"}
    assert page.value("modelyard_http_requests_total", status="200", **named) == 2
    assert page.value("modelyard_http_requests_total", status="503", **named) == 1
    assert page.value("modelyard_http_request_duration_seconds_count", **named) == 3
    assert page.value("modelyard_http_request_duration_seconds_sum", **named) == 0.005001


def test_words_in_the_place_of_a_method_make_one_series() -> None:
    traffic = Traffic()
    for number in range(50):
        traffic.add(f"GET{number}", "-", 404, 1)
    assert len(traffic.answered) == 1


async def test_an_event_stream_is_open_until_whoever_reads_it_leaves() -> None:
    traffic = Traffic()

    async def messages() -> AsyncIterator[int]:
        with traffic.event_stream():
            yield traffic.event_streams

    stream = messages()
    assert await anext(stream) == 1
    await stream.aclose()  # type: ignore[attr-defined] # an async generator has it
    assert traffic.event_streams == 0


def test_the_process_is_this_one() -> None:
    page = read(*process.families())
    assert 10**7 < page.value("process_resident_memory_bytes") < page.value("process_virtual_memory_bytes")
    assert 3 <= page.value("process_open_fds") <= page.value("process_max_fds")
    before = page.value("process_cpu_seconds_total")
    sum(range(10**6))
    assert read(*process.families()).value("process_cpu_seconds_total") > before


async def test_a_database_that_is_away_is_not_asked_again_at_once() -> None:
    database, at, asked = open_async_database("postgresql://127.0.0.1:1/none"), 0.0, 0

    class Asked(Counts):
        async def _read(self) -> Stored:
            nonlocal asked
            asked += 1
            return await super()._read()

    counts = Asked(database, clock=lambda: at)
    assert await asyncio.gather(*(counts.read() for _ in range(10))) == [None] * 10
    assert asked == 1
    at = KEPT_S + 1
    assert await counts.read() is None
    assert asked == 2
    page = read(*families.of_neighbours(database=False, broker="unknown"))
    assert page.value("modelyard_database_up") == 0
    assert page.labels("modelyard_broker_up") == []
    await database.close()
