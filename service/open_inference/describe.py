"""What a client can ask about models: metadata, configuration, counts, and which versions there are.

All of a version is read from its row: its signature is what its predictor takes and gives.
"""

from collections.abc import Sequence
from importlib.metadata import version as version_of

from msgspec import Struct, convert

from core.db.models import Version
from core.db.statements import models
from core.tensors import BYTES, MAX_ROWS
from modelyard.specs import Signature, Tensor
from service.inference.cache import Residence
from service.inference.statistics import BatchStatistics, Duration, VersionStatistics
from service.metrics.histogram import Histogram

NAME = "modelyard"
PLATFORM = "pytorch_eager"
BACKEND = "pytorch"

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "statistics",
    "parameters",
)

#: The configuration's words for datatypes.
_CONFIG_TYPES = {BYTES: "TYPE_STRING"}


class ServerMetadata(Struct, frozen=True):
    name: str
    version: str
    extensions: list[str]


class ModelMetadata(Struct, frozen=True):
    """`versions` are those that can answer, the newest 1,000; -1 in a shape is any size."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ConfigTensor(Struct, frozen=True):
    """`dims` are without the rows of the batch."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(Struct, frozen=True):
    """Triton's, as far as there is something to say. `max_batch_size` bounds the rows of one request."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class IndexEntry(Struct, frozen=True):
    """`READY` is what a request is answered by now, be it after a load; `UNAVAILABLE` what was unloaded, or
    failed its check when it was registered."""

    name: str
    version: str
    state: str
    reason: str


class InferStatistics(Struct, frozen=True):
    """Of requests. There is no cache of answers: its counts are 0."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchEntry(Struct, frozen=True):
    """Of forwards of `batch_size` rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Struct, frozen=True):
    """Since this process started. `inference_count` are rows, `execution_count` are forwards;
    `last_inference` is in milliseconds from the epoch, 0 where nobody asked."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: list[BatchEntry]


class StatisticsReply(Struct, frozen=True):
    model_stats: list[ModelStatistics]


def server_metadata() -> ServerMetadata:
    return ServerMetadata(NAME, version_of(NAME), list(EXTENSIONS))


def signature_of(row: Version) -> Signature:
    return convert(row.signature, Signature)


def model_metadata(row: Version, numbers: Sequence[int]) -> ModelMetadata:
    signature = signature_of(row)
    versions = [str(number) for number in sorted(numbers)]
    return ModelMetadata(row.model, versions, PLATFORM, signature.inputs, signature.outputs)


def model_config(row: Version) -> ModelConfig:
    signature = signature_of(row)
    return ModelConfig(
        row.model,
        PLATFORM,
        BACKEND,
        MAX_ROWS,
        [_config_tensor(tensor) for tensor in signature.inputs],
        [_config_tensor(tensor) for tensor in signature.outputs],
    )


def index_entry(model: str, number: int, state: str, residence: Residence) -> IndexEntry:
    if state != models.READY:
        reason = f"{state}: its weights, read back from disk, did not answer as the trained net had"
        return IndexEntry(model, str(number), "UNAVAILABLE", reason)
    match residence:
        case Residence.UNLOADED:
            return IndexEntry(model, str(number), "UNAVAILABLE", "unloaded")
        case Residence.LOADING:
            return IndexEntry(model, str(number), "LOADING", "")
        case Residence.LOADED:
            return IndexEntry(model, str(number), "READY", "")
        case Residence.ON_DISK:
            return IndexEntry(model, str(number), "READY", "the first request loads it")


def model_statistics(model: str, number: int, counted: VersionStatistics) -> ModelStatistics:
    return ModelStatistics(
        model,
        str(number),
        counted.last_ms,
        counted.rows,
        counted.forwards,
        InferStatistics(
            _in_all(counted.success),
            counted.fail,
            _in_all(counted.queue),
            counted.input,
            _in_all(counted.forward),
            _in_all(counted.encode),
            Duration(),
            Duration(),
        ),
        [_batch_entry(rows, batch) for rows, batch in sorted(counted.batches.items())],
    )


def _in_all(histogram: Histogram) -> Duration:
    return Duration(histogram.count, histogram.ns)


def _batch_entry(rows: int, batch: BatchStatistics) -> BatchEntry:
    return BatchEntry(rows, batch.input, batch.infer, batch.output)


def _config_tensor(tensor: Tensor) -> ConfigTensor:
    return ConfigTensor(
        tensor.name, _CONFIG_TYPES.get(tensor.datatype, f"TYPE_{tensor.datatype}"), tensor.shape[1:]
    )
