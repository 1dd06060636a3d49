"""What is known of a column before any row is read: its kind, its width, the values it may take."""

from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from core.data.manifest import MAX_LISTED_VALUES, Manifest
from core.data.prepare.dates import EXAMPLE, is_date
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
    Part,
    Standardize,
    Step,
    Tokenizer,
    Truncate,
    Words,
)
from core.data.targets import column_kind
from core.faults import show

#: `spread` is one-hot, `tokens` are indices of any number, `indices` a fixed number of them.
FormKind = Literal["number", "bool", "string", "spread", "tokens", "indices"]

PADDING = 0
UNKNOWN = 1
NUM_BYTES = 256

#: The values a part of a date may take; years have no end.
CALENDAR: dict[Part, range | None] = {
    "year": None,
    "month": range(1, 13),
    "day": range(1, 32),
    "weekday": range(7),
    "dayofyear": range(1, 367),
    "hour": range(24),
    "minute": range(60),
}

_KINDS: dict[FormKind, str] = {
    "number": "numbers",
    "bool": "true or false",
    "string": "strings",
    "spread": "already one-hot",
    "tokens": "already tokens",
    "indices": "already padded tokens",
}


class Form(Struct, frozen=True):
    """`width` counts features, or indices; None for tokens of any number. `values` are, for each feature, the
    sorted ones that the training split may have; None where they are not known."""

    kind: FormKind
    width: int | None = 1
    values: tuple[tuple[Any, ...] | None, ...] = (None,)
    num_tokens: int | None = None


class Misfit(Exception):
    """A step does not fit a column: `code` and a message with all three parts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def form_of(name: str, manifest: Manifest) -> Form:
    """As the column stands in the dataset."""
    values = manifest.columns[name].values
    listed = tuple(value for value, _ in values) if values is not None else None
    return Form(column_kind(manifest.features[name].dtype), values=(listed,))


def takes(step: Step) -> tuple[FormKind, ...]:
    """The kinds of column that a step is for."""
    match step:
        case Impute(strategy="mean" | "median"):
            return ("number", "bool")
        case Impute(strategy="constant", fill_value=value):
            return ("string",) if isinstance(value, str) else ("number", "bool")
        case Impute() | OneHot() | Ordinal():
            return ("number", "bool", "string")
        case Standardize() | MinMax() | Clip():
            return ("number",)
        case DateParts() | Lowercase() | Words() | Bytes() | Tokenizer():
            return ("string",)
        case Truncate() | Pad():
            return ("tokens",)
        case _:
            assert_never(step)


def advance(form: Form, step: Step, name: str, manifest: Manifest) -> Form:
    """The form of the column after a step. Raises Misfit."""
    if form.kind not in takes(step):
        kinds = " or ".join(_KINDS[kind] for kind in takes(step))
        kind = type(step).__name__
        message = f"{kind} is for {kinds}, and {name!r} is {_KINDS[form.kind]} there; leave it out."
        raise Misfit("wrong_column", message)
    match step:
        case Impute(strategy="constant", fill_value=float() | str() as value) if manifest.columns[
            name
        ].missing:
            return msgspec.structs.replace(form, values=tuple(_with(values, value) for values in form.values))
        case Impute():
            return form
        case Standardize() | MinMax() | Clip() | Ordinal():
            if isinstance(step, Ordinal):
                _check_categories(form, step, name)
            return Form("number", form.width, tuple(None for _ in form.values))
        case OneHot():
            _check_spread(form, step, name)
            return Form("spread", sum(spread_width(values, step) for values in form.values), form.values)
        case DateParts():
            _check_dates(form, name)
            values = tuple(None if days is None else tuple(days) for days in map(CALENDAR.get, step.parts))
            return Form("number", len(step.parts), values)
        case Lowercase():
            return Form("string", values=tuple(_lower(values) for values in form.values))
        case Words(max_tokens=num_tokens) | Tokenizer(vocab_size=num_tokens):
            return Form("tokens", None, num_tokens=num_tokens)
        case Bytes():
            return Form("tokens", None, num_tokens=NUM_BYTES + 1)
        case Truncate():
            length = step.length if form.width is None else min(step.length, form.width)
            return Form("tokens", length, num_tokens=form.num_tokens)
        case Pad():
            return Form("indices", _pad_length(step, form, name), num_tokens=form.num_tokens)
        case _:
            assert_never(step)


def spread_width(values: tuple[Any, ...] | None, step: OneHot) -> int:
    """How many features one becomes. Training rows that are set aside change nothing in it."""
    if values is None or has_other(values, step):
        assert step.max_categories is not None
        return step.max_categories
    return len(values)


def has_other(values: tuple[Any, ...] | None, step: OneHot) -> bool:
    """Whether the last feature stands for many."""
    return step.max_categories is not None and (values is None or len(values) > step.max_categories)


def _with(values: tuple[Any, ...] | None, value: Any) -> tuple[Any, ...] | None:
    return None if values is None else tuple(sorted({*values, value}))


def _lower(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(sorted({value.lower() for value in values}))


def _check_spread(form: Form, step: OneHot, name: str) -> None:
    if None in form.values and step.max_categories is None:
        message = (
            f"OneHot needs the values of {name!r} before training; it has over {MAX_LISTED_VALUES} distinct "
            "ones, or a step before makes new ones: leave it out, or say max_categories"
        )
        raise Misfit("too_many_categories", message)
    if () in form.values:
        raise Misfit("empty_column", f"{name!r} has no value in the training split: leave it out")


def _check_dates(form: Form, name: str) -> None:
    wrong = next((value for value in form.values[0] or () if not is_date(value)), None)
    if wrong is not None:
        message = f"DateParts takes ISO 8601 dates such as {EXAMPLE}; {name!r} has {show(wrong)}: mend it"
        raise Misfit("bad_date", message)


def _check_categories(form: Form, step: Ordinal, name: str) -> None:
    kind = str if form.kind == "string" else float
    if not all(isinstance(category, kind) for category in step.categories or []):
        message = f"The categories of {name!r} must be {_KINDS[form.kind]}, as the column is"
        raise Misfit("wrong_categories", message)


def _pad_length(step: Pad, form: Form, name: str) -> int:
    assert form.width is not None, "resolve puts a Truncate before each Pad"
    if step.length is None:
        return form.width
    if step.length < form.width:
        message = (
            f"Pad needs at least the length of Truncate, for {name!r} {form.width}; {step.length} came: "
            "raise it, or leave it out"
        )
        raise Misfit("wrong_length", message)
    return step.length
