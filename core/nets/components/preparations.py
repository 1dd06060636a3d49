"""Preparations: the steps for tables and text, ours by signature as torch's classes are by theirs."""

from typing import Annotated, Literal

from msgspec import Meta

from core.data.prepare import steps
from core.nets.components.family import Family, Override

_Names = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=10_000)]
_AS_MANY = "a table has up to 10,000 columns, their names are of any length"
#: Each is a feature of every row.
_Categories = Annotated[int, Meta(ge=2, le=65_536)]
#: A row of text takes eight bytes for each place.
_Length = Annotated[int, Meta(ge=1, le=65_536)]

FAMILY = Family(
    name="prepare",
    namespace=steps,
    types=tuple(step.__name__ for step in steps.STEPS),
    overrides={
        "*.columns": Override(_AS_MANY, _Names | Literal["*"], "*"),
        "DateParts.columns": Override(_AS_MANY, _Names),
        "OneHot.max_categories": Override("each is a feature of every row", _Categories | None),
        "Truncate.length": Override("every row takes so many places", _Length, 256),
        "Pad.length": Override("every row takes so many places", _Length | None),
    },
    least={
        "Words.max_tokens": 3,
        "Words.min_frequency": 1,
        "Tokenizer.vocab_size": 1,
    },
)
