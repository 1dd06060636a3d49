"""What the pages on jobs say holds: each piece of JSON plans, or is refused in the words that stand under it,
and the Python beside it makes the same net, loss, optimizer, schedule, transforms and metrics, or trains the
same weights."""

import copy
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torchmetrics.classification
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision import models
from torchvision.transforms import v2

from core.data.splits import set_aside
from core.data.targets import Targets, resolve_targets
from core.data.tasks import PAIR_LOSSES
from core.errors import Invalid
from core.nets import registry
from core.nets.balance import training_counts
from core.nets.build import build_loss, build_net
from core.nets.clock import Clock
from core.nets.freezing import begin_epoch, freezing_of
from core.nets.intake import resolve_intake
from core.nets.joint import JointOptimizer
from core.nets.measures import TorchMetric
from core.nets.objective import meet
from core.nets.optimization import build_optimizer
from core.nets.plan import Checked, Source, check
from core.nets.readout import readout_of
from core.nets.schedules import build_scheduler
from core.nets.starting import initialize
from core.nets.transforms import Pipeline
from modelyard.specs import JobSpec, Layer, Plan
from modelyard.specs.jobspec import (
    CheckpointPolicy,
    EarlyStopping,
    Ema,
    Split,
    Trainer,
    Transforms,
    Unfreeze,
)
from tests.jobs_page import DATASETS, PAGES, Piece, pieces
from workers.building import build_training
from workers.crew import Crew
from workers.cursor import Cursor
from workers.loaders import Rows
from workers.messages import Order
from workers.registration import Data
from workers.resolving import resolve
from workers.trainer import EpochEnded, fit
from workers.training import Training

ALL = list(pieces())
ROWS = 4
SEED = 1729
#: They change the net that is there.
BY_FIELD = ("initialize", "freeze")

ACCEPTED = [piece for piece in ALL if not piece.is_refused]
REFUSED = [piece for piece in ALL if piece.is_refused]
BESIDE_PYTHON = [piece for piece in ACCEPTED if piece.python]


def name_of(piece: Piece) -> str:
    return piece.name


def planned(piece: Piece) -> Checked:
    return check(copy.deepcopy(piece.job), Source("d@1", piece.manifest))


def test_the_pages_have_pieces_of_each_kind() -> None:
    assert {piece.dataset for piece in ACCEPTED} == set(DATASETS)
    assert {piece.page for piece in ALL} == set(PAGES)
    assert REFUSED
    assert BESIDE_PYTHON


@pytest.mark.parametrize("piece", ACCEPTED, ids=name_of)
def test_a_piece_of_the_page_plans_with_the_warning_under_it(piece: Piece) -> None:
    warnings = planned(piece).plan.warnings
    assert warnings == ([piece.says] if piece.says else [])


@pytest.mark.parametrize("piece", REFUSED, ids=name_of)
def test_a_refused_piece_is_refused_in_the_words_under_it(piece: Piece) -> None:
    with pytest.raises(Invalid) as caught:
        planned(piece)
    assert [f"{error.pointer}: {error.message}" for error in caught.value.errors] == [piece.says]


