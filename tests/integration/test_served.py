"""What a load leaves ready: nets of each speed, computed before anybody asks."""

import base64
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from core import predict
from core.nets import artifacts
from core.nets.artifacts import Golden
from core.predict import Predictor
from service.inference import served
from service.inference.batcher import MAX_ROWS
from service.inference.engine import Engine
from service.inference.served import Served
from service.inference.statistics import VersionName
from tests import described


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each forward: the thread, and the rows."""
    seen: list[tuple[str, int]] = []
    real = Predictor.answers

    def answers(self: Predictor, inputs: Sequence[Tensor]) -> Tensor:
        seen.append((threading.current_thread().name.partition("_")[0], len(inputs[0])))
        return real(self, inputs)

    monkeypatch.setattr(Predictor, "answers", answers)
    return seen


def predictor(num_golden: int = 4) -> Predictor:
    manifest, net = described.images()
    pictures = described.pictures(num_golden) if num_golden else []
    encoded = [base64.b64encode(described.encoded(pixels)).decode() for pixels in pictures]
    golden = [Golden(picture, [0.25] * 4) for picture in encoded]
    return Predictor.of(replace(manifest, golden=golden, tolerance=1.0), net.state_dict())


def loaded(predictor: Predictor, engine: Engine) -> Served:
    return Served(VersionName("me", "m", 1), predictor, engine, lambda _rows, _seconds, _transform_s: None)


def test_a_slow_net_is_computed_by_the_thread_that_will_in_the_sizes_that_will_come_a_lone_row_last(
    engine: Engine, computed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "full_batch_s", lambda _predictor: 1.0)
    assert not loaded(predictor(), engine).is_quick
    assert {thread for thread, _ in computed} == {"engine"}
    assert {rows for _, rows in computed} == {1, MAX_ROWS}
    assert computed[-1] == ("engine", 1)


def test_of_a_net_that_takes_long_for_a_row_no_full_batch_is_computed(
    engine: Engine, computed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "full_batch_s", lambda _predictor: 1.0)
    monkeypatch.setattr(served, "QUICK_S", 1e-9)
    loaded(predictor(), engine)
    assert {rows for _, rows in computed} == {1}


def test_a_net_without_golden_samples_is_served_by_the_engine_and_not_warmed(
    engine: Engine, computed: list[tuple[str, int]]
) -> None:
    assert not loaded(predictor(0), engine).is_quick
    assert computed == []


def test_a_quick_net_never_meets_the_engine(
    engine: Engine, computed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "QUICK_S", 1.0)  # on the slowest machine
    assert loaded(predictor(), engine).is_quick
    assert "engine" not in {thread for thread, _ in computed}
    assert {rows for _, rows in computed} == {1, MAX_ROWS}


def test_mapped_weights_answer_to_the_bit_as_those_that_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, net = described.images()
    artifacts.write_manifest(manifest, tmp_path / "manifest.json")
    artifacts.save(net.state_dict(), tmp_path / "weights.pt")
    rows = [pixels.tolist() for pixels in described.pictures(3)]
    outputs = []
    for least_bytes, is_mapped in ((0, True), (2**30, False)):
        monkeypatch.setattr(predict, "MAPPED_BYTES", least_bytes)
        again = Predictor.load(tmp_path / "manifest.json", tmp_path / "weights.pt")
        maps = Path("/proc/self/maps").read_text()
        assert (str(tmp_path / "weights.pt") in maps) is is_mapped
        outputs.append(again.outputs([again.decode(row) for row in rows]))
        del again
    assert torch.equal(*outputs)
