"""What the child of an attempt does, top to bottom. Preloaded in the fork server: torch is imported here.

The child knows no database, no broker and no key. It gets its order as bytes, sends reports up its
pipe, and dies when the pipe does.
"""

import base64
import dataclasses
import errno
import multiprocessing.connection
import os
import queue
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
import torch._dynamo  # the first optimizer imports it anyway, for seconds: here it is paid once
import torchvision  # noqa: F401 - preloaded for the nets and transforms

from core.data.manifest import Kind, Manifest
from core.data.targets import Targets, resolve_targets
from core.nets import artifacts, build
from core.nets.artifacts import Golden, VersionManifest
from core.nets.measures import MEASURES
from core.nets.transforms import Pipeline
from core.predict import Predictor
from core.storage.durable import describe
from modelyard.specs import JobErrorCode, JobSpec, Signature
from modelyard.specs import Tensor as TensorInfo
from workers import messages, trainer
from workers.loaders import Batches, Rows, Source, open_rows, raw_instance
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
    Verified,
)
from workers.trainer import Cursor, NonFiniteLoss, Training

T = TypeVar("T")

GOLDEN_SAMPLES = 16
#: How far the replay of a golden sample may be from what the trained net answered: float32 sums taken
#: in another order differ by a few 1e-6.
TOLERANCE = 1e-4
REPORT_EVERY_S = 0.25


def main(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    link = Link(connection)
    order = messages.decode_order(payload)
    try:
        Attempt(order, link).run()
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


@dataclass(frozen=True)
class Data:
    """The dataset as the spec reads it."""

    arrow: Path
    manifest: Manifest
    targets: Targets
    rows: Rows
    train: Pipeline | None
    eval: Pipeline | None


class Attempt:
    def __init__(self, order: Order, link: Link) -> None:
        self.order = order
        self.link = link
        self.spec = msgspec.convert(order.spec, JobSpec)
        self.resolved = order.resolved or resolve(self.spec, order)
        self.device = torch.device(self.resolved["device"])
        self.scratch = Path(order.scratch)
        self.born = time.monotonic()
        self.stages_ms: dict[str, float] = {}
        self.reported_at = 0.0

    def run(self) -> None:
        torch.set_num_threads(self.resolved["threads"])
        self.scratch.mkdir(parents=True, exist_ok=True)
        data = self.open_data()
        self._mark("data")
        training, cursor = self.build(data)
        self._mark("build")
        if not self.train(training, cursor, data):
            self.link.send(Stopped(cursor.step))
            return
        self.link.send(Trained("every epoch is done"))
        chosen = self.link.wait_for_register()
        if chosen is None:
            self.link.send(Stopped(cursor.step))
            return
        self.register(chosen, training, data)

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
            )
        )
        return Data(arrow, manifest, targets, rows, train, evaluation)

    def build(self, data: Data) -> tuple[Training, Cursor]:
        """Seeds, then builds in the order of a plain script, so that equal seeds give equal weights."""
        spec, trainer_spec = self.spec, self.spec.trainer
        torch.manual_seed(trainer_spec.seed)
        net = build.build_net(spec.model).to(self.device)
        loss = build.build_loss(_need(spec.loss)).to(self.device)
        optimizer = build.build_optimizer(spec.optimizer, net)
        scheduler = build.build_scheduler(spec.scheduler, optimizer)
        has_batch_norm = any(
            isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in net.modules()
        )
        training = Training(
            net=net,
            loss=loss,
            optimizer=optimizer,
            scheduler=scheduler,
            interval=(spec.scheduler or {}).get("interval", "epoch"),
            train=Batches(
                data.rows.train_inputs,
                data.rows.targets,
                data.rows.train,
                data.train,
                trainer_spec.batch_size,
                trainer_spec.seed,
                self.device,
                trainer_spec.shuffle,
                trainer_spec.drop_last,
                merge_single=has_batch_norm,
            ),
            validation=self.batches(data, data.rows.validation),
            measures=MEASURES[data.targets.task],
            epochs=trainer_spec.epochs,
            device=self.device,
            autocast=torch.bfloat16 if self.resolved["precision"] == "bf16" else None,
        )
        if self.order.resume is None:
            return training, Cursor()
        net.load_state_dict(artifacts.load(Path(self.order.resume.weights)))
        return training, trainer.restore(training, artifacts.load(Path(self.order.resume.state)))

    def batches(self, data: Data, index: torch.Tensor) -> Batches:
        size = max(self.spec.trainer.batch_size, 256)  # evaluation keeps no gradients: larger is faster
        rows = data.rows
        return Batches(
            rows.eval_inputs, rows.targets, index, data.eval, size, self.spec.trainer.seed, self.device
        )

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
        state["golden"] = self.golden_outputs(training, data)
        weights_file = self.scratch / f"{cursor.step}.weights.pt"
        state_file = self.scratch / f"{cursor.step}.state.pt"
        weights = artifacts.save(artifacts.plain_state_dict(training.net), weights_file)
        self.link.send(Saved(cursor.epoch, cursor.step, metrics, weights, artifacts.save(state, state_file)))

    def golden_outputs(self, training: Training, data: Data) -> torch.Tensor:
        """[G, C] what the live net answers to the golden rows, over the training's own data path."""
        training.net.eval()
        index = data.rows.validation[:GOLDEN_SAMPLES]
        with torch.inference_mode():
            outputs = torch.cat(
                [training.net(batch.inputs) for batch in self.batches(data, index).in_order()]
            )
            if data.targets.task == "classification":
                outputs = outputs.softmax(dim=1)
        return outputs.reshape(len(index), -1).double().cpu()

    def register(self, chosen: Register, training: Training, data: Data) -> None:
        """The chosen weights, read back from disk through `core.predict`, replay the golden samples."""
        state = artifacts.load(Path(chosen.state))
        manifest = self.version_manifest(state["golden"].tolist(), data)
        path = self.scratch / "manifest.json"
        path.write_bytes(msgspec.json.encode(manifest))
        predictor = Predictor.load(path, Path(chosen.weights))
        test_metrics: dict[str, float] = {}
        if len(data.rows.test):
            # Serving runs in fp32: so is the test split measured.
            served = dataclasses.replace(training, net=predictor.net.to(self.device), autocast=None)
            test_metrics = trainer.evaluate(served, self.batches(data, data.rows.test), "test")
            predictor.net.to("cpu")
        self.link.send(
            Verified(
                manifest=describe(path),
                task=manifest.task,
                signature=msgspec.to_builtins(manifest.signature),
                classes=manifest.classes,
                transforms=manifest.transforms,
                test_metrics=test_metrics,
                difference=min(predictor.replay(), 1e300),
                tolerance=TOLERANCE,
            )
        )

    def version_manifest(self, golden: list[list[float]], data: Data) -> VersionManifest:
        rows = data.rows.validation[: len(golden)].tolist()
        samples = []
        for row, outputs in zip(rows, golden, strict=True):
            instance = raw_instance(data.arrow, data.manifest, data.targets.inputs, row)
            if isinstance(instance, bytes):
                instance = base64.b64encode(instance).decode()
            samples.append(Golden(instance, outputs))
        feature = data.manifest.features[data.targets.inputs[0]]
        is_array = data.manifest.kind is Kind.ARRAYS
        return VersionManifest(
            task=data.targets.task,
            kind=data.manifest.kind,
            model=self.spec.model,
            classes=data.targets.classes,
            transforms=self.spec.transforms.eval or [],
            prepare=data.rows.prepared,
            signature=signature(data, len(golden[0])),
            golden=samples,
            tolerance=TOLERANCE,
            image_mode=data.manifest.image_mode,
            row_shape=list(data.rows.eval_inputs.shape[1:]),
            raw_shape=feature.shape if is_array else None,
            raw_dtype=feature.dtype if is_array else None,
        )

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


