"""Every series by its name: what it is, and where its numbers come from. `docs/metrics.md` has the same."""

from collections import Counter
from collections.abc import Iterable

from modelyard.specs import BatchState, DatasetState, JobState
from service.inference.served import Served
from service.inference.statistics import VersionName, VersionStatistics
from service.metrics.histogram import Histogram
from service.metrics.stored import Stored
from service.metrics.text import Family, labels
from service.metrics.traffic import Traffic
from service.sweep import DATA_POOL
from service.views import DATASET_STATES

#: Of an answered request, in their order.
STAGES = ("queue", "decode", "transform", "forward", "encode")


def of_asked(counted: Iterable[tuple[VersionName, VersionStatistics]]) -> list[Family]:
    """What versions were asked, in our words and in Triton's."""
    whole = Family(
        "modelyard_inference_duration_seconds",
        "histogram",
        "Answered requests by how long they took, from the decoded body to the predictions.",
    )
    stages = Family(
        "modelyard_inference_stage_duration_seconds",
        "histogram",
        "Answered requests by how long they spent in each stage.",
    )
    refused = Family(
        "modelyard_inference_refusals_total",
        "counter",
        "Requests refused because too much waited for the model; failures count them too.",
    )
    success = Family("nv_inference_request_success", "counter", "Requests that were answered.")
    failure = Family("nv_inference_request_failure", "counter", "Requests that failed.")
    rows = Family("nv_inference_count", "counter", "Rows of requests that were answered.")
    forwards = Family("nv_inference_exec_count", "counter", "Forwards, each of rows of one or more requests.")
    durations = {
        part: Family(f"nv_inference_{part}_duration_us", "counter", f"Microseconds {words}.")
        for part, words in (
            ("request", "that answered requests took"),
            ("queue", "that they waited for a forward"),
            ("compute_input", "that their rows took to become the net's input"),
            ("compute_infer", "that they spent in the net"),
            ("compute_output", "that its outputs took to become predictions"),
        )
    }
    for name, one in counted:
        named = _labels(name)
        whole.add(one.success, named)
        for stage, histogram in zip(
            STAGES, (one.queue, one.decode, one.transform, one.forward, one.encode), strict=True
        ):
            stages.add(histogram, f"{named},{labels(stage=stage)}")
        refused.add(one.refused, named)
        success.add(one.success.count, named)
        failure.add(one.fail.count, named)
        rows.add(one.rows, named)
        forwards.add(one.forwards, named)
        durations["request"].add(one.success.ns // 1000, named)
        durations["queue"].add(one.queue.ns // 1000, named)
        durations["compute_input"].add((one.decode.ns + one.transform.ns) // 1000, named)
        durations["compute_infer"].add(one.forward.ns // 1000, named)
        durations["compute_output"].add(one.encode.ns // 1000, named)
    return [whole, stages, refused, success, failure, rows, forwards, *durations.values()]


def of_loaded(loaded: Iterable[Served]) -> list[Family]:
    """What versions hold while they are in memory."""
    size = Family("modelyard_model_loaded_bytes", "gauge", "Bytes of weights of a loaded version.")
    waiting = Family("modelyard_model_waiting_rows", "gauge", "Rows that wait for a forward of it.")
    pending = Family("nv_inference_pending_request_count", "gauge", "Requests that wait for a forward of it.")
    for served in loaded:
        named = _labels(served.name)
        size.add(served.size_bytes, named)
        waiting.add(served.batcher.waiting_rows, named)
        pending.add(served.batcher.waiting_requests, named)
    return [size, waiting, pending]


def of_cache(count: int, size_bytes: int, limit_bytes: int) -> list[Family]:
    """Of the models of all owners."""
    loaded = Family("modelyard_models_loaded", "gauge", "Versions in memory.")
    loaded.add(count)
    size = Family("modelyard_models_loaded_bytes", "gauge", "Bytes of their weights.")
    size.add(size_bytes)
    limit = Family("modelyard_model_cache_limit_bytes", "gauge", "How many these may be.")
    limit.add(limit_bytes)
    return [loaded, size, limit]


def of_traffic(traffic: Traffic) -> list[Family]:
    requests = Family("modelyard_http_requests_total", "counter", "Requests by route and status.")
    durations = Family(
        "modelyard_http_request_duration_seconds",
        "histogram",
        "Requests by how long they took, from their headers to the end of the answer.",
    )
    by_route: dict[tuple[str, str], Histogram] = {}
    for (method, route, status), histogram in traffic.answered.items():
        requests.add(histogram.count, labels(method=method, route=route, status=str(status)))
        by_route.setdefault((method, route), Histogram()).include(histogram)
    for (method, route), histogram in by_route.items():
        durations.add(histogram, labels(method=method, route=route))
    streams = Family("modelyard_event_streams", "gauge", "Event streams of jobs that are open.")
    streams.add(traffic.event_streams)
    return [requests, durations, streams]


def of_neighbours(database: bool, broker: str) -> list[Family]:
    up = Family("modelyard_database_up", "gauge", "1 where the database answers, else 0.")
    up.add(int(database))
    reached = Family("modelyard_broker_up", "gauge", "1 where the last wake-up was sent, 0 where it was not.")
    if broker != "unknown":
        reached.add(int(broker == "ok"))
    return [up, reached]


def of_stored(stored: Stored) -> list[Family]:
    """Of all owners; a state or a pool that nothing is in is 0."""
    jobs = _by_state("modelyard_jobs", "Jobs by state.", JobState, stored.jobs)
    batches = _by_state(
        "modelyard_batch_predictions", "Batch predictions by state.", BatchState, stored.batches
    )
    versions: Counter[str] = Counter()
    for state, count in stored.datasets.items():
        if state in DATASET_STATES:  # else a tombstone
            versions[DATASET_STATES[state]] += count
    datasets = _by_state("modelyard_datasets", "Versions of datasets by state.", DatasetState, versions)
    depth = Family("modelyard_queue_depth", "gauge", "What a worker of the pool could take now.")
    workers = Family("modelyard_workers", "gauge", "Workers by pool.")
    slots = Family("modelyard_worker_slots", "gauge", "What they can do at once.")
    busy = Family("modelyard_worker_slots_busy", "gauge", "How much of that is taken.")
    for pool in sorted({DATA_POOL, *stored.waiting, *(worker.pool for worker in stored.workers)}):
        serving = [worker for worker in stored.workers if worker.pool == pool]
        named = labels(pool=pool)
        depth.add(stored.waiting[pool], named)
        workers.add(len(serving), named)
        slots.add(sum(worker.slots for worker in serving), named)
        busy.add(sum(worker.busy for worker in serving), named)
    return [jobs, batches, datasets, depth, workers, slots, busy]


def _by_state(name: str, words: str, states: Iterable[str], counted: Counter[str]) -> Family:
    family = Family(name, "gauge", words)
    for state in states:
        family.add(counted[state], labels(state=state))
    return family


def _labels(name: VersionName) -> str:
    return labels(owner=name.owner, model=name.model, version=str(name.version))
