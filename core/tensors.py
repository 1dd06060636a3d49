"""Named tensors to the rows of a net, and what it answers to named tensors, as a version's signature says.

The rows are those that `Predictor` makes of JSON instances, so that the same values give the same numbers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data import prepare
from core.data.instances import BadInstance, array_from_json
from core.data.manifest import Kind
from core.errors import Invalid
from core.faults import show, suggestion
from core.nets.artifacts import VersionManifest
from core.predict import Predictor, Row, array_row
from modelyard.specs import Signature
from modelyard.specs import Tensor as TensorInfo

# B rows in a batch, C channels, K classes or values, H height, W width

#: Rows of one request; as many as a request of JSON instances may have.
MAX_ROWS = 10_000

BYTES = "BYTES"

Named = Mapping[str, NDArray[Any]]


def rows_of(predictor: Predictor, tensors: Named) -> list[Row]:
    """One row for each along the first axis of every tensor. Raises Invalid that names the input, and the row
    where it is one row that cannot be read."""
    manifest = predictor.manifest
    num_rows = _num_rows(manifest, tensors)
    if num_rows == 0:
        return []
    match manifest.kind:
        case Kind.IMAGES:
            name, array = _only(tensors)
            if array.dtype == object:
                return [
                    _image_row(predictor, name, row, data) for row, data in enumerate(_column(name, array))
                ]
            pixels_BCHW = _pixels(manifest, name, array)
            return [_pixels_row(predictor, name, row, one) for row, one in enumerate(pixels_BCHW)]
        case Kind.ARRAYS:
            name, array = _only(tensors)
            expected = [num_rows, *(manifest.raw_shape or [])]
            try:
                values = array_from_json(array, expected, manifest.raw_dtype or "float32")
            except BadInstance as error:
                raise _bad(name, error.detail) from error
            return [predictor.prefixed(array_row(one)) for one in values]
        case Kind.TABLE:
            columns = {name: _column(name, array) for name, array in tensors.items()}
            read = prepare.columns_from_arrays(columns, num_rows, manifest.prepare)
            parts = [
                torch.from_numpy(part) for part in prepare.apply(manifest.prepare, predictor.inputs, read)
            ]
            return list(zip(*parts, strict=True))


def named_outputs(manifest: VersionManifest, outputs: Tensor) -> dict[str, NDArray[Any]]:
    """Of [B, …] scores or values the tensors that the signature names. Raises Invalid for an answer that is
    no number: there is no place for one row's error."""
    first = manifest.signature.outputs[0]
    flat_BK = outputs.reshape(len(outputs), first.shape[1])
    with np.errstate(over="ignore"):  # looked for below
        values_BK = flat_BK.numpy().astype(np.float32)
    finite_B = np.isfinite(values_BK).all(axis=1)
    if not finite_B.all():
        raise BadInstance(
            f"row {int(finite_B.argmin())}: the net's answer is not finite; look for values far from those "
            "it was trained on.",
            code="non_finite_output",
        )
    named: dict[str, NDArray[Any]] = {first.name: values_BK}
    if manifest.task == "classification":
        assert manifest.classes is not None
        labels = np.array([label.encode() for label in manifest.classes], dtype=object)
        # As `Predictor` chooses among equal scores.
        best_B = flat_BK.topk(1, dim=1).indices[:, 0] if len(flat_BK) else flat_BK.new_empty(0).long()
        named[manifest.signature.outputs[1].name] = labels[best_B.numpy()]
    return named


def no_outputs(signature: Signature) -> Tensor:
    """[0, K]: what no rows are answered."""
    return torch.empty(0, signature.outputs[0].shape[1])


def _num_rows(manifest: VersionManifest, tensors: Named) -> int:
    signature = manifest.signature
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    for name, array in tensors.items():
        if name not in inputs:
            raise Invalid(
                f"There is no input {show(name)}; the model takes {', '.join(inputs)}."
                f"{suggestion(name, inputs)}",
                code="unknown_input",
            )
        _check_shape(manifest, inputs[name], array)
    optional = {column.name for column in manifest.prepare if column.may_be_missing}
    missing = [name for name in inputs if name not in tensors and name not in optional]
    if missing or not tensors:
        raise Invalid(
            f"The model takes the inputs {', '.join(inputs)}; {', '.join(missing) or 'all'} did not come.",
            code="missing_input",
        )
    counts = {name: len(array) for name, array in tensors.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{show(name)} {count}" for name, count in list(counts.items())[:20])
        raise Invalid(f"Expected as many rows of each input, got of {listed}.", code="invalid_shape")
    num_rows = next(iter(counts.values()))
    if num_rows > MAX_ROWS:
        raise Invalid(
            f"Expected at most {MAX_ROWS} rows, got {num_rows}; send several requests.", code="too_many_rows"
        )
    return num_rows


def _check_shape(manifest: VersionManifest, tensor: TensorInfo, array: NDArray[Any]) -> None:
    shape, expected = list(array.shape), tensor.shape
    if manifest.kind is Kind.IMAGES:  # files, or pixels of any size that the transforms take
        expected = [-1] if array.dtype == object else [*tensor.shape[:2], -1, -1]
    # A column of one value a row is often sent as [rows, 1].
    is_column = expected == [-1] and len(shape) == 2 and shape[1] == 1
    fits = len(shape) == len(expected) and all(
        size in (-1, came) for size, came in zip(expected, shape, strict=True)
    )
    if not is_column and not fits:
        raise Invalid(
            f"input {show(tensor.name)}: expected the shape {expected} (-1 is any size), got {shape}.",
            code="invalid_shape",
        )


def _only(tensors: Named) -> tuple[str, NDArray[Any]]:
    ((name, array),) = tensors.items()
    return name, array


def _column(name: str, array: NDArray[Any]) -> NDArray[Any]:
    assert array.ndim <= 2, name
    return array.reshape(len(array))


def _image_row(predictor: Predictor, name: str, row: int, data: bytes | None) -> Row:
    if data is None:
        raise _bad(name, "expected the bytes of an image, got null", row)
    try:
        return predictor.image_row(data)
    except BadInstance as error:
        raise _bad(name, error.detail, row) from error


def _pixels_row(predictor: Predictor, name: str, row: int, pixels_CHW: NDArray[np.uint8]) -> Row:
    try:
        return predictor.prefixed(torch.from_numpy(pixels_CHW))
    except BadInstance as error:
        raise _bad(name, error.detail, row) from error


def _pixels(manifest: VersionManifest, name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    """[B, C, H, W] as uint8, from any kind of number that holds whole ones from 0 to 255."""
    channels = 1 if manifest.image_mode == "L" else 3
    if array.shape[1] != channels or array.size == 0:
        raise _bad(
            name,
            f"expected images of {channels} channels as [rows, {channels}, H, W], got {list(array.shape)}",
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise _bad(name, "pixels are whole numbers from 0 to 255, got true or false")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise _bad(name, f"pixels are whole numbers from 0 to 255, got {array.min()} to {array.max()}")
    pixels_BCHW = array.astype(np.uint8)
    if array.dtype.kind == "f" and not np.array_equal(pixels_BCHW, array):
        raise _bad(
            name,
            "pixels are whole numbers from 0 to 255, got some with a fraction: send them as they are in the "
            "image, the model's own transforms scale them",
        )
    return pixels_BCHW


def _bad(name: str, detail: str, row: int | None = None) -> BadInstance:
    place = f", row {row}" if row is not None else ""
    return BadInstance(f"input {show(name)}{place}: {detail}.")
