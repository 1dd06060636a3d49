"""One attempt of a job inside its child, top to bottom: data, net, loop, checkpoints, version."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from core.data.manifest import Manifest
from core.data.targets import resolve_targets
from core.fault_points import reach
from core.nets import artifacts, plugins, products
from core.nets.readout import readout_of
from core.nets.transforms import Pipeline
from modelyard.specs import JobSpec
from workers import diagnosis, progress, registration, suspects
from workers.board.board import Board
from workers.building import build_net, build_training, needed
from workers.crew import join, narrow_gpus
from workers.cursor import Cursor, NonFiniteLoss
from workers.data_workers import DataWorkers
from workers.generators import seed_all
from workers.link import Link
from workers.loaders import Source, open_rows
from workers.messages import Alive, Noted, Order, Stopped, Trained, Verified
from workers.registration import Data
from workers.resolving import resolve, what_differs
from workers.running import Interrupted, Running
from workers.training import Training

#: While no step is made the supervisor hears this often that something goes on.
ALIVE_EVERY_S = 1.0


class Attempt:
    def __init__(self, order: Order, link: Link, data_workers: DataWorkers | None = None) -> None:
        self.order = order
        self.link = link
        self.data_workers = data_workers
        self.spec = msgspec.convert(order.spec, JobSpec)
        self.resolved: dict[str, Any] = order.resolved
        self.scratch = Path(order.scratch)
        self.kept: dict[str, Any] = {}
        self.born = time.monotonic()
        self.stages_ms: dict[str, float] = {}
        self.alive_at = self.born

    def run(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        try:
            self.link.send(self.train())
        except Interrupted:
            self.link.send(Stopped())

    def train(self) -> Verified:
        """Raises Interrupted where a Stop came."""
        data, training, cursor = self.begin()
        folder = self.order.board if self.order.rank == 0 else ""
        with contextlib.closing(Board(folder, self.order.spec, cursor, self._warn)) as board:
            running = Running(
                self.link, self.spec, self.resolved, training, cursor, data, self.scratch, board
            )
            running.keeping.restore(self.kept)
            verified = self._follow(running)
            board.measured(verified.test_metrics, cursor.step)
        return verified

    def _follow(self, running: Running) -> Verified:
        """From the first step to the proof of the version."""
        try:
            running.follow(self.stages_ms, self.born)
        except NonFiniteLoss as error:
            if not self.order.careful:
                raise
            raise diagnosis.explained(error, running.training, running.data.manifest) from error
        self.link.send(Trained(needed(running.cursor.ended)))
        chosen = self.link.wait_for_register()
        if chosen is None:
            raise Interrupted
        reach("child.verifying")
        verified = registration.verify(chosen, self.spec, running.training, running.data, self.scratch)
        trained_s = running.cursor.seconds
        doubted = suspects.write(verified, chosen, running.training, running.data, trained_s, self.scratch)
        return msgspec.structs.replace(verified, suspects=doubted)

    def begin(self) -> tuple[Data, Training, Cursor]:
        """Up to where the loop starts, or goes on."""
        net = self.settle()
        self._mark("net")
        data = self.open_data()
        self._mark("data")
        training, cursor = self.build(net, data)
        self._mark("build")
        return data, training, cursor

    def settle(self) -> nn.Module:
        """Builds the net, and fixes how it will run, or repeats what an earlier attempt fixed."""
        narrow_gpus(self.spec, self.order)
        plugins.load(self.order.plugins)
        plugins.check(self.order.spec, self.order.resolved.get("plugins"))
        net = build_net(self.spec, self.order)
        if self.order.resolved:
            if differing := what_differs(self.order.resolved):
                self.link.send(Noted("inexact_resume", differing))
        else:
            self.resolved = resolve(self.spec, self.order, net)
        torch.set_num_threads(self.resolved["threads"])
        if self.resolved.get("products") == "onednn":  # jobs of before have none
            products.multiply_by_onednn()
        torch.use_deterministic_algorithms(self.resolved["deterministic"])
        # Else torch would fill all new memory with nan, an eighth of a step's time; nothing here reads it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # untyped
        # torch's own default computes convolutions on a GPU in TF32: too coarse for fp32, and for golden
        # answers that a CPU replays within 1e-4.
        torch.backends.cudnn.allow_tf32 = False
        return net

    def open_data(self) -> Data:
        spec, arrow = self.spec, Path(self.order.arrow)
        manifest = msgspec.json.decode(Path(self.order.manifest).read_bytes(), type=Manifest)
        targets = needed(resolve_targets(spec, manifest, [], []))
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
                self.order.threads,
                {named: Path(path) for named, path in self.order.uploads.items()},
                spec.trainer.sampler,
                progress=lambda _done, _total: self._between(),
                device=torch.device(self.resolved["device"]),
                data_workers=self.data_workers,
            )
        )
        targets = dataclasses.replace(targets, classes=rows.classes)
        readout = readout_of(needed(spec.loss), targets, rows.scaling)
        return Data(arrow, manifest, targets, rows, train, evaluation, readout)

    def build(self, net: nn.Module, data: Data) -> tuple[Training, Cursor]:
        crew = join(self.order, torch.device(self.resolved["device"]), lambda: self.link.stop)
        training = build_training(net, self.spec, self.resolved, data, crew)
        training = dataclasses.replace(training, is_careful=self.order.careful, between=self._between)
        training = dataclasses.replace(training, pieces=self.order.pieces)
        if crew.rank > 0:
            seed_all(self.spec.trainer.seed, crew.rank)
        if self.order.resume is None:
            return training, Cursor()
        training.net.load_state_dict(artifacts.load(Path(self.order.resume.weights)))
        state = artifacts.load(Path(self.order.resume.state))
        self.kept = state.get("keeping", {})
        if len(state["ranks"]) != crew.world:
            self.link.send(Noted("inexact_resume", {"devices": [len(state["ranks"]), crew.world]}))
        pieces = max(state["pieces"], self.order.pieces)
        return dataclasses.replace(training, pieces=pieces), progress.restore(training, state)

    def _warn(self, message: str) -> None:
        self.link.send(Noted("warning", {"message": message}))

    def _between(self) -> None:
        """Says that something goes on. Raises Interrupted where a Stop came."""
        if self.link.stop is not None:
            raise Interrupted
        now = time.monotonic()
        if now - self.alive_at >= ALIVE_EVERY_S:
            self.alive_at = now
            self.link.send(Alive())

    def _mark(self, stage: str) -> None:
        self.stages_ms[stage] = round((time.monotonic() - self.born) * 1000, 1)
