"""What each version has been asked since this process started: rows, forwards, and where the time went."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.db.models import Version
from core.errors import Overloaded
from service.inference.batcher import Part
from service.metrics.histogram import Histogram

#: Of versions that were asked longest ago the counts begin anew.
MAX_VERSIONS = 1024


class VersionName(NamedTuple):
    owner: str
    model: str
    version: int


@dataclass
class Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


class Stages(NamedTuple):
    """Where the time of one request went: in the batcher's queue, from instances to rows, from rows to the
    net's inputs, in the net, from its outputs to predictions."""

    queue_ns: int = 0
    decode_ns: int = 0
    transform_ns: int = 0
    forward_ns: int = 0
    encode_ns: int = 0

    @classmethod
    def between(
        cls, started_ns: int, decoded_ns: int, inferred_ns: int, ended_ns: int, parts: Sequence[Part[Any]]
    ) -> "Stages":
        """`parts` are what the batcher answered between `decoded_ns` and `inferred_ns`. What the first waited
        is the queue; what others waited for it is the net."""
        queue_ns = round(1e9 * sum(part.queue_s for part in parts[:1]))
        transform_ns = round(1e9 * sum(part.transform_s for part in parts))
        return cls(
            queue_ns,
            decoded_ns - started_ns,
            transform_ns,
            max(0, inferred_ns - decoded_ns - queue_ns - transform_ns),
            ended_ns - inferred_ns,
        )


@dataclass
class BatchStatistics:
    """Forwards of one number of rows."""

    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)


@dataclass
class VersionStatistics:
    """`rows` are those of requests that were answered, `forwards` those that were computed: the first by the
    second is the mean batch. `refused` are those of the failed that too much waited for. A version nobody
    asked has `last_ms` 0; it counts from the epoch."""

    last_ms: int = 0
    rows: int = 0
    forwards: int = 0
    refused: int = 0
    success: Histogram = field(default_factory=Histogram)
    fail: Duration = field(default_factory=Duration)
    queue: Histogram = field(default_factory=Histogram)
    decode: Histogram = field(default_factory=Histogram)
    transform: Histogram = field(default_factory=Histogram)
    forward: Histogram = field(default_factory=Histogram)
    encode: Histogram = field(default_factory=Histogram)
    batches: dict[int, BatchStatistics] = field(default_factory=dict)

    def computed(self, rows: int, transform_ns: int, forward_ns: int) -> None:
        """One forward, of however many requests."""
        self.forwards += 1
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchStatistics()
        batch.input.add(transform_ns)
        batch.infer.add(forward_ns)
        batch.output.add(0)

    def answered(self, rows: int, total_ns: int, stages: Stages) -> None:
        """One request, of however many forwards."""
        self.rows += rows
        self.success.add(total_ns)
        self.queue.add(stages.queue_ns)
        self.decode.add(stages.decode_ns)
        self.transform.add(stages.transform_ns)
        self.forward.add(stages.forward_ns)
        self.encode.add(stages.encode_ns)

    def failed(self, total_ns: int, error: Exception) -> None:
        self.fail.add(total_ns)
        self.refused += isinstance(error, Overloaded)

    @property
    def input(self) -> Duration:
        """All that comes before the net."""
        return Duration(self.decode.count, self.decode.ns + self.transform.ns)


class Statistics:
    """By the ids of versions. Not for several threads: the event loop alone writes and reads."""

    def __init__(self, now: Callable[[], float] = time.time, max_versions: int = MAX_VERSIONS) -> None:
        self._now = now
        self._max_versions = max_versions
        self._versions: OrderedDict[str, tuple[VersionName, VersionStatistics]] = OrderedDict()

    def of(self, version: Version) -> VersionStatistics:
        """To write to, for a request that comes now."""
        entry = self._versions.get(version.id)
        if entry is None:
            entry = self._versions[version.id] = name_of(version), VersionStatistics()
            if len(self._versions) > self._max_versions:
                self._versions.popitem(last=False)
        else:
            self._versions.move_to_end(version.id)
        found = entry[1]
        found.last_ms = round(self._now() * 1000)
        return found

    def read(self, version_id: str) -> VersionStatistics:
        """All zeros where nobody asked it."""
        entry = self._versions.get(version_id)
        return entry[1] if entry is not None else VersionStatistics()

    def all(self) -> Iterable[tuple[VersionName, VersionStatistics]]:
        """Of the versions that were asked, in the order of the latest question to each."""
        return self._versions.values()


def name_of(version: Version) -> VersionName:
    return VersionName(version.owner, version.model, version.version)
