"""How the inputs of batches come to the device: rows are gathered, transformed and moved, ahead of the loop
where that pays.

Whoever makes a batch, and whenever, its numbers are the same: draws are a function of seed, epoch and row.
"""

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from core.nets.transforms import Pipeline
from workers.inputs import Inputs
from workers.prefetch import ahead, in_threads

# B rows in the batch

#: Batches that wait for the loop: one would do, if all took as long to make.
DEPTH = 2


@dataclass(frozen=True)
class Wanted:
    """Rows of the dataset, int64 [B]. `draws_B` tell the draws of an epoch apart, where one row is drawn
    twice."""

    index_B: Tensor
    draws_B: Tensor
    seed: int
    epoch: int


#: The net's inputs of one batch.
Made = tuple[Tensor, ...]


class Makers(Protocol):
    """Other processes that do what `Feed.make` does, in the order of `wanted`."""

    def make(self, wanted: Iterable[Wanted]) -> Generator[Made]: ...


@dataclass(frozen=True)
class Feed:
    """`pipeline` acts on the one input that images are; None where rows go to the net as they are. Images
    that are `channels_last` lie so in memory."""

    inputs: tuple[Inputs, ...]
    pipeline: Pipeline | None
    device: torch.device
    channels_last: bool = False
    makers: Makers | None = None

    def of(self, wanted: Iterable[Wanted]) -> Generator[Made]:
        """One for each, on the device. Closing the generator ends what works ahead of the loop."""
        if self.makers is not None:
            return self._arriving(self.makers.make(wanted))
        if self._is_ragged and not self._draws_from_generator:
            return self._arriving(in_threads(self.make, wanted, torch.get_num_threads()))
        if self._is_far and not self._draws_from_generator:
            return self._arriving(self.make(each) for each in wanted)
        return (self._finished(self.make(each)) for each in wanted)

    def make(self, wanted: Wanted) -> Made:
        """Gathered and transformed: on the CPU where images differ in size or draw from its generator, else
        on the device."""
        gathered = [_taken(rows, wanted.index_B) for rows in self.inputs]
        if not self._draws_from_generator:
            gathered = [self._moved(rows) if isinstance(rows, Tensor) else rows for rows in gathered]
        if self.pipeline is not None:
            seed, epoch, draws_B = wanted.seed, wanted.epoch, wanted.draws_B
            gathered = [self.pipeline.apply_rest(rows, seed, epoch, draws_B) for rows in gathered]
        return tuple(rows if isinstance(rows, Tensor) else torch.stack(rows) for rows in gathered)

    @property
    def _is_ragged(self) -> bool:
        return not all(isinstance(rows, Tensor) for rows in self.inputs)

    @property
    def _is_far(self) -> bool:
        return any(isinstance(rows, Tensor) and rows.device != self.device for rows in self.inputs)

    @property
    def _draws_from_generator(self) -> bool:
        """Then the loop's own thread transforms: nobody else may draw meanwhile."""
        return self.pipeline is not None and self.pipeline.needs_generator

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _arriving(self, made: Generator[Made]) -> Generator[Made]:
        with closing(ahead(self._sent(made), DEPTH)) as arrivals:
            for rows, sent in arrivals:
                if sent is not None:
                    stream = torch.cuda.current_stream(self.device)
                    stream.wait_event(sent)
                    for x in rows:
                        x.record_stream(stream)  # the side stream's memory is not given away while used here
                yield self._finished(rows)

    def _sent(self, made: Generator[Made]) -> Generator[tuple[Made, torch.cuda.Event | None]]:
        """On a GPU whatever is done here is on a stream of its own, so that the loop's goes on."""
        with closing(made):
            while True:
                with self._on_stream():
                    rows = next(made, None)
                    if rows is None:
                        return
                    rows = tuple(map(self._moved, rows))
                    sent = self._stream.record_event() if self.device.type == "cuda" else None
                yield rows, sent

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self.device.type == "cuda" else nullcontext()

    def _moved(self, x: Tensor) -> Tensor:
        if x.device == self.device:
            return x
        # From pinned memory the copy goes on while this thread does.
        return x.pin_memory().to(self.device, non_blocking=True)

    def _finished(self, rows: Made) -> Made:
        return tuple(self._laid(x.to(self.device)) for x in rows)

    def _laid(self, x: Tensor) -> Tensor:
        # After the transforms, not before: they are slower on pixels that lie so.
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.ndim == 4 else x


def _taken(rows: Inputs, index_B: Tensor) -> Tensor | list[Tensor]:
    if isinstance(rows, Tensor):
        return rows.index_select(0, index_B.to(rows.device, non_blocking=True))
    return [torch.from_numpy(rows.read(row)) for row in index_B.tolist()]
