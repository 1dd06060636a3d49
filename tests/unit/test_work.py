"""Multiply-adds as counted from shapes, against what torch's own counter sees the operators do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from core.nets.work import work_of

LAYERS: list[tuple[Callable[[], nn.Module], list[int]]] = [
    (lambda: nn.Linear(7, 5), [3, 7]),
    (lambda: nn.Linear(7, 5), [3, 11, 7]),
    (lambda: nn.Conv1d(4, 6, 3, stride=2), [2, 4, 20]),
    (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), [2, 4, 9, 8]),
    (lambda: nn.Conv3d(2, 3, 2), [2, 2, 5, 5, 5]),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), [2, 4, 9, 8]),
    (lambda: nn.RNN(5, 6, batch_first=True), [3, 4, 5]),
    (lambda: nn.MultiheadAttention(8, 2, batch_first=True), [3, 5, 8]),
    (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), [3, 5, 8]),
    (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), [3, 5, 8]),
    (lambda: nn.BatchNorm2d(4), [2, 4, 9, 8]),
    (lambda: nn.LayerNorm([4, 5]), [2, 4, 5]),
]


def counted(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """By torch, which counts a multiply-add as two operations."""
    inputs = (x, x, x) if isinstance(module, nn.MultiheadAttention) else (x,)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        out = module(*inputs)
    return counter.get_total_flops() // 2, out if isinstance(out, Tensor) else out[0]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_multiply_adds_are_those_that_torch_counts(make: Callable[[], nn.Module], shape: list[int]) -> None:
    module, x = make(), torch.rand(shape)
    expected, out = counted(module, x)
    assert work_of(module, x, out) == expected


def test_a_look_up_multiplies_nothing() -> None:
    with torch.device("meta"):
        module, x = nn.Embedding(1000, 16), torch.empty(2, 5, dtype=torch.int64)
    assert work_of(module, x, module(x)) == 0


def test_the_layers_of_a_resnet_add_up_to_what_torch_counts() -> None:
    with torch.device("meta"):
        net, x = resnet18(), torch.empty(2, 3, 224, 224)
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += work_of(module, inputs[0], out)

    for layer in net.modules():
        if not any(layer.children()):
            layer.register_forward_hook(add)
    expected, _ = counted(net, x)
    assert total == expected
