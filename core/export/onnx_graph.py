"""A graph as ONNX, and ONNX Runtime's answers to it. Needs the extra `export`."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from core.errors import Invalid
from core.export.graph import NOT_EXPORTABLE, Traced, not_exportable

#: A file of protocol buffers holds 2 GiB at most; the graph itself takes some of it.
MAX_TENSOR_BYTES = 2**31 - 2**26


def write(traced: Traced, header: Mapping[str, str], path: Path) -> None:
    """Raises Invalid where ONNX has no such operation, or the weights don't fit into one file."""
    _require_small(traced)
    ports = traced.ports
    any_batch = [{0: "batch"} for _ in ports.inputs] if traced.takes_any_batch else None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                traced.program,
                dynamo=True,
                input_names=[port.name for port in ports.inputs],
                output_names=[port.name for port in ports.outputs],
                dynamic_shapes=any_batch,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise not_exportable("ONNX", error) from error
    assert made is not None
    made.model.metadata_props.update(header)
    made.save(path)


def answers(path: Path, batches: Sequence[Sequence[Tensor]]) -> Tensor:
    """[B, …] of all batches one after another, by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]
        parts = [session.run(None, _fed(names, batch))[0] for batch in batches]
    except Exception as error:
        raise not_exportable("ONNX Runtime", error) from error
    return torch.cat([torch.from_numpy(part) for part in parts])


def _fed(names: Sequence[str], batch: Sequence[Tensor]) -> dict[str, object]:
    return {name: part.contiguous().numpy() for name, part in zip(names, batch, strict=True)}


def _require_small(traced: Traced) -> None:
    state = traced.program.state_dict
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size_bytes > MAX_TENSOR_BYTES:
        raise Invalid(
            f"One ONNX file holds at most 2 GiB, and these weights have {size_bytes:,} bytes. "
            "Take torch_export, or safetensors.",
            code=NOT_EXPORTABLE,
        )
