"""Valid specs of every kind, made hostile: a plan refuses them with its own words or accepts them, in under
two seconds of the processor, and never allocates the net."""

import copy
import json
import math
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.manifest import Manifest
from core.errors import Invalid, Malformed, TooLarge
from core.nets.components import FAMILIES
from core.nets.parse import parse_spec
from core.nets.plan import Checked, Source, check
from core.nets.warm import warm
from tests.attempts import TEXT_STEPS, Component, arrays, c, numbers, seq, texts
from tests.components import data, objectives, training
from tests.manifests import images
from tests.numerics.test_scripts import CASES

BUDGET_S = 2.0
GROWTH_KIB = 200 * 1024
#: Too deep for Python's own writer of JSON: the text is put in afterwards.
DEEP = "@deep@"
_DEEP_TEXT = "[" * 10_000 + "]" * 10_000
LARGEST = 2**31 - 1
END = (c("Flatten"), c("Linear", out_features=1))


def job(model: Any, **fields: Any) -> Component:
    return {"name": "m", "dataset": "d", "model": model} | fields


IMAGES = images(channels=3, sizes=[(32, 32, 1200)])
PIXELS = [
    c("RandomApply", transforms=[c("ColorJitter", brightness=0.2), c("GaussianBlur", kernel_size=3)]),
    c("RandAugment"),
    c("RandomResizedCrop", size=[24, 24]),
    c("Normalize", mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2]),
    c("MixUp"),
]
SMALL_CNN = seq(c("Conv2d", out_channels=4, kernel_size=3, stride=2, padding=1), c("BatchNorm2d"), *END)

CORPUS: list[tuple[Component, Manifest]] = [
    *((job(case.spec["model"]) | case.spec, case.data()[0]) for case in CASES),
    (
        job(
            seq(*SMALL_CNN["layers"][:-1], c("Linear", out_features=10)),
            transforms={"train": PIXELS, "eval": [c("Resize", size=[24, 24]), PIXELS[3]]},
            metrics=["f1", c("AUROC", thresholds=50), c("CalibrationError", n_bins=10)],
            trainer={"sampler": c("WeightedRandomSampler", weights="balanced"), "epochs": 3},
            scheduler=c("LambdaLR", lr_lambda="0.5 ** (epoch + step / 1000)"),
            freeze=[r"0\..*"],
            unfreeze=[{"match": r"0\..*", "epoch": 1}],
        ),
        IMAGES,
    ),
    (job(c("vit_b_16", image_size=32), optimizer=c("SGD", lr=0.1)), IMAGES),
    (data.PREPARE["OneHot"].spec | {"name": "m", "dataset": "d"}, data.mixed()[0]),
    (objectives.LOSSES["TripletMarginLoss"].spec | {"name": "m", "dataset": "d"}, objectives.alike()[0]),
    (
        objectives.TARGET_TRANSFORMS["Bin"].spec | {"name": "m", "dataset": "d"},
        arrays([6], classes=None)()[0],
    ),
    (
        training.initializer("orthogonal_").spec | {"name": "m", "dataset": "d"},
        arrays([3, 5, 5], classes=None)()[0],
    ),
]

