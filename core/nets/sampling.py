"""The order in which an epoch goes through the training rows: what `trainer.sampler` names, else `shuffle`.

Like `permutation` an order is a function of seed and epoch, so that a resumed job goes on where it was;
torch's samplers draw from a generator instead, whose stream a release may change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.data.manifest import Manifest
from core.data.targets import Targets, listed
from core.errors import Invalid
from core.faults import fault, is_full, join, show, suggestion
from core.nets import registry
from core.nets.components.samplers import BALANCED, RANDOM, SEQUENTIAL, SUBSET, WEIGHTED
from core.nets.randomness import hash_rows, permutation
from modelyard.specs import ProblemError

# N training rows, D rows that an epoch draws

Component = dict[str, Any]

POINTER = "/trainer/sampler"

#: What an epoch may draw where there are fewer rows; its order stands in memory.
MAX_DRAWN = 10_000_000

#: The words of the draws here; an order without a sampler has 2**32, transforms count from 0.
_FURTHER_PERMUTATIONS = 2**33
_UNIFORMS = 2**34

_TO_UNIT = 2.0**-53


@dataclass(frozen=True)
class Order:
    """An epoch goes through `count` training rows; `places(epoch)` are theirs among the N, int64 [D]. Where
    `may_repeat` one row may be drawn twice in an epoch."""

    count: int
    may_repeat: bool
    places: Callable[[int], Tensor]


def check_sampler(
    raw: Component | None,
    rows: int | None,
    targets: Targets | None,
    manifest: Manifest,
    errors: list[ProblemError],
) -> Component | None:
    """The checked sampler of `rows` training rows; None where there is none, or where something is wrong, and
    then `errors` says what. `rows` and `targets` are None where they are wrong themselves."""
    if raw is None:
        return None
    before = len(errors)
    sampler = registry.check_component("sampler", raw, POINTER, errors)
    if sampler is None or rows is None:
        return None
    _check_count(sampler, rows, errors)
    if sampler["type"] == SUBSET:
        _check_indices(sampler["indices"], rows, errors)
    if sampler["type"] == WEIGHTED and targets is not None:
        _check_weights(sampler, rows, targets, manifest, errors)
    return sampler if len(errors) == before else None


def rows_per_epoch(sampler: Component | None, rows: int) -> int:
    """How many of `rows` training rows an epoch draws, repetitions counted."""
    if sampler is None or sampler["type"] == SEQUENTIAL:
        return rows
    if sampler["type"] == SUBSET:
        return len(sampler["indices"])
    drawn: int | None = sampler["num_samples"]
    return rows if drawn is None else drawn


def weights_column(sampler: Component | None) -> str | None:
    """The column that holds a weight a row."""
    if sampler is None or sampler["type"] != WEIGHTED or sampler["weights"] == BALANCED:
        return None
    column: str = sampler["weights"]
    return column


def balanced_weights(labels_N: Tensor) -> Tensor:
    """One over the rows of its class, float64 [N]: every class is drawn equally often."""
    return 1.0 / torch.bincount(labels_N).double()[labels_N]


def order_of(
    sampler: Component | None, shuffle: bool, seed: int, rows: int, weights_N: Tensor | None = None
) -> Order:
    """A sampler takes the place of `shuffle`. `weights_N` are those of a weighted one. Raises Invalid for
    weights that can't be drawn from."""
    count = rows_per_epoch(sampler, rows)
    if sampler is None and not shuffle:
        sampler = {"type": SEQUENTIAL}
    if sampler is None:
        return Order(rows, False, lambda epoch: permutation(seed, epoch, rows))
    match sampler["type"]:
        case str() as kind if kind == SEQUENTIAL:
            return Order(rows, False, lambda _: torch.arange(rows))
        case str() as kind if kind == SUBSET:
            indices_D = torch.tensor(sampler["indices"], dtype=torch.int64)
            is_double = len(set(sampler["indices"])) < count
            return Order(count, is_double, lambda epoch: indices_D[permutation(seed, epoch, count)])
        case str() as kind if kind == WEIGHTED:
            assert weights_N is not None, "the loader reads the weights"
            return _weighted(weights_N.double(), count, seed, replacement=sampler["replacement"])
        case str() as kind if kind == RANDOM and sampler["replacement"]:
            return Order(count, True, lambda epoch: (_uniforms(seed, epoch, count) * rows).long())
        case _:
            return Order(count, count > rows, lambda epoch: _permutations(seed, epoch, rows, count))


def repetitions(places_D: Tensor) -> Tensor:
    """How often each row was drawn before in the epoch, int64 [D], so that its random transforms differ from
    draw to draw."""
    by_row_D = torch.argsort(places_D, stable=True)
    sorted_D = places_D[by_row_D]
    start_D = torch.searchsorted(sorted_D, sorted_D)  # where the run of equal places begins
    before_D = torch.empty_like(places_D)
    before_D[by_row_D] = torch.arange(len(places_D)) - start_D
    return before_D


