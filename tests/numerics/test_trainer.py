"""The training loop against a PyTorch loop written by hand, to the bit; and resumed against unbroken."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from sklearn.metrics import mean_squared_error, r2_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau, StepLR

from core.nets import artifacts
from core.nets.freezing import Freezing, trained_names
from core.nets.measures import MEASURES, measuring
from core.nets.readout import Readout
from core.nets.transforms import Pipeline, resolve
from modelyard.specs.jobspec import Unfreeze
from workers import evaluating, progress, trainer
from workers.batches import Batches
from workers.cursor import Cursor, NonFiniteLoss, require_finite
from workers.limits import Limits
from workers.trainer import EpochEnded
from workers.training import Training

# N rows, B rows in the batch, C classes

CPU = torch.device("cpu")
ROWS, BATCH, EPOCHS = 44, 8, 3
STEPS = math.ceil(ROWS / BATCH)  # an epoch's, the last of them of 4 rows


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over threads differ in the last bit; a job fixes its number of threads, and so does this."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Dropout(0.25), nn.Linear(12, 3))


def cnn() -> nn.Module:
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(convolution, nn.Flatten(), nn.Dropout(0.25), nn.Linear(16, 3))


def sgd(net: nn.Module) -> Optimizer:
    return SGD(net.parameters(), lr=0.05, momentum=0.9)


def adamw(net: nn.Module) -> Optimizer:
    return AdamW(net.parameters(), lr=0.01)


def no_schedule(_optimizer: Optimizer) -> None:
    return None


def per_epoch(optimizer: Optimizer) -> LRScheduler:
    return StepLR(optimizer, step_size=1, gamma=0.5)


def per_step(optimizer: Optimizer) -> LRScheduler:
    return CosineAnnealingLR(optimizer, T_max=STEPS * EPOCHS)


Interval = Literal["epoch", "step"]
Recipe = tuple[Callable[[], nn.Module], Callable[[nn.Module], Optimizer], Callable[..., Any], Interval]

RECIPES: dict[str, Recipe] = {
    "MLP, SGD with momentum": (mlp, sgd, no_schedule, "epoch"),
    "CNN with batch norm, AdamW, StepLR by epoch": (cnn, adamw, per_epoch, "epoch"),
    "CNN with batch norm, AdamW, cosine by step": (cnn, adamw, per_step, "step"),
}


@pytest.fixture(params=list(RECIPES.values()), ids=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    found: Recipe = request.param
    return found


def images() -> tuple[Tensor, Tensor]:
    """uint8 [N, 1, 6, 6] and classes [N] that can be learned: the class is a bright row."""
    random = torch.Generator().manual_seed(0)
    classes_N = torch.randint(0, 3, (ROWS,), generator=random)
    pixels = torch.randint(0, 100, (ROWS, 1, 6, 6), generator=random, dtype=torch.uint8)
    pixels[torch.arange(ROWS), 0, classes_N * 2] += 120
    return pixels, classes_N


def training_of(recipe: Recipe, seed: int = 5, epochs: int = EPOCHS) -> Training:
    make_net, make_optimizer, make_scheduler, interval = recipe
    pixels, classes_N = images()
    torch.manual_seed(seed)
    net = make_net()
    optimizer = make_optimizer(net)
    augment = Pipeline.from_spec(resolve([{"type": "RandomHorizontalFlip", "p": 0.5}]))
    plain = Pipeline.from_spec(resolve([]))
    every_row = torch.arange(ROWS)
    return Training(
        net=net,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=make_scheduler(optimizer),
        interval=interval,
        train=Batches((pixels,), classes_N, every_row, augment, BATCH, 9, CPU, shuffle=True),
        validation=Batches((pixels,), classes_N, every_row, plain, 10, 0, CPU),
        measures=MEASURES["classification"],
        limits=Limits(epochs),
        device=CPU,
        autocast=None,
    )


def run(training: Training, cursor: Cursor, stop: Callable[[Any], bool] | None = None) -> list[Any]:
    """The epochs' metrics, until `stop` says so of a report or all epochs are done."""
    epochs = []
    for report in trainer.fit(training, cursor):
        if isinstance(report, EpochEnded):
            epochs.append(report.metrics)
        if stop is not None and stop(report):
            break
    return epochs


def start(recipe: Recipe) -> tuple[Training, Cursor]:
    """Always the same weights, and the same state of the generator that dropout draws from."""
    training = training_of(recipe)
    torch.manual_seed(31)
    return training, Cursor()


