"""What a spec may write in `prepare`: scikit-learn's words for tables, the `tokenizers` library's for text.

Keywords of one step that contradict each other are found by `faults`; kinds and bounds are the registry's.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

Selection = list[str] | Literal["*"]
Strategy = Literal["mean", "median", "most_frequent", "constant"]
Part = Literal["year", "month", "day", "weekday", "dayofyear", "hour", "minute"]
Side = Literal["right", "left"]


class Upload(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A file that a user uploaded."""

    upload: str


class _Step(msgspec.Struct, tag_field="type", tag=True, forbid_unknown_fields=True, frozen=True):
    columns: Selection = "*"


class Impute(_Step, frozen=True, kw_only=True):
    """Fills missing values with the training rows' mean, median or most frequent value (the smallest of
    several), or with `fill_value`."""

    strategy: Strategy = "mean"
    fill_value: float | str | None = None


class Standardize(_Step, frozen=True):
    """(x - mean) / std with the training rows' mean and population standard deviation; a constant column is
    only centred."""


class MinMax(_Step, frozen=True, kw_only=True):
    """Moves and scales the training rows' least and greatest value to the ends of `feature_range`."""

    feature_range: tuple[float, float] = (0.0, 1.0)


class Clip(_Step, frozen=True, kw_only=True):
    """Cuts values off at `min` and `max`, or at two quantiles of the training rows."""

    min: float | None = None
    max: float | None = None
    quantiles: tuple[float, float] | None = None


class OneHot(_Step, frozen=True, kw_only=True):
    """One 0/1 feature for each value of the training split; an unknown value is all zeros. With
    `max_categories` the last feature stands for all but the most frequent ones and for what is unknown."""

    max_categories: int | None = None


class Ordinal(_Step, frozen=True, kw_only=True):
    """The place of a value among the training rows' sorted ones, or among `categories`, from 0;
    `unknown_value` where it has none."""

    categories: list[float | str] | None = None
    unknown_value: int = -1


class DateParts(_Step, frozen=True, kw_only=True):
    """The parts of an ISO 8601 date or time, as written (no time zone is converted), a feature each: Monday
    is weekday 0, 1 January dayofyear 1."""

    columns: list[str]
    parts: tuple[Part, ...] = ("year", "month", "day", "weekday")


class Lowercase(_Step, frozen=True):
    """Text in lower case, as Unicode has it."""


class Words(_Step, frozen=True, kw_only=True):
    """Words and runs of punctuation as indices into a vocabulary of the training rows, the most frequent
    first: 0 is padding, 1 any other word. `max_tokens` counts these two."""

    max_tokens: int = 10_000
    min_frequency: int = 1


class Bytes(_Step, frozen=True):
    """The bytes of the text in UTF-8, each plus one: 0 is padding."""


class Tokenizer(_Step, frozen=True, kw_only=True):
    """An uploaded tokenizer.json of the `tokenizers` library; `vocab_size` is above all its indices. Its own
    truncation and padding give way to Truncate and Pad."""

    file: Upload
    vocab_size: int


class Truncate(_Step, frozen=True, kw_only=True):
    """At most `length` tokens; `side` is where the others are cut off."""

    length: int = 256
    side: Side = "right"


class Pad(_Step, frozen=True, kw_only=True):
    """Padding up to `length` tokens, that of Truncate where it is null; `side` is where it stands."""

    length: int | None = None
    side: Side = "right"


Step = (
    Impute
    | Standardize
    | MinMax
    | Clip
    | OneHot
    | Ordinal
    | DateParts
    | Lowercase
    | Words
    | Bytes
    | Tokenizer
    | Truncate
    | Pad
)

#: In the order of the catalogue.
STEPS: tuple[type[Step], ...] = (
    Impute,
    Standardize,
    MinMax,
    Clip,
    OneHot,
    Ordinal,
    DateParts,
    Lowercase,
    Words,
    Bytes,
    Tokenizer,
    Truncate,
    Pad,
)


def faults(step: Step) -> Iterator[tuple[str, str]]:
    """(keyword, message) for each keyword that contradicts another."""
    match step:
        case Impute(strategy="constant", fill_value=None):
            yield "fill_value", 'Impute with the strategy "constant" needs a fill_value; add it.'
        case Impute(strategy=strategy, fill_value=value) if strategy != "constant" and value is not None:
            yield "fill_value", f'A fill_value is for the strategy "constant"; the strategy is "{strategy}".'
        case Clip(min=None, max=None, quantiles=None):
            yield "", "Clip needs min, max or quantiles; add one."
        case Clip(quantiles=(low, high)) if not 0 <= low < high <= 1:
            yield (
                "quantiles",
                f"Quantiles are two fractions in rising order, from 0 to 1; {low}, {high} came.",
            )
        case Clip(quantiles=(_, _), min=least, max=most) if least is not None or most is not None:
            yield "quantiles", "Clip takes either min and max or quantiles, not both; leave one out."
        case Clip(min=float(least), max=float(most)) if least >= most:
            yield "max", f"The greatest value must be above the least; min {least} and max {most} came."
        case MinMax(feature_range=(low, high)) if low >= high:
            yield "feature_range", f"The ends of the range must rise; {low}, {high} came."
        case DateParts(parts=parts) if len(set(parts)) < len(parts):
            yield "parts", "Each part is named once; leave out what stands there twice."
        case Ordinal(categories=list(values)) if len(set(values)) < len(values):
            yield "categories", "Each category is named once; leave out what stands there twice."
        case _:
            return