class Ours:
    """A piece of JSON and what our code makes of it."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        checked = planned(piece)
        self.resolved = checked.spec
        self.spec = msgspec.convert(checked.spec, JobSpec)
        self.clock = Clock(self.spec.trainer.epochs, checked.plan.steps_per_epoch)
        targets = resolve_targets(self.spec, piece.manifest, [], [])
        assert targets is not None
        self.targets: Targets = targets
        self.counts = training_counts(targets, piece.manifest)
        intake = resolve_intake(self.spec, targets, piece.manifest, [])
        assert intake is not None
        self.inputs = tuple(
            torch.randint(each.num_tokens, (ROWS, *each.shape))
            if each.num_tokens
            else torch.rand(ROWS, *each.shape)
            for each in intake.inputs
        )
        self.net = build_net(self.resolved["model"]).eval()
        self.first = copy.deepcopy(self.net)

    def names(self) -> dict[str, Any]:
        """What the Python of the page takes for granted."""
        modules = {"torch": torch, "nn": nn, "F": F, "v2": v2, "models": models, "lr_scheduler": lr_scheduler}
        averages = {"AveragedModel": AveragedModel, "get_ema_multi_avg_fn": get_ema_multi_avg_fn}
        optimizer = build_optimizer(self.resolved["optimizer"], self.net)
        return (
            modules
            | averages
            | vars(torchmetrics.classification)
            | {
                "net": self.net,
                "loss": build_loss(self.resolved["loss"], is_one_hot=self.targets.is_one_hot),
                "optimizer": optimizer,
                "scheduler": build_scheduler(self.resolved["scheduler"], optimizer, self.clock),
                "windows": self.windows,
                "validate": self.validate,
                "epochs": self.clock.epochs,
                "steps_per_epoch": self.clock.steps_per_epoch,
                "count": torch.tensor(self.counts or [], dtype=torch.float32),
            }
        )

    @cached_property
    def training(self) -> Training:
        """Of images made up, from the first weights on."""
        pictures = torch.Generator().manual_seed(SEED)
        manifest, spec = self.piece.manifest, self.spec
        pixels = torch.randint(256, (manifest.num_samples, 3, 32, 32), dtype=torch.uint8, generator=pictures)
        labels = torch.randint(10, (manifest.num_samples,), generator=pictures)
        train, validation = map(
            torch.from_numpy, set_aside(manifest, spec.split, labels[:1000].numpy(), None)
        )
        pipelines = [Pipeline.from_spec(self.resolved["transforms"][name]) for name in ("train", "eval")]
        nowhere = Path()
        readout = readout_of(self.resolved["loss"], self.targets, None)
        rows = Rows((pixels,), (pixels,), labels, train, validation, torch.arange(0), [])
        data = Data(nowhere, manifest, self.targets, rows, *pipelines, readout)
        order = Order("j", 1, self.resolved, "", "", "", "", torch.get_num_threads(), False, {}, None)
        net = copy.deepcopy(self.first)
        return build_training(net, spec, resolve(spec, order, net), data, Crew())

    def windows(self, epoch: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        window = []
        for batch in self.training.train.of_epoch(epoch):
            window.append((*batch.inputs, batch.targets))
            if batch.ends_step:
                yield window
                window = []

    def validate(self, net: nn.Module) -> float:
        """By torch alone."""
        net.eval()
        loss_sum, rows = 0.0, 0
        with torch.no_grad():
            for batch in self.training.validation.in_order():
                loss_sum += F.cross_entropy(net(*batch.inputs), batch.targets, reduction="sum").item()
                rows += batch.rows
        return loss_sum / rows

    def target(self) -> Tensor:
        if self.targets.task == "classification":
            return torch.randint(len(self.targets.classes or []), (ROWS,))
        answers = torch.rand(ROWS, len(self.targets.names))
        if self.spec.loss is not None and self.spec.loss["type"] in PAIR_LOSSES:
            return (answers > 0.5).float() * 2 - 1
        return (answers > 0.5).float() if self.targets.task == "multilabel" else answers


def same_net(job: Ours, made: dict[str, Any]) -> None:
    theirs: nn.Module = made["net"]
    theirs.load_state_dict(job.net.state_dict())  # every name and shape, or it raises
    if "forward" not in made:
        assert torch.equal(theirs.eval()(*job.inputs), job.net(*job.inputs))


def same_forward(job: Ours, made: dict[str, Any]) -> None:
    if "net" in made:
        made["net"].eval()
    theirs, ours = made["forward"](*job.inputs), job.net(*job.inputs)
    several = zip(theirs, ours, strict=True) if isinstance(ours, tuple) else [(theirs, ours)]
    assert all(torch.equal(their, our) for their, our in several)


def same_part(job: Ours, made: dict[str, Any]) -> None:
    shapes = shapes_of(made["encoder"])
    assert any(
        type(part) is type(made["encoder"]) and shapes_of(part) == shapes for part in job.net.modules()
    )


def shapes_of(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def same_loss(job: Ours, made: dict[str, Any]) -> None:
    outputs = job.net(*job.inputs)
    target = meet(outputs, job.target())
    ours = build_loss(job.resolved["loss"], is_one_hot=job.targets.is_one_hot)
    assert torch.equal(made["loss"](outputs, target), ours(outputs, target))


def same_optimizer(job: Ours, made: dict[str, Any]) -> None:
    theirs = made["optimizer"] if isinstance(made["optimizer"], list) else [made["optimizer"]]
    ours = build_optimizer(job.resolved["optimizer"], job.net)
    parts = ours.optimizers if isinstance(ours, JointOptimizer) else [ours]
    assert [type(part) for part in theirs] == [type(part) for part in parts]
    assert [said(group) for part in theirs for group in part.param_groups] == [
        said(group) for group in ours.param_groups
    ]


def said(group: dict[str, Any]) -> dict[str, Any]:
    return group | {"params": [parameter.shape for parameter in group["params"]]}


def same_rates(job: Ours, made: dict[str, Any]) -> None:
    optimizer = build_optimizer(job.resolved["optimizer"], job.net)
    schedule = job.resolved["scheduler"]
    ours = build_scheduler(schedule, optimizer, job.clock)
    assert ours is not None
    rates: list[list[float]] = [[], []]
    for found, scheduler in zip(rates, (made["scheduler"], ours), strict=True):
        scheduler.optimizer.step()
        for _ in range(job.clock.total(schedule["interval"]) - 1):
            found.append(scheduler.optimizer.param_groups[0]["lr"])
            scheduler.step(*[0.5] * (schedule["type"] == "ReduceLROnPlateau"))
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)


def same_transforms(job: Ours, made: dict[str, Any]) -> None:
    resolved = job.resolved["transforms"]["train"]
    ours = [registry.construct("transform", component) for component in resolved]
    ends = []
    for transforms in (made["train"], ours):
        torch.manual_seed(SEED)
        images = torch.arange(ROWS * 3 * 32 * 32).reshape(ROWS, 3, 32, 32).to(torch.uint8)
        labels = torch.arange(ROWS)
        for transform in transforms:
            images, labels = transform(images, labels)
        ends.append((images, labels))
    assert all(torch.equal(theirs, own) for theirs, own in zip(*ends, strict=True))


def same_metrics(job: Ours, made: dict[str, Any]) -> None:
    theirs = {type(metric).__name__: metric for metric in made["metrics"]}
    components = [metric for metric in job.resolved["metrics"] if not isinstance(metric, str)]
    assert [component["type"] for component in components] == list(theirs)
    scores, labels = torch.rand(64, 10).softmax(dim=1), torch.randint(10, (64,))
    for component in components:
        ours = TorchMetric("classification", component, torch.device("cpu"))
        ours.add(scores, labels)
        assert ours.compute() == pytest.approx(theirs[component["type"]](scores, labels).item(), abs=1e-6)


def same_start(job: Ours, made: dict[str, Any]) -> None:
    """The Python has filled the parameters of `job.net`."""
    torch.manual_seed(SEED)
    initialize(job.first, job.resolved["initialize"])
    assert all(torch.equal(a, b) for a, b in zip(job.net.parameters(), job.first.parameters(), strict=True))


def same_frozen(job: Ours, made: dict[str, Any]) -> None:
    begin_epoch(job.first, freezing_of(job.spec), 0)
    assert [p.requires_grad for p in job.net.parameters()] == [
        p.requires_grad for p in job.first.parameters()
    ]


def same_weights(job: Ours, made: dict[str, Any]) -> None:
    """To the bit, after as many steps and epochs."""
    cursor = Cursor()
    epochs = [report for report in fit(job.training, cursor) if isinstance(report, EpochEnded)]
    theirs, ours = made["average"].module.state_dict(), job.training.served.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert cursor.step == made["step"]
    assert epochs[-1].metrics["val_loss"] == pytest.approx(made["val_loss"], rel=1e-6)
    assert (cursor.best, cursor.waited) == (pytest.approx(made["best"], rel=1e-6), made["waited"])


#: By a name that the Python binds, or a field of the JSON.
COMPARISONS: dict[str, Callable[[Ours, dict[str, Any]], None]] = {
    "net": same_net,
    "forward": same_forward,
    "encoder": same_part,
    "loss": same_loss,
    "optimizer": same_optimizer,
    "scheduler": same_rates,
    "train": same_transforms,
    "metrics": same_metrics,
    "average": same_weights,
    "initialize": same_start,
    "freeze": same_frozen,
}


@pytest.mark.parametrize("piece", BESIDE_PYTHON, ids=name_of)
def test_the_python_beside_a_piece_makes_the_same(piece: Piece) -> None:
    job = Ours(piece)
    before = job.names()
    made = dict(before)
    torch.manual_seed(SEED)
    # A test has no network, and these weights change no shape.
    exec(compile(piece.python.replace('weights="DEFAULT"', "weights=None"), piece.name, "exec"), made)
    bound = {name: thing for name, thing in made.items() if before.get(name) is not thing}
    compared = [name for name in COMPARISONS if name in bound or (name in BY_FIELD and name in piece.fields)]
    assert compared, "the Python makes nothing that can be compared"
    for name in compared:
        COMPARISONS[name](job, bound)


@pytest.mark.parametrize(
    "struct",
    [JobSpec, Split, Unfreeze, Transforms, Trainer, CheckpointPolicy, EarlyStopping, Ema, Plan, Layer],
)
def test_every_field_of_a_job_and_of_a_plan_stands_on_a_page(struct: type[msgspec.Struct]) -> None:
    written = set(re.findall(r"[\"`](\w+)[\"`]", "".join(PAGES.values())))
    assert set(struct.__struct_fields__) <= written