def save(training: Training, cursor: Cursor, folder: Path) -> None:
    artifacts.save(artifacts.plain_state_dict(training.net), folder / "weights.pt")
    artifacts.save(progress.state_of(training, cursor), folder / "state.pt")


def resume(recipe: Recipe, folder: Path) -> tuple[Training, Cursor]:
    """As a fresh process does, whose weights and generator are others."""
    training = training_of(recipe, seed=4321)
    training.net.load_state_dict(artifacts.load(folder / "weights.pt"))
    torch.manual_seed(777)
    return training, progress.restore(training, artifacts.load(folder / "state.pt"))


def by_hand(training: Training) -> tuple[nn.Module, list[float]]:
    """What anyone would write, over the same batches: trains the net, returns it with each epoch's loss."""
    net, optimizer, scheduler = training.net, training.optimizer, training.scheduler
    losses = []
    for epoch in range(training.limits.epochs):
        net.train()
        total = 0.0
        for batch in training.train.of_epoch(epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(*batch.inputs), batch.targets)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()
            total += loss.item() * len(batch.targets)
            if scheduler is not None and training.interval == "step":
                scheduler.step()
        if scheduler is not None and training.interval == "epoch":
            scheduler.step()
        losses.append(total / ROWS)
    return net, losses


def assert_equal_to_the_bit(first: Any, second: Any) -> None:
    """Tensors, and what holds tensors."""
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_equal_to_the_bit(value, second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_equal_to_the_bit(one, other)
    else:
        assert first == second


def test_fit_gives_the_weights_of_a_loop_written_by_hand_to_the_bit(recipe: Recipe) -> None:
    ours, cursor = start(recipe)
    metrics = run(ours, cursor)
    theirs, _ = start(recipe)
    net, losses = by_hand(theirs)
    assert_equal_to_the_bit(ours.net.state_dict(), net.state_dict())
    assert_equal_to_the_bit(ours.optimizer.state_dict(), theirs.optimizer.state_dict())
    assert [epoch["train_loss"] for epoch in metrics] == pytest.approx(losses, rel=1e-12)
    assert losses[-1] < losses[0]
    assert (cursor.epoch, cursor.batch, cursor.step) == (EPOCHS, 0, STEPS * EPOCHS)


def test_dropout_draws_from_the_generator_that_the_state_keeps(recipe: Recipe) -> None:
    first, cursor = start(recipe)
    run(first, cursor)
    second, cursor = start(recipe)
    torch.manual_seed(32)
    run(second, cursor)
    parameters = zip(first.net.parameters(), second.net.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in parameters)


# Resumed between an epoch's last step and the schedule's: torch cannot know of the steps before.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("broken_at", [1, STEPS - 1, STEPS, STEPS + 3])
def test_a_run_broken_at_a_step_and_resumed_from_files_equals_an_unbroken_one_to_the_bit(
    recipe: Recipe, broken_at: int, tmp_path: Path
) -> None:
    unbroken, cursor = start(recipe)
    expected = run(unbroken, cursor)
    broken, cursor = start(recipe)
    before = run(broken, cursor, stop=lambda _report: cursor.step == broken_at)
    save(broken, cursor, tmp_path)
    resumed, cursor = resume(recipe, tmp_path)
    after = run(resumed, cursor)
    assert_equal_to_the_bit(resumed.net.state_dict(), unbroken.net.state_dict())
    assert_equal_to_the_bit(progress.state_of(resumed, cursor)["optimizer"], unbroken.optimizer.state_dict())
    assert before + after == expected
    assert (cursor.epoch, cursor.step) == (EPOCHS, STEPS * EPOCHS)


def test_a_run_broken_after_an_epoch_and_resumed_equals_an_unbroken_one_to_the_bit(
    recipe: Recipe, tmp_path: Path
) -> None:
    unbroken, cursor = start(recipe)
    expected = run(unbroken, cursor)
    broken, cursor = start(recipe)
    before = run(broken, cursor, stop=lambda report: isinstance(report, EpochEnded))
    save(broken, cursor, tmp_path)
    resumed, cursor = resume(recipe, tmp_path)
    after = run(resumed, cursor)
    assert len(before) == 1
    assert before + after == expected
    assert_equal_to_the_bit(resumed.net.state_dict(), unbroken.net.state_dict())


def test_saving_at_every_report_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    quiet, cursor = start(recipe)
    run(quiet, cursor)
    saving, cursor = start(recipe)
    for _ in trainer.fit(saving, cursor):
        save(saving, cursor, tmp_path)
    assert_equal_to_the_bit(saving.net.state_dict(), quiet.net.state_dict())


def test_the_schedule_has_been_stepped_once_an_epoch_or_once_a_step() -> None:
    by_epoch, cursor = start(RECIPES["CNN with batch norm, AdamW, StepLR by epoch"])
    run(by_epoch, cursor)
    assert by_epoch.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**EPOCHS)
    by_step, cursor = start(RECIPES["CNN with batch norm, AdamW, cosine by step"])
    run(by_step, cursor, stop=lambda _report: cursor.step == STEPS)
    # Loshchilov and Hutter 2017, eq. 5, with a third of the schedule behind.
    assert by_step.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 + math.cos(math.pi / 3)) / 2)


