"""Rows in batches on the device: which rows, in which order, and which batches make one optimizer step."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from core.errors import Invalid
from core.nets.mixing import Mixing
from core.nets.sampling import Order, order_of, repetitions
from core.nets.steps import batch_bounds
from core.nets.transforms import Pipeline
from workers.feed import Feed, Makers, Wanted
from workers.inputs import Inputs

# N rows of the dataset, D rows that an epoch draws, B rows in the batch


@dataclass(frozen=True)
class Batch:
    """`inputs` are the net's, in its order; `index` are the rows' numbers in the dataset, int64 [B] on the
    CPU. A step's gradient is the sum of those of its batches' mean losses, each times its `share`. `counts`
    [B] is what each row counts for in such a mean; None where each counts one."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    index: Tensor
    share: float = 1.0
    begins_step: bool = True
    ends_step: bool = True
    counts: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.index)

    def pieces(self, rows_at_once: int | None) -> list["Batch"]:
        """Of as equal a length as may be, none longer; together they weigh what the whole does."""
        if rows_at_once is None or self.rows <= rows_at_once:
            return [self]
        count = -(-self.rows // rows_at_once)
        edges = [self.rows * place // count for place in range(count + 1)]
        return [self._piece(slice(start, end)) for start, end in pairwise(edges)]

    def _piece(self, rows: slice) -> "Batch":
        index = self.index[rows]
        counts, part = None, len(index) / self.rows
        if self.counts is not None:
            counts = self.counts[rows]
            part = _part(counts, self.counts)
        return replace(
            self,
            inputs=tuple(x[rows] for x in self.inputs),
            targets=self.targets[rows],
            index=index,
            share=self.share * part,
            counts=counts,
        )


@dataclass(frozen=True)
class Span:
    """One batch of an epoch: the rows from `start` to `end` of its order, and its place in its step, which
    takes those of `window`."""

    start: int
    end: int
    window: slice
    begins_step: bool = True
    ends_step: bool = True


@dataclass(frozen=True)
class Batches:
    """Some rows in batches. `pipeline` is None where rows go to the net as they are; it acts on the one input
    that images are. An `order` takes the place of `shuffle`. `accumulate` batches make one optimizer step.

    With a `world` of several processes each gives its own `rank` a contiguous piece of every batch, of equal
    lengths but for one row, and `share` is such that the mean of the ranks' gradients is that of the whole.
    A last batch with fewer rows than ranks is merged into the one before, and refused where it is the only.

    `makers` transform the rows of an epoch in other processes; `channels_last` is how images lie in memory.
    `counts` [N] is what each row counts for in the mean of the loss; None where each counts one.
    """

    inputs: tuple[Inputs, ...]
    targets: Tensor
    index: Tensor
    pipeline: Pipeline | None
    batch_size: int
    seed: int
    device: torch.device
    shuffle: bool = False
    drop_last: bool = False
    merge_single: bool = False
    mixing: Mixing | None = None
    order: Order | None = None
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    channels_last: bool = False
    makers: Makers | None = None
    counts: Tensor | None = None

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return -(-len(self) // self.accumulate)

    def of_epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first_batch` on. The order is a function of seed and epoch. Raises
        Invalid where a batch has fewer rows than there are ranks."""
        places = self._order.places(epoch)
        index_D = draws_D = self.index[places]
        if self._order.may_repeat:
            draws_D = index_D + len(self.targets) * repetitions(places)
        spans = self._spans[first_batch:]
        rows = (slice(span.start, span.end) for span in spans)
        wanted = [Wanted(index_D[each], draws_D[each], self.seed, epoch) for each in rows]
        for span, batch in zip(spans, self._batches(self._feed, wanted), strict=True):
            share, counts = self._share(span, index_D)
            yield replace(
                batch, share=share, begins_step=span.begins_step, ends_step=span.ends_step, counts=counts
            )

    def in_order(self) -> Iterator[Batch]:
        """Every row once, whatever the rank, as evaluation takes them."""
        parts = torch.split(self.index, self.batch_size)
        wanted = [Wanted(index_B, index_B, self.seed, 0) for index_B in parts]
        yield from self._batches(replace(self._feed, makers=None), wanted)

    @cached_property
    def _order(self) -> Order:
        return self.order or order_of(None, self.shuffle, self.seed, len(self.index))

    @cached_property
    def _spans(self) -> list[Span]:
        bounds = batch_bounds(
            self._order.count,
            self.batch_size,
            drop_last=self.drop_last,
            has_batch_norm=self.merge_single,
            devices=self.world,
        )
        windows = [bounds[i : i + self.accumulate] for i in range(0, len(bounds), self.accumulate)]
        return [span for window in windows for span in self._window(window)]

    def _window(self, bounds: list[tuple[int, int]]) -> Iterator[Span]:
        window = slice(bounds[0][0], bounds[-1][1])
        for place, (start, end) in enumerate(bounds):
            rows = end - start
            if rows < self.world:
                raise Invalid(
                    f"a batch has {rows} rows, and each of {self.world} devices takes one at least: raise "
                    "trainer.batch_size, or lower trainer.devices"
                )
            ours = rows * self.rank // self.world, rows * (self.rank + 1) // self.world
            yield Span(start + ours[0], start + ours[1], window, place == 0, place == len(bounds) - 1)

    def _share(self, span: Span, index_D: Tensor) -> tuple[float, Tensor | None]:
        """Of a batch in its step, times the ranks over which a mean is taken; and what its rows count for."""
        rows, window = slice(span.start, span.end), span.window
        if self.counts is None:
            return (span.end - span.start) * self.world / (window.stop - window.start), None
        counts_B = self.counts[index_D[rows]]
        return _part(counts_B, self.counts[index_D[window]]) * self.world, counts_B

    @cached_property
    def _feed(self) -> Feed:
        return Feed(self.inputs, self.pipeline, self.device, self.channels_last, self.makers)

    @cached_property
    def _near_targets(self) -> Tensor:
        return self.targets.to(self.device)

    def _batches(self, feed: Feed, wanted: list[Wanted]) -> Iterator[Batch]:
        with closing(feed.of(wanted)) as made:
            for each, inputs in zip(wanted, made, strict=True):
                targets = self._near_targets.index_select(0, each.index_B.to(self.device, non_blocking=True))
                if self.mixing is not None:  # here in the loop: its draws come in turn with dropout's
                    mixed, targets = self.mixing(inputs[0], targets)
                    inputs = (mixed,)
                yield Batch(inputs, targets, each.index_B)


def _part(counts: Tensor, whole: Tensor) -> float:
    """0 where no row of the whole counts."""
    total = whole.sum().item()
    return counts.sum().item() / total if total else 0.0
