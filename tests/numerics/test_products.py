"""Linear layers by oneDNN are those of torch: the same values, gradients and gradients of gradients."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.nets import products


@pytest.fixture(autouse=True)
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(functional, "linear", functional.linear)  # back again after the test
    products.multiply_by_onednn()


def error(came: Tensor, exact: Tensor) -> float:
    return ((came - exact).abs().max() / exact.abs().max()).item()


def of(function, *shape: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:  # type: ignore[no-untyped-def]
    """Outputs and gradients in fp32 by oneDNN, and in float64 by torch."""
    found = []
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(1)
        given = [torch.randn(each, generator=generator).to(dtype).requires_grad_() for each in shape]
        answer = function(*given)
        found.append([answer, *torch.autograd.grad((answer * answer).sum(), given)])
    return found[0], found[1]


@pytest.mark.parametrize("rows", [(64,), (1,), (3, 17), (2, 3, 5), ()])
def test_values_and_gradients_are_within_rounding_of_those_in_float64(rows: tuple[int, ...]) -> None:
    came, exact = of(functional.linear, (*rows, 96), (48, 96), (48,))
    assert came[0].shape == (*rows, 48)
    assert max(map(error, came, exact)) < 2e-6


def test_its_rounding_is_of_the_size_of_torchs_own() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(n, 784, generator=generator) for n in (64, 512))
    exact = x.double() @ weight.double().t()

    def rounding(came: Tensor) -> float:
        return ((came - exact).square().mean() / exact.square().mean()).sqrt().item()

    assert rounding(functional.linear(x, weight)) < min(5e-7, 2 * rounding(x @ weight.t()))


def test_a_matrix_that_is_neither_contiguous_nor_a_transpose_of_one_is_read_right() -> None:
    weight = torch.randn(32, 64)
    for x in (torch.randn(1, 64).expand(8, 64), torch.randn(16, 128)[:, ::2], torch.randn(64, 9).t()):
        torch.testing.assert_close(functional.linear(x, weight), x.contiguous() @ weight.t())


def test_the_gradient_of_a_sum_is_one_number_seen_everywhere() -> None:
    x, layer = torch.randn(8, 64, requires_grad=True), nn.Linear(64, 32)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(8, 64))
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, torch.full((32,), 8.0))


@pytest.mark.parametrize("shape", [(8, 64), (2, 8, 64)])
def test_what_comes_out_may_be_written_into(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    layer = nn.Linear(64, 32)
    nn.Sequential(layer, nn.Hardswish(inplace=True))(x).sum().backward()
    in_place = x.grad
    x.grad = None
    nn.Sequential(layer, nn.Hardswish())(x).sum().backward()
    assert in_place is not None
    assert x.grad is not None
    torch.testing.assert_close(in_place, x.grad)


def test_gradients_have_gradients() -> None:
    def penalty(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        scores = functional.linear(x, weight, bias).tanh().sum()
        (slope,) = torch.autograd.grad(scores, x, create_graph=True)
        return slope.square().sum()

    came, exact = of(penalty, (8, 24), (12, 24), (12,))
    assert max(map(error, came, exact)) < 1e-5


def test_what_is_not_a_plain_fp32_tensor_on_the_cpu_goes_torchs_way() -> None:
    layer = nn.Linear(64, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(8, 64)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(8, 64).double()).dtype == torch.float64
    assert nn.Linear(64, 32, device="meta")(torch.empty(8, 64, device="meta")).is_meta
    layer = layer.float()
    x = torch.randn(8, 64)
    slopes = torch.func.vmap(torch.func.grad(lambda row: layer(row).sum()))(x)
    torch.testing.assert_close(slopes, layer.weight.sum(0).expand(8, 64))


def test_small_products_are_torchs_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MIN_PRODUCTS", 2_000_000)
    x, layer = torch.randn(8, 64), nn.Linear(64, 32)
    assert torch.equal(layer(x), torch.addmm(layer.bias, x, layer.weight.t()))
