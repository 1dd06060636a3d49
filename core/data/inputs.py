"""What goes into a net: one tensor, or several by name. No torch."""

from typing import Literal

from msgspec import Struct


class NetInput(Struct, frozen=True, omit_defaults=True):
    """`shape` is that of one row. `num_tokens` bounds the indices in an int64 input from above: an Embedding
    of it needs as many rows."""

    name: str
    shape: list[int]
    dtype: Literal["float32", "int64"] = "float32"
    num_tokens: int | None = None
