"""The body of an infer request: JSON, then the raw bytes of those inputs that say `binary_data_size`."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from numpy.typing import NDArray

from core.errors import Invalid, Malformed, ModelyardError, TooLarge
from core.faults import show
from service.bodies import MIB, decode
from service.open_inference import tensors

#: A number in JSON takes many times its bytes once it is read; what is larger comes as binary data.
MAX_JSON_BYTES = 16 * MIB

Size = Annotated[int, Meta(ge=0)]


class InputParameters(Struct):
    """What we don't know is ignored, as the protocol wants it."""

    binary_data_size: Size | None = None
    shared_memory_region: Any = None


class InferInput(Struct):
    """`data` is a list, flat in row-major order or nested as `shape` says; with `binary_data_size` there is
    none."""

    name: str
    shape: list[int]
    datatype: str
    parameters: InputParameters = field(default_factory=InputParameters)
    data: Any | UnsetType = UNSET


class OutputParameters(Struct):
    """`classification` asks for the k greatest, as `value:index:label`."""

    binary_data: bool | None = None
    classification: Annotated[int, Meta(ge=0)] = 0
    shared_memory_region: Any = None


class InferOutput(Struct):
    name: str
    parameters: OutputParameters = field(default_factory=OutputParameters)


class InferParameters(Struct):
    """`timeout` is in microseconds: what takes longer is answered 504."""

    binary_data_output: bool = False
    timeout: Annotated[int, Meta(ge=0)] = 0


class InferRequest(Struct):
    """Without `outputs`, or with none, all of the model's are answered."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: InferParameters = field(default_factory=InferParameters)
    outputs: list[InferOutput] = field(default_factory=list)


class IndexRequest(Struct):
    """`ready`: only versions that answer."""

    ready: bool = False


class LoadRequest(Struct):
    """`config` and `file:…` would change what was registered: they are refused."""

    parameters: dict[str, Any] = field(default_factory=dict)


class UnloadRequest(Struct):
    """Nothing here depends on another model: `unload_dependents` means nothing, and is taken."""

    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request with its tensors, by the names of the inputs."""

    request: InferRequest
    tensors: dict[str, NDArray[Any]]

    @property
    def size_bytes(self) -> int:
        """What the tensors hold in memory."""
        return sum(map(tensors.size_bytes, self.tensors.values()))

    @property
    def num_rows(self) -> int:
        """As the longest of them says: whether all say the same is looked at as rows are made."""
        return max((len(array) for array in self.tensors.values() if array.ndim), default=0)


def read_request(body: bytes, header_length: str | None) -> Asked:
    """`header_length` is what `Inference-Header-Content-Length` says, None where it isn't sent. Raises
    Malformed for no request, TooLarge for too much JSON, and Invalid that names the input."""
    request, raw = _divided(body, header_length)
    _require_distinct("input", [one.name for one in request.inputs])
    _require_distinct("output", [one.name for one in request.outputs])
    named: list[InferInput | InferOutput] = [*request.inputs, *request.outputs]
    for said in named:
        if said.parameters.shared_memory_region is not None:
            raise Invalid(
                f"{show(said.name)} is to be in shared memory, which this service doesn't map; send the "
                "values, as binary data where they are many.",
                code="no_shared_memory",
            )
    found: dict[str, NDArray[Any]] = {}
    start = 0
    for tensor in request.inputs:
        size = tensor.parameters.binary_data_size
        found[tensor.name] = _tensor(tensor, raw[start : start + (size or 0)])
        tensor.data = UNSET  # a list takes many times the room of its tensor
        start += size or 0
    return Asked(request, found)


def _divided(body: bytes, header_length: str | None) -> tuple[InferRequest, memoryview]:
    """The JSON part and the raw bytes after it. Where these can't be told apart by the header, and the whole
    body is a request without raw bytes, the header is one that the client kept from a call before."""
    try:
        length = _header_length(header_length, len(body))
        request = _decoded(body[:length])
        raw = memoryview(body)[length:]
        _require_size(request, len(raw))
    except ModelyardError:
        whole = _without_raw_bytes(body) if header_length is not None else None
        if whole is None:
            raise
        return whole, memoryview(b"")
    return request, raw


def _without_raw_bytes(body: bytes) -> InferRequest | None:
    try:
        request = _decoded(body)
    except ModelyardError:
        return None
    return request if _size_of(request) == 0 else None


def _header_length(header: str | None, body_length: int) -> int:
    if header is None:
        return body_length
    length = int(header) if header.isascii() and header.isdigit() and len(header) < 20 else 0
    if not 0 < length <= body_length:
        raise Malformed(
            "Expected in Inference-Header-Content-Length how many bytes of JSON the body begins with, from "
            f"1 to {body_length}; got {header[:100]!r}."
        )
    return length


def _size_of(request: InferRequest) -> int:
    return sum(tensor.parameters.binary_data_size or 0 for tensor in request.inputs)


def _require_size(request: InferRequest, came: int) -> None:
    expected = _size_of(request)
    if expected != came:
        raise Invalid(
            f"The inputs say binary_data_size of {expected} bytes in all; {came} came after the JSON. Send "
            "Inference-Header-Content-Length with the length of the JSON.",
            code="invalid_size",
        )


def _decoded(part: bytes) -> InferRequest:
    if len(part) > MAX_JSON_BYTES:
        raise TooLarge(
            f"Expected at most {MAX_JSON_BYTES} bytes of JSON, got {len(part)}; send large tensors as "
            "binary data."
        )
    try:
        return decode(part, InferRequest)
    except Malformed:
        if b"NaN" not in part and b"Infinity" not in part:
            raise
    return _with_tokens_that_are_no_numbers(part)


def _with_tokens_that_are_no_numbers(part: bytes) -> InferRequest:
    """Clients write NaN and Infinity, which JSON has not: the standard library reads them."""
    try:
        plain = json.loads(part)
    except ValueError as error:  # bad UTF-8 too
        raise Malformed(f"Expected JSON: {error}.") from error
    except RecursionError as error:
        raise Malformed("The body nests deeper than can be read; send it flatter.") from error
    try:
        return msgspec.convert(plain, InferRequest)
    except msgspec.ValidationError as error:
        raise Invalid(f"The body cannot be taken: {error}.") from error


def _tensor(tensor: InferInput, raw: memoryview) -> NDArray[Any]:
    tensors.check_kind(tensor.name, tensor.datatype, tensor.shape)
    is_binary = tensor.parameters.binary_data_size is not None
    if is_binary is (tensor.data is not UNSET):
        came = "both" if is_binary else "neither"
        raise Invalid(
            f"input {show(tensor.name)}: expected data, or binary_data_size and bytes after the JSON; got "
            f"{came}.",
            code="invalid_data",
        )
    if is_binary:
        return tensors.from_binary(tensor.name, tensor.datatype, tensor.shape, raw)
    return tensors.from_json(tensor.name, tensor.datatype, tensor.shape, tensor.data)


def _require_distinct(what: str, names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise Invalid(f"{what} {show(twice[0])} comes twice; send it once.", code="duplicate_name")
