"""The board of one attempt: when what is written to its event files, and that it costs the loop little."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.board import entries, pictures, portrait
from workers.board.embedding import write_embedding
from workers.board.writer import Entry, Writer
from workers.cursor import Cursor
from workers.registration import Data
from workers.trainer import Stepped
from workers.training import Training

#: Of the first training batch.
MAX_IMAGES, IMAGE_SIDE = 16, 256
#: Tensors with a histogram, values sampled of each, and epochs that have them.
MAX_HISTOGRAMS, MAX_SAMPLED, MAX_DRAWN_EPOCHS = 30, 4096, 50
#: A larger net has no graph: its copy would take as much memory again.
MAX_GRAPH_PARAMETERS = 100_000_000
#: While so much is waiting to be written no histograms are added.
MAX_WAITING = 200


class Board:
    """Does nothing where `folder` is empty."""

    def __init__(
        self, folder: str, spec: dict[str, Any], cursor: Cursor, tell: Callable[[str], None]
    ) -> None:
        self._spec, self._tell = spec, tell
        self._is_first_epoch = cursor.epoch == 0
        self._example: tuple[Tensor, ...] | None = None
        self._has_batch = False
        self._writer = Writer(Path(folder), cursor.step + 1, tell) if folder else None

    def stepped(self, cursor: Cursor, step: Stepped, metrics: dict[str, float]) -> None:
        """`metrics` are what is reported of this step; none for most."""
        if self._writer is None:
            return
        if not self._has_batch:
            self._has_batch = True
            self._first_batch(step, cursor.step)
        if metrics:
            self.measured(metrics, cursor.step)

    def epoch_ended(self, training: Training, cursor: Cursor, metrics: dict[str, float]) -> None:
        if self._writer is None:
            return
        self.measured(metrics, cursor.step)
        self._draw_graph(training)
        every = -(-training.limits.epochs // MAX_DRAWN_EPOCHS)
        if cursor.epoch % every == 0 and self._writer.waiting < MAX_WAITING:
            self._add(partial(entries.write_histograms, sampled(training.served), cursor.step))

    def trained(self, training: Training, cursor: Cursor, data: Data) -> None:
        """Shows some rows as the net that trained to the end answers them."""
        if self._writer is None:
            return
        try:
            shown = portrait.take(training, data, data_transforms(self._spec, "eval"))
        except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            self._tell(f"the board shows no validation rows: {type(error).__name__}: {error}")
            return
        if shown.scores_BC is not None and shown.truth_BC is not None:
            scores = shown.scores_BC, shown.truth_BC, shown.labels
            self._add(partial(entries.write_pr_curves, *scores, cursor.step))
        if shown.embedding is not None:
            self._add(partial(write_embedding, shown.embedding, cursor.step))

    def measured(self, metrics: dict[str, float], step: int) -> None:
        self._add(partial(entries.write_scalars, metrics, step, time.time()))

    def close(self) -> None:
        """Returns once all is in the files; nothing comes after it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, entry: Entry) -> None:
        if self._writer is not None:
            self._writer.add(entry)

    def _first_batch(self, step: Stepped, at: int) -> None:
        """A host-device sync, once."""
        inputs = step.batch.inputs
        self._add(partial(entries.write_spec, self._spec))
        self._example = tuple(x[:1].detach().cpu() for x in inputs)
        if pictures.is_picture(inputs[0]):
            transforms = data_transforms(self._spec, "train")
            images = pictures.seen(inputs[0][:MAX_IMAGES], transforms, IMAGE_SIDE)
            self._add(partial(entries.write_images, images, at))

    def _draw_graph(self, training: Training) -> None:
        """Once, by the attempt that saw the first epoch."""
        example, self._example = self._example, None
        if example is None or not self._is_first_epoch:
            return
        if sum(p.numel() for p in training.net.parameters()) <= MAX_GRAPH_PARAMETERS:
            self._add(partial(entries.write_graph, self._spec["model"], example))


def data_transforms(spec: dict[str, Any], split: str) -> list[dict[str, Any]] | None:
    transforms: list[dict[str, Any]] | None = (spec.get("transforms") or {}).get(split)
    return transforms


def sampled(net: nn.Module) -> dict[str, NDArray[np.float32]]:
    """At most MAX_SAMPLED values, evenly from each of the first MAX_HISTOGRAMS parameters. A host-device
    sync."""
    named = list(net.named_parameters())[:MAX_HISTOGRAMS]
    if not named:
        return {}
    parts = [p.detach().reshape(-1)[:: -(-p.numel() // MAX_SAMPLED) or 1].float() for _, p in named]
    values = torch.cat(parts).cpu().numpy()  # one copy for all of them
    ends = np.cumsum([len(part) for part in parts])
    return dict(zip((name for name, _ in named), np.split(values, ends[:-1]), strict=True))
