"""A step with what it has learned: numbers and words that are stored with a version and replayed.

N rows, F features, T tokens. Values on their way are float64 [N, F] with NaN where missing, strings [N] as
objects with None where missing, tokens, or int64 [N, T].
"""

from functools import cached_property
from typing import Any, assert_never

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.data.prepare import dates, text
from core.data.prepare.steps import Part, Side
from core.data.prepare.text import Tokens
from core.data.prepare.tokenizer_file import encode, open_tokenizer

Values = NDArray[Any] | Tokens


class _Operation(msgspec.Struct, tag_field="type", tag=True, frozen=True):
    pass


class Imputed(_Operation, frozen=True):
    """For each feature what a missing value becomes."""

    values: list[float]


class ImputedText(_Operation, frozen=True):
    value: str


class Standardized(_Operation, frozen=True):
    means: list[float]
    stds: list[float]


class MinMaxed(_Operation, frozen=True):
    """x * scale + offset"""

    scales: list[float]
    offsets: list[float]


class Clipped(_Operation, frozen=True):
    lows: list[float | None]
    highs: list[float | None]


class SpreadFeature(msgspec.Struct, frozen=True, dict=True):
    """`width` is at least that of the categories. With `has_other` the last place stands for all that is no
    category."""

    categories: list[float | str]
    width: int
    has_other: bool = False

    @cached_property
    def places(self) -> dict[float | str, int]:
        return _places(self.categories)


class Spread(_Operation, frozen=True):
    features: list[SpreadFeature]


class Ranked(_Operation, frozen=True, dict=True):
    """For each feature its categories, in order."""

    categories: list[list[float | str]]
    unknown_value: int = -1

    @cached_property
    def places(self) -> list[dict[float | str, int]]:
        return [_places(values) for values in self.categories]


class Dated(_Operation, frozen=True):
    """Parts of a date."""

    parts: list[Part]


class Lowercased(_Operation, frozen=True):
    """Lower case."""


class Indexed(_Operation, frozen=True, dict=True):
    """The words of the vocabulary; the first one's index is `text.FIRST`."""

    words: list[str]

    @cached_property
    def places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words, text.FIRST)}


class Encoded(_Operation, frozen=True):
    """UTF-8 bytes."""


class Tokenized(_Operation, frozen=True):
    """`content` is the whole tokenizer.json. Truncation is its own, so that the special tokens it puts around
    a text stay."""

    content: str
    length: int | None = None
    side: Side = "right"


class Truncated(_Operation, frozen=True):
    length: int
    side: Side = "right"


class Padded(_Operation, frozen=True):
    length: int
    side: Side = "right"
    value: int = 0


Operation = (
    Imputed
    | ImputedText
    | Standardized
    | MinMaxed
    | Clipped
    | Spread
    | Ranked
    | Dated
    | Lowercased
    | Indexed
    | Encoded
    | Tokenized
    | Truncated
    | Padded
)


def replay(operation: Operation, values: Any, *, is_strict: bool = True) -> Values:
    """Raises core.errors.Invalid for a text that cannot be read and, if strict, for such a date."""
    match operation:
        case Imputed():
            return np.where(np.isnan(values), operation.values, values)
        case ImputedText():
            return _objects([operation.value if value is None else value for value in values])
        case Standardized():
            return _moved(values, operation.means, operation.stds)
        case MinMaxed():
            return _scaled(values, operation.scales, operation.offsets)
        case Clipped():
            return _clipped(values, operation)
        case Spread():
            return _spread(operation, values)
        case Ranked():
            return _ranked(operation, values)
        case Dated():
            return dates.parts_of(values, operation.parts, is_strict=is_strict)
        case Lowercased():
            return _objects([None if value is None else value.lower() for value in values])
        case Indexed():
            return text.word_indices(values, operation.places)
        case Encoded():
            return text.byte_indices(values)
        case Tokenized():
            tokens = encode(open_tokenizer(operation.content, operation.length, operation.side), values)
            if operation.length is None:
                return tokens
            # The library leaves a text as it is where its special tokens alone are too many.
            return text.truncate(tokens, operation.length, operation.side)
        case Truncated():
            return text.truncate(values, operation.length, operation.side)
        case Padded():
            return text.pad(values, operation.length, operation.side, operation.value)
        case _:
            assert_never(operation)


def places_of(values_N: NDArray[Any], places: dict[float | str, int], unknown: int) -> NDArray[np.int64]:
    """The place of each value. One look-up a cell for strings, a sorted search for numbers."""
    if values_N.dtype == object:
        return np.array([places.get(value, unknown) for value in values_N], dtype=np.int64)
    keys = np.array(list(places), dtype=np.float64)
    order = keys.argsort()
    if not len(keys):
        return np.full(len(values_N), unknown, dtype=np.int64)
    at_N = order[np.searchsorted(keys, values_N, sorter=order).clip(max=len(keys) - 1)]
    return np.where(keys[at_N] == values_N, at_N, unknown)


def features(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Each feature's [N]; strings have one."""
    return [values] if values.dtype == object else list(values.T)


def is_missing(values_N: NDArray[Any]) -> NDArray[np.bool_]:
    if values_N.dtype == object:
        return np.array([value is None for value in values_N], dtype=bool)
    missing_N: NDArray[np.bool_] = np.isnan(values_N)
    return missing_N


def _moved(values_NF: NDArray[np.float64], means: list[float], stds: list[float]) -> NDArray[np.float64]:
    moved_NF: NDArray[np.float64] = (values_NF - np.array(means)) / np.array(stds)
    return moved_NF


def _scaled(values_NF: NDArray[np.float64], scales: list[float], offsets: list[float]) -> NDArray[np.float64]:
    scaled_NF: NDArray[np.float64] = values_NF * np.array(scales) + np.array(offsets)
    return scaled_NF


def _clipped(values_NF: NDArray[np.float64], operation: Clipped) -> NDArray[np.float64]:
    lows = np.array([-np.inf if low is None else low for low in operation.lows])
    highs = np.array([np.inf if high is None else high for high in operation.highs])
    return values_NF.clip(lows, highs)


def _spread(operation: Spread, values: NDArray[Any]) -> NDArray[np.float64]:
    spread_NF = np.zeros((len(values), sum(feature.width for feature in operation.features)))
    start = 0
    for values_N, feature in zip(features(values), operation.features, strict=True):
        other = feature.width - 1 if feature.has_other else -1
        at_N = places_of(values_N, feature.places, other)
        known_N = np.flatnonzero(at_N >= 0)
        spread_NF[known_N, start + at_N[known_N]] = 1
        start += feature.width
    return spread_NF


def _ranked(operation: Ranked, values: NDArray[Any]) -> NDArray[np.float64]:
    """Missing values stay missing."""
    columns = []
    for values_N, places in zip(features(values), operation.places, strict=True):
        ranks_N = places_of(values_N, places, -1).astype(np.float64)
        ranks_N[ranks_N < 0] = operation.unknown_value
        ranks_N[is_missing(values_N)] = np.nan
        columns.append(ranks_N)
    return np.stack(columns, axis=1)


def _places(values: list[float | str]) -> dict[float | str, int]:
    return {value: place for place, value in enumerate(values)}


def _objects(values: list[Any]) -> NDArray[Any]:
    return np.array(values, dtype=object)