def resolve(spec: JobSpec, order: Order) -> dict[str, Any]:
    """What the first claim fixes and every later attempt repeats."""
    wants_gpu = spec.trainer.device == "cuda" or (spec.trainer.device == "auto" and order.use_gpu)
    if spec.trainer.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("trainer.device is cuda, and this worker sees no GPU")
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
    }


def signature(data: Data, num_outputs: int) -> Signature:
    """Inputs as a client sends them, in the words of the Open Inference Protocol; -1 is the batch."""
    features = data.manifest.features
    match data.manifest.kind:
        case Kind.IMAGES:
            inputs = [TensorInfo("input", "UINT8", [-1, *features["image"].shape])]
        case Kind.ARRAYS:
            feature = features[data.targets.inputs[0]]
            inputs = [TensorInfo("input", _datatype(feature.dtype), [-1, *feature.shape])]
        case Kind.TABLE:
            inputs = [TensorInfo(name, _datatype(features[name].dtype), [-1]) for name in data.targets.inputs]
    if data.targets.task == "classification":
        return Signature(
            inputs, [TensorInfo("scores", "FP32", [-1, num_outputs]), TensorInfo("label", "BYTES", [-1])]
        )
    return Signature(inputs, [TensorInfo("value", "FP32", [-1, num_outputs])])


def _datatype(dtype: str) -> str:
    names = {"string": "BYTES", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    return names.get(dtype, dtype.upper())


def _need(value: T | None) -> T:
    """The queued spec was checked and has every default filled in; this keeps the type checker honest."""
    if value is None:
        raise ValueError("the spec in the queue was not resolved against its dataset")
    return value