def test_a_last_batch_that_is_smaller_counts_by_its_rows(recipe: Recipe) -> None:
    training, _ = start(recipe)
    pixels, classes_N = images()
    training.net.eval()
    with torch.no_grad():
        outputs_NC = training.net(pixels.float() / 255)
        expected = F.cross_entropy(outputs_NC.double(), classes_N).item()
    for batch_size in (1, 10, 43, 44, 100):
        batches = dataclasses.replace(training.validation, batch_size=batch_size)
        values = evaluating.evaluate(training, batches, "val")
        assert values["val_loss"] == pytest.approx(expected, rel=1e-6)
        assert values["val_accuracy"] == (outputs_NC.argmax(dim=1) == classes_N).double().mean().item()


def test_a_loss_that_is_summed_is_reported_as_the_mean_over_rows() -> None:
    training, cursor = start(RECIPES["MLP, SGD with momentum"])
    mean = evaluating.evaluate(training, training.validation, "val")["val_loss"]
    summing = dataclasses.replace(training, loss=nn.CrossEntropyLoss(reduction="sum"))
    assert evaluating.evaluate(summing, training.validation, "val")["val_loss"] == pytest.approx(
        mean, rel=1e-6
    )
    still = dataclasses.replace(summing, optimizer=SGD(training.net.parameters(), lr=0.0), limits=Limits(1))
    frozen = dataclasses.replace(still, net=training.net.apply(without_dropout), train=training.validation)
    (metrics,) = run(frozen, cursor)
    assert metrics["train_loss"] == pytest.approx(mean, rel=1e-6)


def without_dropout(module: nn.Module) -> None:
    if isinstance(module, nn.Dropout):
        module.p = 0.0


def test_a_regression_compares_row_by_row_where_targets_lack_the_last_axis() -> None:
    random = torch.Generator().manual_seed(2)
    inputs, targets = torch.randn(30, 4, generator=random), torch.randn(30, generator=random)
    net = nn.Linear(4, 1)
    batches = Batches((inputs,), targets, torch.arange(30), None, 7, 0, CPU)
    optimizer = SGD(net.parameters(), lr=0.1)
    measures = measuring("regression", Readout("none"), ["r2", "mae"])
    parts = (net, nn.MSELoss(), optimizer, None, "epoch", batches, batches, measures, Limits(1), CPU, None)
    training = Training(*parts)
    given = evaluating.evaluate(training, batches, "val")
    outputs = net(inputs).detach()[:, 0]
    assert given["val_loss"] == pytest.approx(mean_squared_error(targets, outputs), rel=1e-6)
    assert given["val_r2"] == pytest.approx(r2_score(targets, outputs), rel=1e-6)
    (metrics,) = run(training, Cursor())
    assert metrics["val_loss"] < given["val_loss"]


def test_a_loss_that_is_no_number_ends_the_run_and_says_where() -> None:
    training, cursor = start(RECIPES["MLP, SGD with momentum"])
    training.optimizer.param_groups[0]["lr"] = 1e30
    with pytest.raises(NonFiniteLoss, match=rf"in epoch 1, by step {STEPS}"):
        run(training, cursor)


def test_a_step_without_a_report_is_found_non_finite_when_asked() -> None:
    training, cursor = start(RECIPES["MLP, SGD with momentum"])
    run(training, cursor, stop=lambda _report: cursor.step == 2)
    assert require_finite(cursor) == cursor.train_loss
    cursor.loss_sum += float("inf")
    with pytest.raises(NonFiniteLoss, match="by step 2"):
        require_finite(cursor)


