"""A spec's `prepare` with every column written out, completed by what a net cannot do without."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from core.data.inputs import NetInput
from core.data.manifest import Manifest
from core.data.prepare.forms import Form, Misfit, advance, form_of, takes
from core.data.prepare.steps import (
    Bytes,
    Clip,
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
    faults,
)
from core.data.targets import INPUT
from core.faults import fault, join, suggestion
from modelyard.specs import ProblemError


@dataclass(frozen=True)
class Resolved:
    """`components` name every column they touch; `inputs` are what reaches the net."""

    components: list[dict[str, Any]]
    inputs: list[NetInput]


class _Columns:
    """The form of each input column, from step to step. Steps of the spec have a pointer, those that
    complete it none: then the column itself is at fault."""

    def __init__(self, names: Iterable[str], manifest: Manifest, errors: list[ProblemError]) -> None:
        self.forms = {name: form_of(name, manifest) for name in names}
        self.steps: list[Step] = []
        self.errors = errors
        self.text = set(manifest.text_columns)
        self._manifest = manifest

    def add(self, step: Step, names: Sequence[str], pointer: str | None = None) -> None:
        if not names:
            return
        self.steps.append(msgspec.structs.replace(step, columns=list(names)))
        for name in names:
            try:
                self.forms[name] = advance(self.forms[name], step, name, self._manifest)
            except Misfit as misfit:
                here = "/inputs" if pointer is None else f"{pointer}/columns/{step.columns.index(name)}"
                fault(self.errors, here, misfit.code, str(misfit))

    def lacks_values(self, name: str) -> bool:
        """In a row of any split: all of them reach the net."""
        beside = self._manifest.splits_missing.values()
        return self._manifest.columns[name].missing > 0 or any(name in missing for missing in beside)

    def is_text(self, name: str) -> bool:
        """Whether the column is to end as indices."""
        kind = self.forms[name].kind
        return kind in ("tokens", "indices") or (kind == "string" and name in self.text)

    def where(self, is_meant: Callable[[str, Form], bool]) -> list[str]:
        return [name for name, form in self.forms.items() if is_meant(name, form)]


def resolve_prepare(
    prepare: list[dict[str, Any]] | None,
    inputs: Mapping[str, Sequence[str]],
    manifest: Manifest,
    errors: list[ProblemError],
) -> Resolved:
    """`prepare` has passed `registry.check_component`.

    Defaults: Standardize for numbers, OneHot for strings, Lowercase and Words for free text, mean or most
    frequent for what is missing. A given list is completed only by what a net cannot do without: a fill for
    columns with missing values, OneHot for strings, tokens of one length for text.
    """
    before = len(errors)
    steps = msgspec.convert(prepare, list[Step]) if prepare is not None else _defaults()
    names = list(dict.fromkeys(name for group in inputs.values() for name in group))
    unfilled = _Columns(names, manifest, [])
    _walk(unfilled, steps, is_given=True)
    columns = _Columns(names, manifest, errors)
    _fill(columns, unfilled, steps)
    _walk(columns, steps, is_given=prepare is not None)
    if len(errors) == before:
        _end(columns)
        _check_groups(inputs, columns.forms, errors)
    if len(errors) > before:
        return Resolved([], [])
    components = [msgspec.json.decode(msgspec.json.encode(step)) for step in columns.steps]
    return Resolved(components, [_net_input(name, group, columns.forms) for name, group in inputs.items()])


def _defaults() -> list[Step]:
    return [Standardize(), Lowercase(), Words()]


def _walk(columns: _Columns, steps: list[Step], *, is_given: bool) -> None:
    counted = _named(steps, (OneHot, Ordinal))
    for position, step in enumerate(steps):
        pointer = f"/prepare/{position}"
        for keyword, message in faults(step):
            fault(columns.errors, join(pointer, keyword) if keyword else pointer, "invalid_value", message)
        names = _selected(step, counted, columns, pointer)
        if isinstance(step, Pad):
            _truncate(columns, names, step.length)
        columns.add(step, names, pointer if is_given and step.columns != "*" else None)


def _selected(step: Step, counted: set[str], columns: _Columns, pointer: str) -> list[str]:
    """Writes `*` out as the columns that the step is for; leaves out names that are none. Those that are
    `counted` are named by a step for categories."""
    if step.columns != "*":
        first = {name: place for place, name in reversed(list(enumerate(step.columns)))}
        for place, name in enumerate(step.columns):
            here = f"{pointer}/columns/{place}"
            if name not in columns.forms:
                names = sorted(columns.forms)
                message = f"{name!r} is not among the inputs {names[:20]}.{suggestion(name, names)}"
                fault(columns.errors, here, "unknown_column", message)
            elif first[name] < place:
                fault(columns.errors, here, "duplicate_column", f"{name!r} is named twice; leave one out.")
        return [name for name in sorted(first, key=lambda name: first[name]) if name in columns.forms]
    kinds, text = takes(step), columns.text
    match step:
        case Standardize() | MinMax() | Clip():
            return columns.where(lambda name, form: form.kind in kinds and name not in counted)
        case Impute():
            return columns.where(lambda name, form: form.kind in kinds and name not in text)
        case OneHot() | Ordinal():
            return columns.where(lambda name, form: form.kind == "string" and name not in text)
        case Lowercase() | Words() | Bytes() | Tokenizer():
            return columns.where(lambda name, form: form.kind in kinds and name in text)
        case _:
            return columns.where(lambda _, form: form.kind in kinds)


def _fill(columns: _Columns, unfilled: _Columns, steps: list[Step]) -> None:
    """Puts an Impute in front for columns that lack values and that no step of the list fills: `unfilled` has
    seen the list without it."""
    filled = {name for step in unfilled.steps if isinstance(step, Impute) for name in step.columns}
    counted = _named(steps, (OneHot, Ordinal))
    lacking = [name for name in columns.forms if columns.lacks_values(name) and name not in filled]
    numbers = [name for name in lacking if columns.forms[name].kind != "string" and name not in counted]
    texts = [name for name in lacking if unfilled.is_text(name)]
    columns.add(Impute(), numbers)
    columns.add(
        Impute(strategy="most_frequent"),
        [name for name in lacking if name not in numbers and name not in texts],
    )
    columns.add(Impute(strategy="constant", fill_value=""), texts)


def _end(columns: _Columns) -> None:
    """Strings and tokens that are left reach the net as features and as indices of one length."""
    columns.add(Words(), columns.where(lambda name, form: form.kind == "string" and columns.is_text(name)))
    columns.add(OneHot(), columns.where(lambda _, form: form.kind == "string"))
    tokens = columns.where(lambda _, form: form.kind == "tokens")
    _truncate(columns, tokens, None)
    columns.add(Pad(), tokens)


def _truncate(columns: _Columns, names: list[str], length: int | None) -> None:
    step = Truncate() if length is None else Truncate(length=length)
    columns.add(
        step,
        [
            name
            for name in names
            if columns.forms[name].kind == "tokens" and columns.forms[name].width is None
        ],
    )


def _check_groups(
    inputs: Mapping[str, Sequence[str]], forms: Mapping[str, Form], errors: list[ProblemError]
) -> None:
    """Indices and numbers are different tensors."""
    for name, group in inputs.items():
        texts = [column for column in group if forms[column].kind == "indices"]
        if texts and len(group) > 1:
            rest = [column for column in group if column != texts[0]]
            message = (
                f"The text column {texts[0]!r} becomes indices and stands alone in its input; it came "
                f'with {", ".join(map(repr, rest[:10]))}. Name several inputs, such as "inputs": '
                f'{{"{texts[0]}": ["{texts[0]}"], "{rest[0]}": ["{rest[0]}"]}}, for a Graph.'
            )
            is_list = list(inputs) == [INPUT]
            fault(errors, "/inputs" if is_list else join("/inputs", name), "mixed_input", message)


def _net_input(name: str, group: Sequence[str], forms: Mapping[str, Form]) -> NetInput:
    first = forms[group[0]]
    if first.kind == "indices":
        return NetInput(name, [first.width or 0], "int64", first.num_tokens)
    return NetInput(name, [sum(forms[column].width or 0 for column in group)])


def _named(steps: list[Step], types: tuple[type[Step], ...]) -> set[str]:
    """The columns that steps of some types name."""
    return {
        name for step in steps if isinstance(step, types) and step.columns != "*" for name in step.columns
    }
