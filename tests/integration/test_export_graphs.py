"""Graphs take any batch where the net allows it, one row where not; tensors may have two names."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from core.data.manifest import Kind
from core.errors import Invalid
from core.export import graph, onnx_graph, program, tensors
from core.nets.artifacts import VersionManifest
from core.predict import Predictor
from modelyard.specs import Signature

# B rows in the batch, F features


def served(net: nn.Module) -> Predictor:
    described = VersionManifest(
        task="regression",
        kind=Kind.ARRAYS,
        model={},
        row_shape=[4],
        classes=None,
        transforms=[],
        prepare=[],
        signature=Signature([], []),
        golden=[],
        tolerance=1e-4,
        raw_shape=[4],
        raw_dtype="float32",
    )
    return Predictor(described, net.eval(), None, torch.device("cpu"))


class ByRow(nn.Module):
    """Its steps are as many as the batch has rows: no graph has any number of them."""

    def forward(self, x_BF: Tensor) -> Tensor:
        return torch.stack([row * 2 for row in x_BF.unbind()])


class Undecided(nn.Module):
    """Which way it goes depends on the numbers."""

    def forward(self, x_BF: Tensor) -> Tensor:
        return x_BF * 2 if x_BF.sum().item() > 0 else x_BF


class Bessel(nn.Module):
    """ONNX has no such operation."""

    def forward(self, x_BF: Tensor) -> Tensor:
        return torch.special.bessel_j0(x_BF)


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("writer", [program, onnx_graph])
def test_a_net_that_counts_its_rows_is_written_for_one_row(
    tmp_path: Path, writer: object, num_rows: int
) -> None:
    inputs = [torch.randn(num_rows, 4)]
    traced = graph.trace(served(ByRow()), inputs)
    assert not traced.takes_any_batch
    assert [port.shape for port in (*traced.ports.inputs, *traced.ports.outputs)] == [[1, 4], [1, 4]]
    path = tmp_path / "graph"
    writer.write(traced, {}, path)  # type: ignore[attr-defined]  # a module
    came = writer.answers(path, graph.batches(traced, inputs))  # type: ignore[attr-defined]  # a module
    assert torch.equal(came, inputs[0] * 2)


def test_a_net_that_reads_its_numbers_is_refused_in_one_line() -> None:
    with pytest.raises(Invalid, match=r"torch\.export cannot write this net: ") as raised:
        graph.trace(served(Undecided()), [torch.ones(2, 4)])
    assert raised.value.code == graph.NOT_EXPORTABLE
    assert "\n" not in raised.value.detail


def test_an_operation_that_onnx_lacks_is_refused_in_one_line_that_names_it(tmp_path: Path) -> None:
    traced = graph.trace(served(Bessel()), [torch.ones(2, 4)])
    with pytest.raises(Invalid, match="bessel") as raised:
        onnx_graph.write(traced, {}, tmp_path / "net.onnx")
    assert raised.value.code == graph.NOT_EXPORTABLE
    assert "\n" not in raised.value.detail
    assert list(tmp_path.iterdir()) == []


def test_a_transformer_is_written_in_operations_that_onnx_has(tmp_path: Path) -> None:
    """In `eval()` torch takes a way of its own through such a layer, which no other program knows."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)).eval()
    inputs, path = [torch.randn(4, 5, 8)], tmp_path / "net.onnx"
    with torch.inference_mode():
        expected = net(*inputs)
    traced = graph.trace(served(net), inputs)
    assert traced.takes_any_batch
    onnx_graph.write(traced, {}, path)
    came = onnx_graph.answers(path, graph.batches(traced, inputs))
    assert (came - expected).abs().max() < 1e-5


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_a_tensor_of_two_names_is_written_once_and_tied_again_by_safetensors(tmp_path: Path) -> None:
    net, path = Tied(), tmp_path / "weights.safetensors"
    state = net.state_dict()
    tensors.write(state, {"modelyard.model": "m@1"}, path)
    assert path.stat().st_size < 5 * 3 * 4 + 400
    assert tensors.differing(state, tensors.read(path)) == []
    other = Tied()
    load_model(other, path, strict=True)
    assert torch.equal(other.head.weight, net.embed.weight)
    assert other.head.weight is other.embed.weight


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_every_kind_of_number_comes_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "weights.safetensors"
    state = {
        "a": torch.arange(6).reshape(2, 3).to(dtype).T,
        "b": torch.tensor(1).to(dtype),
        "c": torch.empty(0),
    }
    tensors.write(state, {}, path)
    assert tensors.differing(state, tensors.read(path)) == []


def test_what_differs_is_named() -> None:
    nan = torch.tensor([float("nan")])
    one = {"same": nan, "shape": torch.zeros(2), "dtype": torch.zeros(1), "bits": torch.zeros(2), "only": nan}
    other = {
        "same": nan.clone(),
        "shape": torch.zeros(2, 1),
        "dtype": torch.zeros(1, dtype=torch.float64),
        "bits": torch.tensor([0.0, -0.0]),
    }
    assert tensors.differing(one, other) == ["bits", "dtype", "only", "shape"]