VALUES: list[Any] = [
    *(0, -1, 2**31 - 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, 5e-324, math.nan, math.inf),
    *("", "x" * 100_000, "\x00", "é" * 150, "(a+)+$", "(?=a)(", "[" * 90, "(" * 90 + ")" * 90, ".*" * 99),
    *("step ** step ** step ** 99", "(" * 95 + "1" + ")" * 95, "lambda: 0", "1e308 * 10 * epoch", "*"),
    *(None, True, [], {}, [[]], [[[[1]]]], DEEP, [LARGEST] * 3, [1] * 5000, ["*"] * 1001, {"type": None}),
    *({"type": "Linear"}, {"type": "Sequential", "layers": []}, {"a": {"b": {"c": 1}}}, [None, -1, "x"]),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in inside:
        yield from places(child, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def components_of(value: Any) -> Iterator[Component]:
    if isinstance(value, dict) and "type" in value:
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from components_of(child)


#: Small enough to reach torch.
NUMBERS = [0, 1, 2, 3, 7, 64, 65_537, LARGEST, -1, -7, 0.0, 0.5, 1e-30, 1e30, -1.0]
TYPES = [name for family in FAMILIES.values() if family.is_listed for name in family.names]
COMPONENTS = [component for spec, _ in CORPUS for component in components_of(spec)]


SMALL = ("replace", "number", "number", "retype", "retype", "swap", "drop", "rename", "stranger")
#: Two of these would make a spec of gigabytes before it is sent.
LARGE = ("repeat", "nest", "split")


def mutate(draw: st.DrawFn, raw: Component, path: tuple[Any, ...], operation: str) -> None:
    """One place of the spec changed in place."""
    holder, key = at(raw, path[:-1]), path[-1]
    match operation:
        case "replace":
            holder[key] = draw(st.sampled_from(VALUES))
        case "number" if isinstance(holder[key], int | float):
            holder[key] = draw(st.sampled_from(NUMBERS))
        case "retype" if isinstance(holder, dict) and "type" in holder:
            holder["type"] = draw(st.sampled_from(TYPES))
        case "drop":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[draw(st.sampled_from([key.upper(), key + "s", "", "type", "k" * 5000]))] = holder.pop(key)
        case "stranger" if isinstance(holder, dict):
            holder[draw(st.sampled_from(["inputs", "share", "norm", "bias", "name", "lr", "\ud7ff"]))] = 1
        case "repeat":
            holder[key] = [holder[key]] * draw(st.sampled_from([2, 150, 2000]))
        case "nest":
            for _ in range(draw(st.sampled_from([3, 31, 200]))):
                holder[key] = c("Residual", layers=[holder[key]])
        case "split":
            for _ in range(draw(st.sampled_from([2, 8]))):
                holder[key] = c("Parallel", branches=[holder[key], holder[key]])
        case _:
            holder[key] = copy.deepcopy(draw(st.sampled_from(COMPONENTS)))


@st.composite
def mutants(draw: st.DrawFn) -> tuple[bytes, Manifest]:
    spec, manifest = draw(st.sampled_from(CORPUS))
    raw = copy.deepcopy(spec)
    paths = [path for path in places(spec) if path and path[0] not in ("name", "dataset")]
    operations = [draw(st.sampled_from(SMALL + LARGE)), *draw(st.lists(st.sampled_from(SMALL), max_size=2))]
    for operation in operations:
        # A place that an earlier change took away is left alone.
        with suppress(KeyError, IndexError, TypeError):
            mutate(draw, raw, draw(st.sampled_from(paths)), operation)
    return written(raw), manifest


def written(raw: Any) -> bytes:
    return json.dumps(raw).replace(f'"{DEEP}"', _DEEP_TEXT).encode()


def planned(body: bytes, manifest: Manifest) -> Checked | Invalid | Malformed | TooLarge:
    """Whatever else is raised would be a 500."""
    try:
        return check(parse_spec(body), Source("d@1", manifest))
    except (Invalid, Malformed, TooLarge) as refusal:
        return refusal


@contextmanager
def cheap() -> Iterator[None]:
    """Seconds of this process, so that busy neighbours don't count; memory is the peak's growth."""
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - began < BUDGET_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < GROWTH_KIB


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm()
    for spec, manifest in CORPUS:
        assert isinstance(planned(written(spec), manifest), Checked), "the corpus is valid"


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(mutants())
def test_a_mutated_spec_is_planned_or_refused_and_costs_little(mutant: tuple[bytes, Manifest]) -> None:
    with cheap():
        told = planned(*mutant)
    if isinstance(told, Invalid):
        assert told.errors
        assert all(error.pointer == "" or error.pointer.startswith("/") for error in told.errors)


def nested(kind: str, word: str, levels: int, times: int = 1) -> Component:
    component = c("Identity")
    for _ in range(levels):
        component = c(kind, **{word: [component] * times})
    return component


def graph(*nodes: Component, output: str = "end") -> Component:
    return c("Graph", nodes=list(nodes), output=output)


def node(kind: str, name: str, *inputs: str, **keywords: Any) -> Component:
    return c(kind, name=name, inputs=list(inputs), **keywords)


LAYER = c("TransformerEncoderLayer", nhead=2, dim_feedforward=8)
STEPS = arrays([6, 8], classes=None)()[0]
ROW = arrays([8], classes=None)()[0]
PICTURES = arrays([3, 64, 64], classes=None)()[0]
WIDE_FAN = [node("add", f"n{i}", *[f"n{i - 1}" if i else "input"] * 100) for i in range(990)]
DOUBLING = [node("cat", f"n{i}", *[f"n{i - 1}" if i else "input"] * 2) for i in range(60)]
GAPS = data.mixed()[0]
TABLE, TEXT = numbers("a", "b")()[0], texts()[0]
LINE = c("Linear", out_features=1)


@pytest.mark.parametrize(
    ("spec", "manifest", "pointer"),
    [
        (job(c("Linear", in_features=2**31, out_features=2**31)), ROW, "/model/in_features"),
        (job(c("Linear", out_features=LARGEST)), ROW, "/model"),
        (job(seq(*[c("ReLU")] * 10_000)), ROW, "/model/layers"),
        (job(seq(*[c("Sequential", layers=[c("ReLU")] * 500)] * 20)), ROW, "/model"),
        (job(seq(c("Conv2d", out_channels=1, kernel_size=3, stride=-2))), PICTURES, "/model/layers/0/stride"),
        (job(seq(c("Conv2d", out_channels=1, kernel_size=LARGEST))), PICTURES, "/model/layers/0"),
        (job(seq(c("TransformerEncoder", encoder_layer=LAYER, num_layers=10**6))), STEPS, "/model"),
        (job(seq(c("TransformerEncoder", encoder_layer=LAYER, num_layers=990))), STEPS, "/model"),
        (job(seq(c("TransformerEncoder", encoder_layer=LINE, num_layers=2))), STEPS, "/model/layers/0/enc"),
        (job(seq(*[LAYER] * 990)), STEPS, "/model"),
        (job(seq(*[c("MultiheadAttention", num_heads=2)] * 990)), STEPS, "/model"),
        (job(seq(c("RNN", hidden_size=8, num_layers=10**6))), STEPS, "/model"),
        (job(seq(c("GRU", hidden_size=8, num_layers=990, bidirectional=True))), STEPS, "/model"),
        (job(seq(*[c("densenet201", num_classes=1)] * 40)), PICTURES, "/model"),
        (job(c("vit_b_16", image_size=10**6)), PICTURES, "/model"),
        (job(c("alexnet", num_classes=LARGEST)), PICTURES, "/model"),
        (job(nested("Residual", "layers", 300)), ROW, "/model/layers"),
        (job(nested("Parallel", "branches", 13, 2)), ROW, "/model"),
        (
            job(c("Embedding", num_embeddings=2**31, embedding_dim=2**31), prepare=TEXT_STEPS),
            TEXT,
            "/model/num_embeddings",
        ),
        (
            job(seq(c("Embedding", num_embeddings=LARGEST, embedding_dim=LARGEST)), prepare=TEXT_STEPS),
            TEXT,
            "/model/layers/0",
        ),
        (job(graph(node("add", "end", "end", "end"))), ROW, "/model/nodes/0/inputs/0"),
        (job(graph(node("add", "a", "b", "b"), node("add", "b", "a", "a"))), ROW, "/model/nodes/0/inputs/0"),
        (job(graph(node("add", "end", *["input"] * 1000))), ROW, "/model/nodes/0"),
        (job(graph(*WIDE_FAN, output="n989")), ROW, "/model"),
        (job(graph(*DOUBLING, output="n59")), ROW, "/model/nodes"),
        (job(seq(c("ZeroPad2d", padding=LARGEST))), PICTURES, "/model/layers/0"),
        (job(seq(c("Upsample", scale_factor=1e38))), PICTURES, "/model/layers/0"),
        (job(seq(c("Unflatten", dim=1, unflattened_size=[8] + [1] * 900))), ROW, "/model/layers/0"),
        (
            job(LINE, optimizer=c("SGD", param_groups=[{"match": "x"}] * 50_000)),
            ROW,
            "/optimizer/param_groups",
        ),
        (job(LINE, optimizer=c("SGD", param_groups=[{"match": "(a|b|c){1000}{1000}"}])), ROW, "/optimizer"),
        (job(LINE, freeze=["(" * 90 + ")" * 90]), ROW, "/freeze/0"),
        (job(LINE, initialize=[c("zeros_")] * 5000), ROW, "/initialize"),
        (job(LINE, scheduler=c("LambdaLR", lr_lambda="9**9**9**9**9**9")), ROW, "/scheduler/lr_lambda"),
        (job(LINE, scheduler=c("LambdaLR", lr_lambda="-" * 199 + "1")), ROW, "/scheduler/lr_lambda"),
        (job(LINE, metrics=[c("MeanAbsoluteError", num_outputs=LARGEST)]), ROW, "/metrics/0"),
        (job(LINE, metrics=["mae"] * 10_000), ROW, "/metrics"),
        (job(LINE, metrics=[c("MinkowskiDistance", p=0.0)]), ROW, "/metrics/0"),
        (job(graph(node("Bilinear", "end", "input", "input", out_features=65_537))), ROW, "/model"),
        (job(LINE, prepare=[c("Impute", strategy="constant")]), GAPS, "/prepare/0/fill_value"),
        (job(LINE, prepare=[c("OneHot", max_categories=LARGEST)]), TABLE, "/prepare/0/max_categories"),
        (job(LINE, prepare=[c("Standardize")] * 10_000), TABLE, "/prepare"),
        (job(LINE, target_transform=[c("Bin", quantiles=LARGEST)]), ROW, "/target_transform/0/quantiles"),
        (job(LINE, target_transform=[c("Standardize")] * 10_000), ROW, "/target_transform"),
        (job(LINE, trainer={"sampler": c("RandomSampler", num_samples=LARGEST)}), ROW, "/trainer/sampler"),
    ],
)
def test_a_hostile_spec_is_refused_where_it_is_hostile(
    spec: Component, manifest: Manifest, pointer: str
) -> None:
    with cheap():
        told = planned(written(spec), manifest)
    assert isinstance(told, Invalid), told
    assert any(error.pointer.startswith(pointer) for error in told.errors), told.errors[0]


MEAN = [node("Linear", "wide", "input", out_features=8), node("mean", "one", "wide", dim=1)]


@pytest.mark.parametrize(
    ("model", "pointer"),
    [
        (seq(c("LayerNorm", normalized_shape=[8, 8]), LINE), "/model/layers/0/normalized_shape"),
        (seq(c("Softmax", dim=0), LINE), "/model/layers/0/dim"),
        (seq(c("Softmax", dim=5), LINE), "/model/layers/0/dim"),
        (seq(c("BatchNorm1d", track_running_stats=False), LINE), "/model/layers/0/track_running_stats"),
        (seq(c("Linear", out_features=3), c("mean"), c("Linear", out_features=8)), "/model/layers/2"),
        (seq(c("Linear", out_features=3), c("mean"), c("LayerNorm")), "/model/layers/2"),
        (seq(c("Linear", out_features=3), c("mean"), c("resnet18")), "/model/layers/2"),
        (graph(*MEAN, node("add", "end", "wide", "one")), "/model/nodes/2"),
        (graph(*MEAN, node("mul", "end", "wide", "one")), "/model/nodes/2"),
        (graph(node("matmul", "end", "input", "input")), "/model/nodes/0"),
    ],
)
def test_a_net_in_which_rows_would_meet_is_refused(model: Component, pointer: str) -> None:
    """With as many rows in the batch as a row has features, the shapes alone would fit."""
    told = planned(written(job(model, trainer={"batch_size": 8})), ROW)
    assert isinstance(told, Invalid), told
    assert told.errors[0].pointer == pointer


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"name":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"type":"Sequential","layers":[' * 20_000 + b"]}" * 20_000,
        b'{"name":"m","dataset":"d","model":{"type":"Linear","out_features":NaN}}',
        b'{"name":"m","dataset":"d","model":{"type":"Linear","out_features":1e999}}',
        b'{"name":"m","name":"n"}',
        b"\xff\xfe",
        b" " * 2**20 + b"{}",
        b"9" * 100_000,
    ],
    ids=["lists", "objects", "layers", "nan", "infinity", "twice", "bytes", "long", "digits"],
)
def test_bytes_that_are_no_spec_are_refused_before_anything_is_built(body: bytes) -> None:
    with cheap():
        told = planned(body, ROW)
    assert isinstance(told, Malformed | TooLarge)