def _weighted(weights_N: Tensor, count: int, seed: int, *, replacement: bool) -> Order:
    if not torch.isfinite(weights_N).all() or (weights_N < 0).any():
        raise Invalid("the weights of the sampler hold one that is negative or no number: mend the column")
    drawable = int((weights_N > 0).sum())
    if drawable < (1 if replacement else count):
        raise Invalid(
            f"the sampler draws {count} rows, and {drawable} training rows have a weight above zero: mend "
            "the column, or lower num_samples"
        )
    if not replacement:
        return Order(count, False, lambda epoch: _without_replacement(weights_N, seed, epoch, count))
    below_N = weights_N.cumsum(0)
    below_N = below_N / below_N[-1]
    return Order(
        count, True, lambda epoch: torch.searchsorted(below_N, _uniforms(seed, epoch, count), right=True)
    )


def _without_replacement(weights_N: Tensor, seed: int, epoch: int, count: int) -> Tensor:
    """The greatest keys u^(1/w), in descending order, are a weighted draw of one row after another
    (Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir", algorithm A,
    https://doi.org/10.1016/j.ipl.2005.11.003); their logarithms, so that small weights keep their digits."""
    keys_N = torch.log(_uniforms(seed, epoch, len(weights_N))) / weights_N
    return torch.argsort(keys_N, descending=True, stable=True)[:count]


def _permutations(seed: int, epoch: int, rows: int, count: int) -> Tensor:
    """All rows in one order, then in another, until there are enough: as torch's RandomSampler does."""
    orders = [permutation(seed, epoch, rows)]
    for number in range(-(-count // rows) - 1):
        keys_N = hash_rows(seed, epoch, torch.arange(rows), _FURTHER_PERMUTATIONS + number)
        orders.append(torch.argsort(keys_N, stable=True))
    return torch.cat(orders)[:count]


def _uniforms(seed: int, epoch: int, count: int) -> Tensor:
    """float64 [count] between 0 and 1, neither of which comes: the upper 53 bits of a hash."""
    bits_D = (hash_rows(seed, epoch, torch.arange(count), _UNIFORMS) >> 11) & (2**53 - 1)
    return (bits_D.double() * _TO_UNIT).clamp(min=_TO_UNIT / 2)


def _check_count(sampler: Component, rows: int, errors: list[ProblemError]) -> None:
    drawn = sampler.get("num_samples")
    most = max(rows, MAX_DRAWN)
    if drawn is not None and drawn > most:
        message = f"An epoch draws at most {most} rows; {drawn} came. Lower it, and take more epochs."
        fault(errors, join(POINTER, "num_samples"), "too_large", message)
    elif drawn is not None and drawn > rows and sampler["type"] == WEIGHTED and not sampler["replacement"]:
        message = (
            f"Without replacement at most the {rows} training rows can be drawn; {drawn} came. Lower it, or "
            'say "replacement": true.'
        )
        fault(errors, join(POINTER, "num_samples"), "too_large", message)


def _check_indices(indices: list[int], rows: int, errors: list[ProblemError]) -> None:
    for place, index in enumerate(indices):
        if is_full(errors):
            return
        if index >= rows:
            message = f"There are {rows} training rows, from 0 to {rows - 1}; {index} came."
            fault(errors, join(POINTER, "indices", place), "out_of_range", message)


def _check_weights(
    sampler: Component, rows: int, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> None:
    pointer, name = join(POINTER, "weights"), sampler["weights"]
    if name == BALANCED:
        if targets.task != "classification":
            message = (
                f'"{BALANCED}" weighs classes, and this job is a {targets.task}; name a column of weights, '
                "or take RandomSampler."
            )
            fault(errors, pointer, "wrong_task", message)
        return
    stats, feature = manifest.columns.get(name), manifest.features.get(name)
    if feature is None:
        valid = [BALANCED, *manifest.features]
        message = (
            f'weights is "{BALANCED}" or the name of a column; {show(name)} is neither.'
            f"{suggestion(name, valid)} It has {listed(list(manifest.features))}."
        )
        fault(errors, pointer, "unknown_column", message)
    elif stats is None or stats.min is None:
        message = f"A column of weights holds one number a row; {show(name)} holds {feature.dtype}."
        fault(errors, pointer, "wrong_kind", message)
    elif stats.missing:
        message = f"{show(name)} is missing in {stats.missing} training rows; fill it, or leave them out."
        fault(errors, pointer, "missing_values", message)
    elif stats.min < 0:
        message = f"Weights are at least 0; {show(name)} goes down to {stats.min:g}."
        fault(errors, pointer, "out_of_range", message)
    elif stats.min == 0:
        _check_drawable(sampler, rows, name, manifest, errors)


def _check_drawable(
    sampler: Component, rows: int, name: str, manifest: Manifest, errors: list[ProblemError]
) -> None:
    """Rows of weight zero are never drawn. How many of them train is known where the values are listed, and
    then as if all of them did."""
    stats = manifest.columns[name]
    zeros = dict(stats.values).get(0) if stats.values is not None else None
    drawn = 1 if sampler["replacement"] else rows_per_epoch(sampler, rows)
    if zeros is not None and rows - zeros >= drawn:
        return
    if zeros is None and sampler["replacement"]:
        return
    known = f"{zeros} rows of weight 0" if zeros is not None else "rows of weight 0"
    message = (
        f"{show(name)} has {known}: so few others may not give {drawn}. Lower num_samples, or the zeros."
    )
    fault(errors, join(POINTER, "weights"), "out_of_range", message)
