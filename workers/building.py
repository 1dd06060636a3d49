"""From a resolved spec to a training: net, loss, optimizer, schedule and batches, in the order of a plain
script, so that equal seeds give equal weights."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core.nets import artifacts, build
from core.nets.clock import Clock
from core.nets.freezing import freezing_of, trained_names
from core.nets.measures import measuring
from core.nets.mixing import Mixing
from core.nets.objective import row_counts
from core.nets.optimization import build_optimizer
from core.nets.pretrained import load_pretrained
from core.nets.sampling import order_of
from core.nets.schedules import build_scheduler
from core.nets.starting import initialize
from modelyard.specs import JobSpec
from workers.batches import Batches
from workers.crew import Crew
from workers.generators import seed_all
from workers.limits import Limits
from workers.messages import Order
from workers.registration import Data
from workers.training import Training

T = TypeVar("T")

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def build_net(spec: JobSpec, order: Order) -> nn.Module:
    """The net on the CPU with its first weights: drawn, pretrained, or those that a fork starts with."""
    seed_all(spec.trainer.seed)
    net = build.build_net(spec.model)
    if order.resume is None:
        files = {named: Path(path) for named, path in order.uploads.items()}
        load_pretrained(net, spec.model, files, Path(order.cache))
        initialize(net, spec.initialize)
    if order.start is not None:
        net.load_state_dict(artifacts.load(Path(order.start)))
    return net


def build_training(
    net: nn.Module, spec: JobSpec, resolved: dict[str, Any], data: Data, crew: Crew
) -> Training:
    """Moves the net to its device. The rest of a resumed training's state is `progress.restore`'s."""
    trainer, device = spec.trainer, torch.device(resolved["device"])
    net = net.to(device).to(memory_format=FORMATS[resolved["memory_format"]])
    loss = build.build_loss(needed(spec.loss), is_one_hot=data.targets.is_one_hot)
    freezing = freezing_of(spec)
    names = [name for name, _ in net.named_parameters()]
    optimizer = build_optimizer(
        _fused(spec.optimizer, resolved), net, trained_names(freezing, names, trainer.epochs)
    )
    train = train_batches(net, spec, resolved, data)
    # Mixed rows have probabilities for classes, and each counts one.
    counts = None if train.mixing is not None else row_counts(loss, data.rows.targets)
    train = dataclasses.replace(train, rank=crew.rank, world=crew.world, counts=counts)
    scheduler = spec.scheduler or {}
    training = Training(
        net=net,
        loss=loss.to(device),
        optimizer=optimizer,
        scheduler=build_scheduler(spec.scheduler, optimizer, Clock(trainer.epochs, train.steps)),
        interval=scheduler.get("interval", "epoch"),
        train=train,
        validation=data.evaluation(data.rows.validation, device),
        measures=measuring(data.targets.task, data.readout, spec.metrics),
        device=device,
        autocast=AUTOCAST.get(resolved["precision"]),
        freezing=freezing,
        monitor=scheduler.get("monitor", "val_loss"),
        scaler=torch.amp.GradScaler(device.type, enabled=resolved["precision"] == "fp16"),
        average=_average(net, spec),
        clip_grad_norm=trainer.clip_grad_norm,
        limits=Limits(trainer.epochs, trainer.max_steps, trainer.max_seconds, trainer.early_stopping),
        crew=crew,
    )
    if resolved["compile"]:
        net.compile()  # in its place: the keys of its state_dict stay
    return training


def train_batches(net: nn.Module, spec: JobSpec, resolved: dict[str, Any], data: Data) -> Batches:
    trainer, rows = spec.trainer, data.rows
    return Batches(
        rows.train_inputs,
        rows.targets,
        rows.train,
        data.train,
        trainer.batch_size,
        trainer.seed,
        torch.device(resolved["device"]),
        drop_last=trainer.drop_last,
        merge_single=any(isinstance(module, _BatchNorm) for module in net.modules()),
        mixing=Mixing.from_spec(spec.transforms.train, len(data.targets.classes or [])),
        order=order_of(trainer.sampler, trainer.shuffle, trainer.seed, len(rows.train), rows.weights),
        accumulate=trainer.accumulate,
        channels_last=resolved["memory_format"] == "channels_last",
        makers=rows.makers,
    )


def needed(value: T | None) -> T:
    """The queued spec was checked and has every default filled in; this keeps the type checker honest."""
    if value is None:
        raise ValueError("the spec in the queue was not resolved against its dataset")
    return value


def _average(net: nn.Module, spec: JobSpec) -> AveragedModel | None:
    """Its buffers (the running statistics of batch norm) are the net's."""
    if spec.trainer.ema is None:
        return None
    mix = get_ema_multi_avg_fn(spec.trainer.ema.decay)  # type: ignore[no-untyped-call] # torch left it untyped
    average = AveragedModel(net, multi_avg_fn=mix)
    return average.requires_grad_(False)


def _fused(optimizer: dict[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """What the spec says itself stays."""
    chosen = [optimizer.get(name) for name in ("fused", "foreach", "capturable", "differentiable")]
    return optimizer | {"fused": True} if resolved["fused"] and not any(chosen) else optimizer
