"""Hostile specs cost little: `Invalid` within two seconds, and nothing large is ever allocated."""

import json
import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Invalid, Malformed
from core.nets.parse import parse_spec
from core.nets.plan import Source, check
from core.nets.warm import warm
from tests.manifests import images

BUDGET_S = 2.0
GROWTH_KIB = 64 * 1024


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm()


@pytest.fixture
def small() -> Iterator[None]:
    """The test may take `BUDGET_S` and raise the peak memory of the process by `GROWTH_KIB`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < BUDGET_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB


def job(*layers: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "m", "dataset": "d", "model": {"type": "Sequential", "layers": list(layers)}} | fields


def nested(levels: int) -> dict[str, Any]:
    layer: dict[str, Any] = {"type": "ReLU"}
    for _ in range(levels):
        layer = {"type": "Sequential", "layers": [layer]}
    return layer


FLATTEN = {"type": "Flatten"}
END = {"type": "Linear", "out_features": 10}
LARGEST = 2**31 - 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (job(FLATTEN, {"type": "Linear", "in_features": 2**31, "out_features": 2**31}), "/model/layers/1/"),
        (job(FLATTEN, {"type": "Linear", "out_features": LARGEST}), "/model/layers/1"),
        (job(FLATTEN, {"type": "Linear", "out_features": 10**400}), "/model/layers/1/out_features"),
        (job({"type": "Conv2d", "out_channels": LARGEST, "kernel_size": LARGEST}), "/model/layers/0"),
        (
            job({"type": "Conv2d", "out_channels": 1, "kernel_size": 1, "padding": LARGEST}),
            "/model/layers/0",
        ),
        (
            job({"type": "Conv2d", "out_channels": 1, "kernel_size": 3, "stride": -1}),
            "/model/layers/0/stride",
        ),
        (job({"type": "Conv2d", "out_channels": 1, "kernel_size": 3, "stride": 0}), "/model/layers/0/stride"),
        (job({"type": "AdaptiveAvgPool2d", "output_size": [LARGEST, LARGEST]}), "/model/layers/0"),
        (job({"type": "MaxPool2d", "kernel_size": 3, "dilation": LARGEST}), "/model/layers/0"),
        (job(*[{"type": "ReLU"}] * 10_000), "/model/layers"),
        (job(*[{"type": "Sequential", "layers": [{"type": "ReLU"}] * 900}] * 20), "/model"),
        (job(*[{"type": f"Relu{i}"} for i in range(900)]), "/model/layers/0/type"),
        (job(nested(33)), "/model/layers/0"),
        (job(nested(900)), "/model/layers/0"),
        (job({"type": "x" * 1_000_000}), "/model/layers/0/type"),
        (job({"type": "ReLU", "k" * 1_000_000: 1}), "/model/layers/0"),
        (job(FLATTEN, {"type": "Linear", "out_features": "9" * 1_000_000}), "/model/layers/1/out_features"),
        (job({"type": "LeakyReLU", "negative_slope": 1e308}), "/model/layers/0/negative_slope"),
        (job({"type": "LeakyReLU", "negative_slope": float("nan")}), "/model/layers/0/negative_slope"),
        (job(FLATTEN, END, optimizer={"type": "SGD", "lr": float("inf")}), "/optimizer/lr"),
        (job(FLATTEN, END, transforms={"train": [{"type": "Resize", "size": LARGEST}]}), "/transforms/train"),
        (
            job(FLATTEN, END, transforms={"train": [{"type": "RandomRotation", "degrees": 1e38}] * 2000}),
            "/transforms",
        ),
        (job(FLATTEN, END, trainer={"batch_size": 10**30}), "/trainer/batch_size"),
        (job(FLATTEN, END, target="x" * 1_000_000), "/target"),
        (job(FLATTEN, END, inputs=[f"column{i}" for i in range(10_000)]), "/inputs"),
        (job(FLATTEN, END, **{f"field{i}": i for i in range(5000)}), "/field0"),
    ],
)
def test_a_hostile_spec_is_refused_at_its_part(raw: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(raw, Source("d@1", images()))
    errors = caught.value.errors
    assert any(error.pointer.startswith(pointer) for error in errors), errors[0]
    assert len(errors) <= 100
    assert all(len(error.message) <= 1000 for error in errors)
    json.dumps([[error.pointer, error.code, error.message] for error in errors]).encode()


@pytest.mark.usefixtures("small")
def test_a_flat_strip_of_an_image_is_not_blown_up_by_a_resize() -> None:
    # The shorter side to 2048 makes the longer one two million.
    raw = job(FLATTEN, END, transforms={"train": [{"type": "Resize", "size": 2048}]})
    with pytest.raises(Invalid) as caught:
        check(raw, Source("d@1", images(sizes=[(1, 1000, 10)])))
    assert "pixels" in caught.value.errors[0].message


@pytest.mark.usefixtures("small")
def test_fifty_megapixels_must_be_resized_before_anything_else() -> None:
    sizes = [(6000, 8000, 10)]
    raw = job(FLATTEN, END, transforms={"train": [{"type": "RandomHorizontalFlip"}]})
    with pytest.raises(Invalid) as caught:
        check(raw, Source("d@1", images(sizes=sizes)))
    assert caught.value.errors[0].pointer == "/transforms/train"
    resized = job(FLATTEN, END, transforms={"train": [{"type": "Resize", "size": [28, 28]}]})
    assert check(resized, Source("d@1", images(sizes=sizes))).plan.layers[0].output_shape == [64, 784]


def test_a_thousand_real_layers_are_walked_within_the_budget() -> None:
    layers = [{"type": "Conv2d", "out_channels": 4, "kernel_size": 3, "padding": 1}] * 900
    began = time.perf_counter()
    with pytest.raises(Invalid):
        check(job(*layers), Source("d@1", images()))
    assert time.perf_counter() - began < BUDGET_S


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BASE = job(
    {"type": "Conv2d", "out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1},
    {"type": "BatchNorm2d"},
    {"type": "MaxPool2d", "kernel_size": [2, 2]},
    FLATTEN,
    END,
    transforms={"train": [{"type": "Resize", "size": [16, 16]}, {"type": "RandomRotation", "degrees": 3}]},
    optimizer={"type": "Adam", "lr": 0.1, "betas": [0.9, 0.99]},
    scheduler={"type": "StepLR", "step_size": 2},
    trainer={"epochs": 2, "batch_size": 8, "checkpoint": {"monitor": "val_loss"}},
    split={"validation": 0.2},
    metrics=["accuracy"],
    inputs=["image"],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.sampled_from([path for path in places(BASE) if path]), JSON)
def test_a_mutated_spec_is_planned_or_refused_and_nothing_else(path: tuple[Any, ...], value: Any) -> None:
    raw = json.loads(json.dumps(BASE))
    inside = raw
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    began = time.perf_counter()
    try:
        spec = parse_spec(json.dumps(raw).encode())
        check(spec, Source("d@1", images()))
    except (Malformed, Invalid):
        pass
    assert time.perf_counter() - began < BUDGET_S
