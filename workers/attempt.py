"""What the child of an attempt does, top to bottom. Preloaded in the fork server: torch is imported here.

The child knows no database, no broker and no key. It gets its order as bytes, sends reports up its
pipe, and dies when the pipe does.
"""

import dataclasses
import errno
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
import torch._dynamo  # the first optimizer imports it anyway, for seconds: here it is paid once
import torchvision  # noqa: F401 - preloaded for the nets and transforms

from core.data.manifest import Manifest
from core.data.targets import resolve_targets
from core.errors import Invalid
from core.nets import artifacts, build, plugins
from core.nets.clock import Clock
from core.nets.freezing import freezing_of, trained_names
from core.nets.measures import measuring
from core.nets.mixing import Mixing
from core.nets.optimization import build_optimizer
from core.nets.plugins import PluginError
from core.nets.pretrained import WeightsMismatch, load_pretrained
from core.nets.readout import readout_of
from core.nets.sampling import order_of
from core.nets.schedules import build_scheduler
from core.nets.starting import initialize
from core.nets.transforms import Pipeline
from modelyard.specs import JobErrorCode, JobSpec
from workers import messages, registration, trainer
from workers.loaders import Batches, Source, open_rows
from workers.messages import (
    AnyCommand,
    AnyReport,
    EpochEnded,
    Failed,
    Order,
    Register,
    Saved,
    Started,
    Stepped,
    Stop,
    Stopped,
    Trained,
)
from workers.registration import Data
from workers.trainer import Cursor, NonFiniteLoss, Training

T = TypeVar("T")

REPORT_EVERY_S = 0.25


def main(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    # The supervisor stops a child over its pipe; a signal to the whole group must not come before that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = Link(connection)
    order = messages.decode_order(payload)
    try:
        Attempt(order, link).run()
    except NoDevice as error:
        link.send(Failed(JobErrorCode.DEVICE_UNAVAILABLE, str(error), "say device: auto or cpu"))
    except PluginError as error:
        hint = "give the service and every worker the same packages and the same MODELYARD_PLUGINS"
        link.send(Failed(JobErrorCode.DEVICE_UNAVAILABLE, str(error), hint))
    except Invalid as error:
        hint = "mend the dataset, or the job's transforms or prepare, and post it again"
        link.send(Failed(JobErrorCode.DATASET_UNAVAILABLE, error.detail, hint))
    except WeightsMismatch as error:
        link.send(Failed(JobErrorCode.WEIGHTS_MISMATCH, str(error), "correct the model's weights"))
    except NonFiniteLoss as error:
        hint = "lower the learning rate, normalise the inputs, or look for bad rows in the dataset"
        link.send(Failed(JobErrorCode.NON_FINITE_LOSS, str(error), hint))
    except (torch.OutOfMemoryError, MemoryError) as error:
        hint = "lower trainer.batch_size, or make the net smaller"
        link.send(Failed(JobErrorCode.OUT_OF_MEMORY, str(error) or "out of memory", hint))
    except OSError as error:
        traceback.print_exc()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = JobErrorCode.STORAGE_FULL if full else JobErrorCode.INTERNAL
        link.send(
            Failed(code, f"{type(error).__name__}: {error}", "free disk space on the worker" if full else "")
        )
    except Exception as error:  # a job's own failure, whatever it is, must reach its owner
        traceback.print_exc()
        link.send(Failed(JobErrorCode.INTERNAL, f"{type(error).__name__}: {error}", ""))


class Link:
    """The pipe to the supervisor. Its end is the child's end: an orphan must not train on a device
    that the lease has given to another."""

    def __init__(self, connection: multiprocessing.connection.Connection) -> None:
        self._connection = connection
        self._commands: queue.Queue[AnyCommand] = queue.Queue()
        self.stop_wanted = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, report: AnyReport) -> None:
        self._connection.send_bytes(messages.encode(report))

    def wait_for_register(self) -> Register | None:
        """None where a Stop came instead."""
        command = self._commands.get()
        return command if isinstance(command, Register) else None

    def _listen(self) -> None:
        try:
            while True:
                command = messages.decode_command(self._connection.recv_bytes())
                if isinstance(command, Stop):
                    self.stop_wanted.set()
                self._commands.put(command)
        except (EOFError, OSError):
            os._exit(1)


