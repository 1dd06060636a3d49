"""A step and the training rows -> its operation. What is learned comes from these rows alone; only how many
places a one-hot takes is known before, from the manifest.

N rows, F features.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from core.data.prepare.forms import PADDING, Form, has_other, spread_width
from core.data.prepare.operations import (
    Clipped,
    Dated,
    Encoded,
    Imputed,
    ImputedText,
    Indexed,
    Lowercased,
    MinMaxed,
    Operation,
    Padded,
    Ranked,
    Spread,
    SpreadFeature,
    Standardized,
    Tokenized,
    Truncated,
    features,
    is_missing,
)
from core.data.prepare.steps import (
    Bytes,
    Clip,
    DateParts,
    Impute,
    Lowercase,
    MinMax,
    OneHot,
    Ordinal,
    Pad,
    Standardize,
    Step,
    Tokenizer,
    Truncate,
    Words,
)
from core.data.prepare.text import vocabulary
from core.data.prepare.tokenizer_file import read_tokenizer
from core.errors import Invalid

#: A version keeps the categories of its Ordinals, and the service reads it whole.
MAX_CATEGORIES = 100_000


def learn(step: Step, form: Form, values: Any, files: Mapping[str, Path]) -> Operation:
    """`form` and `values` are the column's before the step; tokens are not looked at. Raises
    core.errors.Invalid for a file or a column that cannot be used."""
    match step:
        case Impute():
            return _learn_fill(step, form, values)
        case Standardize():
            means = [float(kept_N.mean()) if len(kept_N) else 0.0 for kept_N in _present(values)]
            stds = [float(kept_N.std()) or 1.0 if len(kept_N) else 1.0 for kept_N in _present(values)]
            return Standardized(means, stds)
        case MinMax():
            return _learn_range(step, values)
        case Clip():
            return _learn_limits(step, values)
        case OneHot():
            return Spread(
                [
                    _learn_spread(step, known, kept_N)
                    for known, kept_N in zip(form.values, _present(values), strict=True)
                ]
            )
        case Ordinal():
            return Ranked([_learn_ranks(step, kept_N) for kept_N in _present(values)], step.unknown_value)
        case DateParts():
            return Dated(list(step.parts))
        case Lowercase():
            return Lowercased()
        case Words():
            return Indexed(vocabulary(values, step.max_tokens, step.min_frequency))
        case Bytes():
            return Encoded()
        case Tokenizer():
            return _read_file(step, files)
        case Truncate():
            return Truncated(step.length, step.side)
        case Pad():
            assert form.width is not None, "resolve puts a Truncate before each Pad"
            return Padded(form.width if step.length is None else step.length, step.side, PADDING)
        case _:
            assert_never(step)


def _learn_fill(step: Impute, form: Form, values: NDArray[Any]) -> Operation:
    """Where no training row has a value, the fill is 0 or the empty string."""
    if isinstance(step.fill_value, str):
        return ImputedText(step.fill_value)
    if form.kind == "string":
        (kept_N,) = _present(values)
        return ImputedText(str(_most_frequent(kept_N)) if len(kept_N) else "")
    if step.fill_value is not None:
        return Imputed([step.fill_value] * len(form.values))
    averages: dict[str, Callable[[NDArray[Any]], Any]] = {
        "mean": np.mean,
        "median": np.median,
        "most_frequent": _most_frequent,
    }
    average = averages[step.strategy]
    return Imputed([float(average(kept_N)) if len(kept_N) else 0.0 for kept_N in _present(values)])


def _most_frequent(kept_N: NDArray[Any]) -> Any:
    """The smallest of those seen most often."""
    distinct, counts = np.unique(kept_N, return_counts=True)
    return distinct[counts.argmax()]


def _learn_range(step: MinMax, values: NDArray[Any]) -> MinMaxed:
    """A constant column becomes the lower end."""
    low, high = step.feature_range
    scales, offsets = [], []
    for kept_N in _present(values):
        least, most = (float(kept_N.min()), float(kept_N.max())) if len(kept_N) else (0.0, 0.0)
        scale = (high - low) / ((most - least) or 1.0)
        scales.append(scale)
        offsets.append(low - least * scale)
    return MinMaxed(scales, offsets)


def _learn_limits(step: Clip, values: NDArray[Any]) -> Clipped:
    present = _present(values)
    if step.quantiles is None:
        return Clipped([step.min] * len(present), [step.max] * len(present))
    lows: list[float | None] = []
    highs: list[float | None] = []
    for kept_N in present:
        low, high = np.quantile(kept_N, step.quantiles).tolist() if len(kept_N) else (None, None)
        lows.append(low)
        highs.append(high)
    return Clipped(lows, highs)


def _learn_spread(step: OneHot, known: tuple[Any, ...] | None, kept_N: NDArray[Any]) -> SpreadFeature:
    """Of equally frequent categories the later ones are kept, as scikit-learn's OneHotEncoder does."""
    width = spread_width(known, step)
    seen = Counter(kept_N.tolist())
    values = sorted(seen) if known is None else list(dict.fromkeys(map(_plain, known)))
    if not has_other(known, step):
        return SpreadFeature(values, width)
    rare_first = sorted(values, key=lambda value: seen[value])
    return SpreadFeature(sorted(rare_first[1 - width :]), width, has_other=True)


def _learn_ranks(step: Ordinal, kept_N: NDArray[Any]) -> list[float | str]:
    if step.categories is not None:
        return step.categories
    values = sorted(set(kept_N.tolist()))
    if len(values) > MAX_CATEGORIES:
        raise Invalid(
            f"expected at most {MAX_CATEGORIES} distinct values for Ordinal, got {len(values)}: leave the "
            "column out, or take another step"
        )
    return values


def _read_file(step: Tokenizer, files: Mapping[str, Path]) -> Tokenized:
    path = files.get(step.file.upload)
    if path is None:
        raise Invalid(
            f"the tokenizer's upload {step.file.upload!r} is not at hand: upload the file again, and name it"
        )
    return Tokenized(read_tokenizer(path, step.vocab_size))


def _present(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Each feature's values without the missing ones."""
    return [values_N[~is_missing(values_N)] for values_N in features(values)]


def _plain(value: Any) -> float | str:
    """A value of the manifest as columns hold it."""
    return value if isinstance(value, str) else float(value)
