"""Every component of every family, the list taken from the registry: it plans, builds, trains one real step
in the workers' own loop, and predicts with the trained weights through `core.predict`."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.nets import artifacts
from core.nets.components import FAMILIES
from core.predict import Predictor
from modelyard.specs import Prediction
from tests.attempts import attempt_of
from tests.components import architectures, data, layers, objectives, training
from tests.components.example import Example
from workers import registration, trainer
from workers.loaders import raw_instance
from workers.registration import Data
from workers.training import Training

ALL = [(family.name, name) for family in FAMILIES.values() if family.is_listed for name in family.names]
README = Path(__file__).parents[2] / "docs" / "reference" / "README.md"
#: float32 sums in another order; relative to 1 + |answer|.
TOLERANCE = 1e-5


def example_of(family: str, name: str) -> Example:
    """Where an example of a new component is to be added, each message says."""
    try:
        match family:
            case "layer":
                return layers.EXAMPLES[name]
            case "architecture":
                return architectures.EXAMPLES[name]
            case "loss":
                return objectives.LOSSES[name]
            case "metric":
                return objectives.metric(name)
            case "target_transform":
                return objectives.TARGET_TRANSFORMS[name]
            case "optimizer":
                return training.optimizer(name)
            case "scheduler":
                return training.SCHEDULERS[name]
            case "sampler":
                return training.SAMPLERS[name]
            case "initializer":
                return training.initializer(name)
            case "prepare":
                return data.PREPARE[name]
            case "transform":
                return data.transform(name)
    except KeyError:
        where = "tests/transforms.py" if family == "transform" else "tests/components/"
        pytest.fail(f"the {family} {name} is new: add an example of it to {where}")
    pytest.fail(f"the family {family} is new: add examples of its components to tests/components/")


def cases() -> Iterator[Any]:
    for family, name in ALL:
        is_deep = family == "architecture" and architectures.EXAMPLES[name].is_deep
        yield pytest.param(family, name, id=f"{family} {name}", marks=[pytest.mark.deep] if is_deep else [])


@pytest.mark.parametrize(("family", "name"), list(cases()))
def test_a_component_plans_trains_a_step_and_predicts(family: str, name: str, tmp_path: Path) -> None:
    example = example_of(family, name)
    assert stands_in(example.spec, name), "the example is of another component"
    uploads = {named: tmp_path / named for named in example.files}
    for named, save in example.files.items():
        save(uploads[named])
    attempt = attempt_of(example.spec, *example.data(), tmp_path, uploads)
    opened, training, cursor = attempt.begin()
    before = [parameter.detach().clone() for parameter in few(training)]

    reports = list(trainer.fit(training, cursor))

    assert cursor.step == 1
    (metrics,) = [report.metrics for report in reports if isinstance(report, trainer.EpochEnded)]
    assert all(map(math.isfinite, metrics.values())), metrics
    assert family != "metric" or "val_asked" in metrics
    assert any(not torch.equal(a, b) for a, b in zip(before, few(training), strict=True)), "nothing trained"
    training.optimizer.zero_grad()  # as large as the net, and not needed any more
    predictor = predictor_of(attempt.spec, training, opened)
    instances = [
        raw_instance(opened.arrow, opened.manifest, opened.targets.columns, row)
        for row in range(example.rows)
    ]
    together = predictor.predict(instances)
    assert len(together) == example.rows
    alone = [predictor.predict([instance])[0] for instance in instances]
    for one, another in zip(together, alone, strict=True):
        assert numbers_of(one) == pytest.approx(numbers_of(another), rel=TOLERANCE, abs=TOLERANCE)
    assert predictor.replay() <= TOLERANCE
    if family == "layer":
        assert_keys_are_torch_s(example, training)


def test_the_count_of_components_stands_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(family for family, _ in ALL)
    shown = ", ".join(f"{count} of {family}" for family, count in counts.items())
    with capsys.disabled():
        print(f"\n{len(ALL)} components plan, train a step and predict: {shown}")
    assert f"{len(ALL)} components" in README.read_text(encoding="utf-8")


def stands_in(value: Any, name: str) -> bool:
    """Whether the spec has a component of that type."""
    if isinstance(value, dict):
        return value.get("type") == name or any(stands_in(child, name) for child in value.values())
    return isinstance(value, list) and any(stands_in(child, name) for child in value)


def few(training: Training) -> list[torch.nn.Parameter]:
    """Parameters whose copies cost little beside a large net."""
    return [parameter for parameter in training.net.parameters() if parameter.numel() < 10**6]


def predictor_of(spec: Any, training: Training, opened: Data) -> Predictor:
    """As a version is registered and then loaded, without the disk between."""
    golden_GC = registration.golden_outputs(training, opened)
    manifest = registration.version_manifest(golden_GC, spec, opened)
    return Predictor.of(manifest, artifacts.plain_state_dict(training.net))


def numbers_of(prediction: Prediction) -> list[float]:
    """All finite, in the order of the classes where there are any."""
    assert not prediction.error, prediction
    if prediction.top:
        found = [each.score for each in sorted(prediction.top, key=lambda each: each.index)]
    else:
        found = prediction.value if isinstance(prediction.value, list) else [prediction.value]
    assert found
    assert all(map(math.isfinite, found)), found
    return found


def assert_keys_are_torch_s(example: Example, training: Training) -> None:
    ours = {
        key.removeprefix(example.prefix): tensor.shape
        for key, tensor in training.net.state_dict().items()
        if key.startswith(example.prefix)
    }
    plain = example.plain().state_dict() if example.plain is not None else {}
    assert ours == {key: tensor.shape for key, tensor in plain.items()}
