"""The body of an answer: JSON, then the raw bytes of those outputs that are asked for as binary data."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from core.errors import Invalid
from core.faults import show, suggestion
from modelyard.specs import Signature
from service.open_inference import tensors
from service.open_inference.requests import InferOutput, InferRequest

# B rows in the batch, K classes or values

#: Values written in JSON, or as labels, take many times the room of raw ones.
MAX_WRITTEN_VALUES = 1_000_000

JSON = "application/json"
BINARY = "application/octet-stream"


class ReplyParameters(Struct):
    binary_data_size: int


class ReplyOutput(Struct, omit_defaults=True):
    """`data` is flat, in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    parameters: ReplyParameters | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class InferReply(Struct, omit_defaults=True):
    """`model_version` is the number of the version that answered, whatever it was asked for as."""

    model_name: str
    model_version: str
    outputs: list[ReplyOutput]
    id: str | UnsetType = UNSET


class Encoded(Struct, frozen=True):
    """A whole body; `json_length` where raw bytes come after the JSON."""

    body: bytes
    json_length: int | None

    @property
    def media_type(self) -> str:
        return JSON if self.json_length is None else BINARY


def require_outputs(asked: Sequence[InferOutput], signature: Signature) -> None:
    """Raises Invalid for an output that the model doesn't have, before anything is computed."""
    datatypes = {output.name: output.datatype for output in signature.outputs}
    for output in asked:
        if output.name not in datatypes:
            raise Invalid(
                f"There is no output {show(output.name)}; the model has {', '.join(datatypes)}."
                f"{suggestion(output.name, datatypes)}",
                code="unknown_output",
            )
        if output.parameters.classification and datatypes[output.name] == tensors.BYTES:
            raise Invalid(
                f"output {show(output.name)}: classification is for numbers, and it holds strings; ask for "
                "it without.",
                code="invalid_output",
            )


def encode_reply(
    request: InferRequest,
    model: str,
    version: int,
    outputs: Mapping[str, NDArray[Any]],
    signature: Signature,
    classes: list[str] | None,
) -> Encoded:
    """The outputs that were asked for, in that order, or all in the model's."""
    datatypes = {output.name: output.datatype for output in signature.outputs}
    listed: list[ReplyOutput] = []
    parts: list[bytes] = []
    for asked in request.outputs or [InferOutput(name) for name in datatypes]:
        values, datatype = outputs[asked.name], datatypes[asked.name]
        is_binary = asked.parameters.binary_data
        is_binary = request.parameters.binary_data_output if is_binary is None else is_binary
        is_raw = is_binary and not asked.parameters.classification
        if not is_raw and values.size > MAX_WRITTEN_VALUES:
            raise Invalid(
                f"output {show(asked.name)}: expected at most {MAX_WRITTEN_VALUES} values in JSON or as "
                f"classes, there are {values.size}; ask for it with binary_data, or for fewer rows.",
                code="too_many_values",
            )
        if asked.parameters.classification:
            values, datatype = _classified(values, asked.parameters.classification, classes), tensors.BYTES
        output = ReplyOutput(asked.name, datatype, list(values.shape))
        if is_binary:
            parts.append(tensors.to_binary(values, datatype))
            output.parameters = ReplyParameters(len(parts[-1]))
        else:
            output.data = tensors.to_json(values, datatype)
        listed.append(output)
    reply = InferReply(model, str(version), listed, UNSET if request.id is None else request.id)
    head = msgspec.json.encode(reply)
    return Encoded(b"".join([head, *parts]), len(head) if parts else None)


def _classified(values_BK: NDArray[Any], k: int, classes: list[str] | None) -> NDArray[Any]:
    """[B, k] of `value:index` or `value:index:label`, the greatest first, equal ones by index."""
    width = min(k, values_BK.shape[1])
    places_Bk = np.argsort(-values_BK, axis=1, kind="stable")[:, :width]
    named = np.empty(places_Bk.shape, dtype=object)
    for row, column in np.ndindex(places_Bk.shape):
        place = places_Bk[row, column]
        label = f":{classes[place]}" if classes is not None else ""
        value = np.format_float_positional(np.float32(values_BK[row, place]), trim="0")
        named[row, column] = f"{value}:{place}{label}".encode()
    return named
