"""A version as a graph: from the net's own inputs to what a prediction says."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from core.errors import Invalid
from core.export.about import Ports, ports_of
from core.faults import first_line
from core.nets.readout import Outputs
from core.predict import Predictor

# B rows in the batch

NOT_EXPORTABLE = "not_exportable"


class Answering(nn.Module):
    """The net, and what makes scores or values of its outputs."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.net = predictor.net
        self._answers = predictor.scores

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs: Outputs = self.net(*inputs)
        return self._answers(outputs)


@dataclass(frozen=True)
class Traced:
    """`takes_any_batch`: else one row at a time."""

    program: ExportedProgram
    ports: Ports
    takes_any_batch: bool


def trace(predictor: Predictor, inputs: Sequence[Tensor]) -> Traced:
    """With golden rows as the example, [B, …] for each input. Raises Invalid where torch cannot follow the
    net."""
    net = Answering(predictor).eval()
    # A layer's fast path is one operation of torch's own, which no other program has.
    had_fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return _trace(net, predictor, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fast_path)


def _trace(net: Answering, predictor: Predictor, inputs: Sequence[Tensor]) -> Traced:
    # A batch of one says nothing of others: torch would take the one for a constant.
    several = [torch.cat([part, part])[: max(2, len(part))] for part in inputs]
    alone = [part[:1] for part in inputs]
    try:
        program, takes_any_batch = _program(net, several, is_dynamic=True), True
    except Exception:  # whatever stands in the way of any batch need not stand in the way of one row
        try:
            program, takes_any_batch = _program(net, alone, is_dynamic=False), False
        except Exception as error:
            raise not_exportable("torch.export", error) from error
    with torch.inference_mode():
        answers = net(*alone)
    ports = ports_of(predictor.manifest, alone, answers, -1 if takes_any_batch else 1)
    return Traced(program, ports, takes_any_batch)


def _program(net: Answering, inputs: Sequence[Tensor], *, is_dynamic: bool) -> ExportedProgram:
    batch = Dim("batch")
    shapes = (tuple({0: batch} for _ in inputs),) if is_dynamic else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # they are for who wrote the net
        return torch.export.export(net, tuple(inputs), dynamic_shapes=shapes)


def batches(traced: Traced, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """All rows in the order they came, as the graph takes them: a row alone, then the rest together; or each
    alone."""
    num_rows = len(inputs[0])
    cuts = [0, 1, num_rows] if traced.takes_any_batch else list(range(num_rows + 1))
    return [[part[start:stop] for part in inputs] for start, stop in pairwise(cuts) if stop > start]


def not_exportable(writer: str, error: BaseException) -> Invalid:
    """The reason in one line: of a chain of errors the one that began it, which names the operation."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = first_line(cause)
    return Invalid(
        f"{writer} cannot write this net: {reason}. The formats pt and safetensors hold its weights.",
        code=NOT_EXPORTABLE,
    )