class Attempt:
    def __init__(self, order: Order, link: Link) -> None:
        self.order = order
        self.link = link
        self.spec = msgspec.convert(order.spec, JobSpec)
        plugins.load(order.plugins)
        plugins.check(order.spec, order.resolved.get("plugins"))
        self.resolved = order.resolved or resolve(self.spec, order)
        self.device = torch.device(self.resolved["device"])
        self.scratch = Path(order.scratch)
        self.files = {named: Path(path) for named, path in order.uploads.items()}
        self.born = time.monotonic()
        self.stages_ms: dict[str, float] = {}
        self.reported_at = 0.0

    def run(self) -> None:
        torch.set_num_threads(self.resolved["threads"])
        # torch's own default computes convolutions on a GPU in TF32: too coarse for fp32, and for golden
        # answers that a CPU replays within 1e-4.
        torch.backends.cudnn.allow_tf32 = False
        self.scratch.mkdir(parents=True, exist_ok=True)
        data = self.open_data()
        self._mark("data")
        training, cursor = self.build(data)
        self._mark("build")
        if not self.train(training, cursor, data):
            self.link.send(Stopped())
            return
        self.link.send(Trained())
        chosen = self.link.wait_for_register()
        if chosen is None:
            self.link.send(Stopped())
            return
        self.link.send(registration.verify(chosen, self.spec, training, data, self.scratch))

    def open_data(self) -> Data:
        spec, arrow = self.spec, Path(self.order.arrow)
        manifest = msgspec.json.decode(Path(self.order.manifest).read_bytes(), type=Manifest)
        targets = _need(resolve_targets(spec, manifest, [], []))
        eval_transforms = spec.transforms.eval or []
        train = Pipeline.from_spec(spec.transforms.train) if spec.transforms.train else None
        evaluation = Pipeline.from_spec(eval_transforms) if eval_transforms else None
        rows = open_rows(
            Source(
                arrow,
                manifest,
                targets,
                spec.split,
                spec.prepare or [],
                train,
                evaluation,
                Path(self.order.cache),
                self.resolved["threads"],
                self.files,
                spec.trainer.sampler,
            )
        )
        targets = dataclasses.replace(targets, classes=rows.classes)
        readout = readout_of(_need(spec.loss), targets, rows.scaling)
        return Data(arrow, manifest, targets, rows, train, evaluation, readout)

    def build(self, data: Data) -> tuple[Training, Cursor]:
        """Seeds, then builds in the order of a plain script, so that equal seeds give equal weights."""
        spec, trainer_spec = self.spec, self.spec.trainer
        torch.manual_seed(trainer_spec.seed)
        net = build.build_net(spec.model)
        if self.order.resume is None:
            load_pretrained(net, spec.model, self.files, Path(self.order.cache))
            initialize(net, spec.initialize)
        net = net.to(self.device)
        loss = build.build_loss(_need(spec.loss), is_one_hot=data.targets.is_one_hot).to(self.device)
        freezing = freezing_of(spec)
        names = [name for name, _ in net.named_parameters()]
        optimizer = build_optimizer(spec.optimizer, net, trained_names(freezing, names, trainer_spec.epochs))
        has_batch_norm = any(
            isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in net.modules()
        )
        train = Batches(
            data.rows.train_inputs,
            data.rows.targets,
            data.rows.train,
            data.train,
            trainer_spec.batch_size,
            trainer_spec.seed,
            self.device,
            drop_last=trainer_spec.drop_last,
            merge_single=has_batch_norm,
            mixing=Mixing.from_spec(spec.transforms.train, len(data.targets.classes or [])),
            order=order_of(
                trainer_spec.sampler,
                trainer_spec.shuffle,
                trainer_spec.seed,
                len(data.rows.train),
                data.rows.weights,
            ),
        )
        scheduler = spec.scheduler or {}
        training = Training(
            net=net,
            loss=loss,
            optimizer=optimizer,
            scheduler=build_scheduler(spec.scheduler, optimizer, Clock(trainer_spec.epochs, len(train))),
            interval=scheduler.get("interval", "epoch"),
            train=train,
            validation=data.evaluation(data.rows.validation, self.device),
            measures=measuring(data.targets.task, data.readout, spec.metrics),
            epochs=trainer_spec.epochs,
            device=self.device,
            autocast=torch.bfloat16 if self.resolved["precision"] == "bf16" else None,
            freezing=freezing,
            monitor=scheduler.get("monitor", "val_loss"),
        )
        if self.order.resume is None:
            return training, Cursor()
        net.load_state_dict(artifacts.load(Path(self.order.resume.weights)))
        return training, trainer.restore(training, artifacts.load(Path(self.order.resume.state)))

    def train(self, training: Training, cursor: Cursor, data: Data) -> bool:
        """False where a Stop came first."""
        steps = len(training.train) * training.epochs
        policy = self.spec.trainer.checkpoint
        first_step, began = cursor.step, time.monotonic()
        for report in trainer.fit(training, cursor):
            match report:
                case trainer.Stepped():
                    if cursor.step == first_step + 1:
                        self._mark("first_step")
                        self.link.send(
                            Started(self.resolved, cursor.step, steps, time.time(), self.stages_ms)
                        )
                    self._report_now_and_then(training, cursor, cursor.step - first_step, steps, began)
                case trainer.EpochEnded(metrics):
                    self.link.send(EpochEnded(cursor.epoch, cursor.step, metrics))
                    if cursor.epoch % policy.every_epochs == 0 or cursor.epoch == training.epochs:
                        self.save(training, cursor, metrics, data)
            if self.link.stop_wanted.is_set():
                return False
        return True

    def save(self, training: Training, cursor: Cursor, metrics: dict[str, float], data: Data) -> None:
        """Weights and state side by side in scratch; the supervisor makes them durable and commits."""
        state = trainer.state_of(training, cursor)
        state["golden"] = registration.golden_outputs(training, data)
        weights_file = self.scratch / f"{cursor.step}.weights.pt"
        state_file = self.scratch / f"{cursor.step}.state.pt"
        weights = artifacts.save(artifacts.plain_state_dict(training.net), weights_file)
        self.link.send(Saved(cursor.epoch, cursor.step, metrics, weights, artifacts.save(state, state_file)))

    def _report_now_and_then(
        self, training: Training, cursor: Cursor, done: int, steps: int, began: float
    ) -> None:
        now = time.monotonic()
        if now - self.reported_at < REPORT_EVERY_S:
            return
        self.reported_at = now
        per_second = done / max(now - began, 1e-9)
        loss_mean = trainer.require_finite(cursor)
        self.link.send(
            Stepped(
                epoch=cursor.epoch,
                step=cursor.step,
                metrics={"train_loss": loss_mean},
                samples_per_second=per_second * training.train.batch_size,
                eta_seconds=(steps - cursor.step) / per_second,
            )
        )

    def _mark(self, stage: str) -> None:
        self.stages_ms[stage] = round((time.monotonic() - self.born) * 1000, 1)


class NoDevice(Exception):
    """The worker lacks the device that the spec names."""


def resolve(spec: JobSpec, order: Order) -> dict[str, Any]:
    """What the first claim fixes and every later attempt repeats."""
    wants_gpu = spec.trainer.device == "cuda" or (spec.trainer.device == "auto" and order.use_gpu)
    if spec.trainer.device == "cuda" and not torch.cuda.is_available():
        raise NoDevice("trainer.device is cuda, and this worker sees no GPU")
    device = "cuda" if wants_gpu and torch.cuda.is_available() else "cpu"
    precision = spec.trainer.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return {
        "device": device,
        "precision": precision,
        "threads": order.threads,
        "memory_format": "contiguous",
        "compile": False,
        "fused": False,
        "seed": spec.trainer.seed,
        "torch": str(torch.__version__),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "plugins": plugins.used_by(order.spec),
    }


def _need(value: T | None) -> T:
    """The queued spec was checked and has every default filled in; this keeps the type checker honest."""
    if value is None:
        raise ValueError("the spec in the queue was not resolved against its dataset")
    return value
