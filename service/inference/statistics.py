"""What each version has been asked since this process started: rows, forwards, and where the time went."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

#: Of versions that were asked longest ago the counts begin anew.
MAX_VERSIONS = 1024


@dataclass
class Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(frozen=True)
class Stages:
    """Where the time of one request, or of one forward, went."""

    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass
class BatchStatistics:
    """Forwards of one number of rows."""

    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)


@dataclass
class VersionStatistics:
    """`rows` are those of requests that were answered, `forwards` those that were computed: the first by the
    second is the mean batch. A version nobody asked has `last_ms` 0; it counts from the epoch."""

    last_ms: int = 0
    rows: int = 0
    forwards: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)
    batches: dict[int, BatchStatistics] = field(default_factory=dict)

    def computed(self, rows: int, stages: Stages) -> None:
        """One forward, of however many requests."""
        self.forwards += 1
        batch = self.batches.setdefault(rows, BatchStatistics())
        batch.input.add(stages.input_ns)
        batch.infer.add(stages.infer_ns)
        batch.output.add(stages.output_ns)

    def answered(self, rows: int, total_ns: int, stages: Stages) -> None:
        """One request, of however many forwards."""
        self.rows += rows
        self.success.add(total_ns)
        self.queue.add(stages.queue_ns)
        self.input.add(stages.input_ns)
        self.infer.add(stages.infer_ns)
        self.output.add(stages.output_ns)

    def failed(self, total_ns: int) -> None:
        self.fail.add(total_ns)


class Statistics:
    """By the ids of versions. Not for several threads: the event loop alone writes and reads."""

    def __init__(self, now: Callable[[], float] = time.time, max_versions: int = MAX_VERSIONS) -> None:
        self._now = now
        self._max_versions = max_versions
        self._versions: OrderedDict[str, VersionStatistics] = OrderedDict()

    def of(self, version_id: str) -> VersionStatistics:
        """To write to, for a request that comes now."""
        found = self._versions.setdefault(version_id, VersionStatistics())
        self._versions.move_to_end(version_id)
        while len(self._versions) > self._max_versions:
            self._versions.popitem(last=False)
        found.last_ms = round(self._now() * 1000)
        return found

    def read(self, version_id: str) -> VersionStatistics:
        """All zeros where nobody asked it."""
        return self._versions.get(version_id) or VersionStatistics()