def test_the_net_trains_again_after_it_was_evaluated() -> None:
    training, cursor = start(RECIPES["CNN with batch norm, AdamW, StepLR by epoch"])
    reports = trainer.fit(training, cursor)
    while not isinstance(next(reports), EpochEnded):
        pass
    assert not training.net.training
    next(reports)
    assert training.net.training


FINE_TUNED = Freezing([r"0\..*"], [Unfreeze(r"0\.1\..*", 1), Unfreeze(r"0\.0\.weight", 2)])


def fine_tuning(seed: int = 5) -> Training:
    """The convolution and its batch norm are frozen; the norm thaws in epoch 1, the convolution in epoch 2,
    but for its bias, which never trains."""
    training = training_of(RECIPES["CNN with batch norm, AdamW, cosine by step"], seed, epochs=4)
    named = dict(training.net.named_parameters())
    ever = trained_names(FINE_TUNED, named, 4)
    optimizer = SGD([named[name] for name in ever], lr=0.05, momentum=0.9, weight_decay=0.01)
    schedule = CosineAnnealingLR(optimizer, T_max=STEPS * 4)
    return dataclasses.replace(training, optimizer=optimizer, scheduler=schedule, freezing=FINE_TUNED)


def test_what_is_frozen_thaws_in_its_epoch_as_in_a_loop_written_by_hand() -> None:
    ours = fine_tuning()
    torch.manual_seed(31)
    run(ours, Cursor())

    theirs = fine_tuning()
    net, optimizer, schedule = theirs.net, theirs.optimizer, theirs.scheduler
    assert isinstance(net, nn.Sequential)
    assert schedule is not None
    convolution, norm = net[0][0], net[0][1]
    torch.manual_seed(31)
    net[0].requires_grad_(False)
    for epoch in range(4):
        net.train()
        if epoch == 0:
            norm.eval()
        if epoch == 1:
            norm.requires_grad_(True)
        if epoch == 2:
            convolution.weight.requires_grad_(True)
        for batch in theirs.train.of_epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(net(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    assert_equal_to_the_bit(ours.net.state_dict(), net.state_dict())
    fresh = fine_tuning().net.state_dict()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, fresh[name])}
    assert changed == set(fresh) - {"0.0.bias"}


@pytest.mark.parametrize("epochs_done", [1, 2, 3])
def test_a_run_broken_beside_a_thaw_and_resumed_equals_an_unbroken_one(
    epochs_done: int, tmp_path: Path
) -> None:
    unbroken = fine_tuning()
    torch.manual_seed(31)
    expected = run(unbroken, Cursor())
    broken, cursor = fine_tuning(), Cursor()
    torch.manual_seed(31)
    before = run(broken, cursor, stop=lambda _report: cursor.epoch == epochs_done)
    save(broken, cursor, tmp_path)
    resumed = fine_tuning(seed=4321)
    resumed.net.load_state_dict(artifacts.load(tmp_path / "weights.pt"))
    after = run(resumed, progress.restore(resumed, artifacts.load(tmp_path / "state.pt")))
    assert before + after == expected
    assert_equal_to_the_bit(resumed.net.state_dict(), unbroken.net.state_dict())
    assert_equal_to_the_bit(resumed.optimizer.state_dict(), unbroken.optimizer.state_dict())


def test_a_frozen_batch_norm_keeps_its_statistics_through_an_epoch() -> None:
    training = fine_tuning()
    before = {name: tensor.clone() for name, tensor in training.net.state_dict().items() if "running" in name}
    run(training, Cursor(), stop=lambda report: isinstance(report, EpochEnded))
    for name, tensor in before.items():
        assert torch.equal(training.net.state_dict()[name], tensor), name


def test_a_plateau_is_told_the_metric_it_monitors() -> None:
    training, cursor = start(RECIPES["MLP, SGD with momentum"])
    seen = []

    class Listening(ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:
            seen.append(metrics)
            super().step(metrics)

    waiting = Listening(training.optimizer, mode="max", patience=0, threshold=2.0, factor=0.5)
    told = run(dataclasses.replace(training, scheduler=waiting, monitor="val_accuracy"), cursor)
    assert seen == [metrics["val_accuracy"] for metrics in told]
    # Nothing can be three times better than the first epoch's, so each one after it halves the rate.
    assert training.optimizer.param_groups[0]["lr"] == 0.05 * 0.5 ** (EPOCHS - 1)
