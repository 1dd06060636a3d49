"""How a loop may be told to run: accumulated, clipped, averaged, in pieces, ended early, gone on with."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.nets import artifacts
from tests.attempts import BATCH, ROWS, WHOLE, arrays, attempt_of, c, seq
from tests.fakes import FakeLink
from workers import progress, trainer
from workers.attempt import Attempt
from workers.board.board import Board
from workers.cursor import Cursor
from workers.messages import Noted, Saved
from workers.running import Running
from workers.trainer import EpochEnded, NoRoom, Stepped
from workers.training import Training

NET = seq(c("Linear", out_features=16), c("ReLU"), c("Linear", out_features=3))
IMAGES = arrays([3, 6, 6], classes=3, dtype="uint8")
NUMBERS = arrays([7], classes=3)


def attempt(folder: Path, spec: dict[str, Any], data: Callable[[], Any] = NUMBERS) -> Attempt:
    folder.mkdir(parents=True, exist_ok=True)
    return attempt_of(spec, *data(), folder)


def trained(folder: Path, spec: dict[str, Any], data: Callable[[], Any] = NUMBERS) -> dict[str, Tensor]:
    _, training, cursor = attempt(folder, spec, data).begin()
    for _ in trainer.fit(training, cursor):
        pass
    return artifacts.plain_state_dict(training.served)


def with_trainer(**words: Any) -> dict[str, Any]:
    return {"model": NET, "optimizer": c("SGD", lr=0.1, momentum=0.9), "trainer": {"epochs": 2} | words}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=tolerance, msg=name)


LOSSES = {
    "mean": c("CrossEntropyLoss"),
    "sum": c("CrossEntropyLoss", reduction="sum"),
    "weighted": c("CrossEntropyLoss", class_weights=[1.0, 4.0, 0.5]),
    "ignoring": c("CrossEntropyLoss", ignore_index=1),
    "sum over one-hot": c("MSELoss", reduction="sum"),
}


def one_hot(loss: dict[str, Any]) -> dict[str, Any]:
    """What else a loss that compares numbers needs of a classification."""
    return {"target_transform": [c("OneHot")]} if loss["type"] == "MSELoss" else {}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_accumulated_batches_step_as_one_large_batch_does(tmp_path: Path, loss: dict[str, Any]) -> None:
    """24 rows: a window of 7 + 7 and one of 7 + 3, against batches of 14 and 10."""
    spec = {"loss": loss, "optimizer": c("SGD", lr=0.01)} | one_hot(loss)
    small = trained(tmp_path / "a", with_trainer(batch_size=7, accumulate=2) | spec)
    large = trained(tmp_path / "b", with_trainer(batch_size=14) | spec)
    assert_close(small, large)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_batch_in_pieces_steps_as_the_whole_does(tmp_path: Path, loss: dict[str, Any]) -> None:
    spec = with_trainer() | {"loss": loss, "optimizer": c("SGD", lr=0.01)} | one_hot(loss)
    _, training, cursor = attempt(tmp_path / "a", spec).begin()
    for _ in trainer.fit(dataclasses.replace(training, pieces=3), cursor):
        pass
    assert_close(artifacts.plain_state_dict(training.net), trained(tmp_path / "b", spec))


def test_clipped_gradients_are_those_of_a_loop_by_hand(tmp_path: Path) -> None:
    _, training, _ = attempt(tmp_path / "a", with_trainer(epochs=1)).begin()
    net = training.net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for batch in training.train.of_epoch(0):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(*batch.inputs), batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        optimizer.step()
    ours = trained(tmp_path / "b", with_trainer(epochs=1, clip_grad_norm=0.05))
    assert_close(ours, artifacts.plain_state_dict(net), tolerance=0)


def test_an_average_follows_the_formula_and_is_what_is_served(tmp_path: Path) -> None:
    """average = decay * average + (1 - decay) * weights, begun at the weights of the first step."""
    _, training, cursor = attempt(tmp_path, with_trainer(ema={"decay": 0.8})).begin()
    average: dict[str, Tensor] = {}
    for report in trainer.fit(training, cursor):
        if isinstance(report, Stepped):
            weights = artifacts.plain_state_dict(training.net)
            average = {
                name: 0.8 * average[name] + 0.2 * tensor if average else tensor
                for name, tensor in weights.items()
            }
    assert_close(artifacts.plain_state_dict(training.served), average)
    assert training.served is not training.net


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_fp32_learns(tmp_path: Path, precision: str) -> None:
    def loss_of(words: dict[str, Any]) -> float:
        _, training, cursor = attempt(
            tmp_path / words["precision"], with_trainer(epochs=20, deterministic=False, **words)
        ).begin()
        assert (training.autocast is not None) == (words["precision"] != "fp32")
        return [r.metrics["train_loss"] for r in trainer.fit(training, cursor) if isinstance(r, EpochEnded)][
            -1
        ]

    assert loss_of({"precision": precision}) == pytest.approx(loss_of({"precision": "fp32"}), abs=0.05)


def test_a_training_that_gets_no_better_stops_early(tmp_path: Path) -> None:
    spec = with_trainer(epochs=50, early_stopping={"patience": 3}) | {"optimizer": c("SGD", lr=1e-12)}
    spec["trainer"]["early_stopping"]["min_delta"] = 1e-3
    _, training, cursor = attempt(tmp_path, spec).begin()
    epochs = [report for report in trainer.fit(training, cursor) if isinstance(report, EpochEnded)]
    assert len(epochs) == 4  # the first sets what the three after it have to beat
    assert cursor.ended is not None
    assert cursor.ended.startswith("early_stopping: val_loss")


def test_max_steps_ends_in_the_middle_of_an_epoch_measured(tmp_path: Path) -> None:
    steps_an_epoch = ROWS // BATCH
    _, training, cursor = attempt(tmp_path, with_trainer(epochs=9, max_steps=steps_an_epoch + 2)).begin()
    reports = list(trainer.fit(training, cursor))
    assert (cursor.step, cursor.epoch, cursor.batch) == (steps_an_epoch + 2, 1, 2)
    assert isinstance(reports[-1], EpochEnded)
    assert "val_loss" in reports[-1].metrics
    assert cursor.ended == f"max_steps: {steps_an_epoch + 2} steps are done"
    assert list(trainer.fit(training, cursor)) == [], "what has ended goes no further"


def test_max_seconds_counts_all_attempts(tmp_path: Path) -> None:
    _, training, cursor = attempt(tmp_path, with_trainer(epochs=10**6, max_seconds=0.5)).begin()
    cursor.seconds = 0.45
    steps = sum(isinstance(report, Stepped) for report in trainer.fit(training, cursor))
    assert steps > 0
    assert 0.5 <= cursor.seconds < 5
    assert cursor.ended is not None
    assert cursor.ended.startswith("max_seconds")


def test_a_training_goes_on_from_any_step_to_the_same_bits(tmp_path: Path) -> None:
    spec = WHOLE | {
        "trainer": WHOLE["trainer"] | {"batch_size": 5, "deterministic": False, "precision": "fp32"}
    }
    unbroken, metrics, steps = run_to_the_end(begun(tmp_path / "unbroken", spec))
    assert steps == 9
    for stop in range(1, steps + 1):
        training, cursor = begun(tmp_path / f"{stop}", spec)
        for _ in trainer.fit(training, cursor):
            if cursor.step == stop:
                break
        weights = artifacts.plain_state_dict(training.served)
        state = artifacts.copied(progress.state_of(training, cursor))
        torch.save(state, tmp_path / "state.pt")
        torch.manual_seed(99)  # another process, where something else was drawn

        training, _ = begun(tmp_path / f"{stop}", spec)
        training.net.load_state_dict(weights)
        cursor = progress.restore(training, torch.load(tmp_path / "state.pt", weights_only=True))
        ours, later, _ = run_to_the_end((training, cursor))
        assert later == metrics[len(metrics) - len(later) :]
        for name, tensor in unbroken.items():
            assert torch.equal(ours[name], tensor), (stop, name)


def begun(folder: Path, spec: dict[str, Any]) -> tuple[Training, Cursor]:
    _, training, cursor = attempt(folder, spec, IMAGES).begin()
    return training, cursor


def run_to_the_end(of: tuple[Training, Cursor]) -> tuple[dict[str, Tensor], list[dict[str, float]], int]:
    training, cursor = of
    reports = list(trainer.fit(training, cursor))
    metrics = [report.metrics for report in reports if isinstance(report, EpochEnded)]
    state = artifacts.copied({"net": training.net.state_dict(), "served": training.served.state_dict()})
    flat = {f"{part}.{name}": tensor for part, found in state.items() for name, tensor in found.items()}
    return flat, metrics, cursor.step


class Narrow(nn.Module):
    """A net on a device with room for so many rows."""

    def __init__(self, net: nn.Module, rows: int) -> None:
        super().__init__()
        self.net, self.rows = net, rows

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        answer: Tensor = self.net(x)
        return answer


def running(folder: Path, rows: int) -> tuple[Running, FakeLink]:
    ready = attempt(folder, with_trainer(epochs=2))
    data, training, cursor = ready.begin()
    training = dataclasses.replace(training, net=Narrow(training.net, rows))
    (folder / "scratch").mkdir()
    link = FakeLink()
    board = Board("", ready.order.spec, cursor, print)
    found = Running(link, ready.spec, ready.resolved, training, cursor, data, folder / "scratch", board)
    return found, link


def test_a_batch_too_large_for_the_device_goes_through_in_pieces(tmp_path: Path) -> None:
    found, link = running(tmp_path, rows=3)
    found.follow({}, 0.0)
    noted = link.all(Noted)
    assert [report.data["rows_at_once"] for report in noted] == [4, 2]
    assert {report.type for report in noted} == {"out_of_memory"}
    narrow = found.training.net
    assert isinstance(narrow, Narrow)
    assert_close(artifacts.plain_state_dict(narrow.net), trained(tmp_path / "whole", with_trainer(epochs=2)))
    assert torch.load(link.last(Saved).state.path, weights_only=True)["pieces"] == 4


def test_an_optimizer_without_room_is_not_tried_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = running(tmp_path, rows=BATCH)

    def step() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(found.training.optimizer, "step", step)
    with pytest.raises(NoRoom):
        found.follow({}, 0.0)
    assert found.training.pieces == 1


def test_a_row_too_large_for_the_device_is_out_of_memory(tmp_path: Path) -> None:
    found, _ = running(tmp_path, rows=0)
    with pytest.raises(torch.OutOfMemoryError):
        found.follow({}, 0.0)
    assert found.training.pieces == BATCH
