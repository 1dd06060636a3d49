"""Shapes that every resource shares: names, pages, problems."""

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct, field

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"

Name = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description="1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
    ),
]

T = TypeVar("T")


class Page(Struct, Generic[T]):
    """One page of a list, newest first; `next` is the cursor for `?after=`, null on the last page."""

    items: list[T]
    next: str | None = None


class ProblemError(Struct, frozen=True):
    """One thing that is wrong with a request.

    `pointer` is an RFC 6901 JSON pointer into the body ("" is the body itself).
    """

    pointer: str
    code: str
    message: str


class Problem(Struct, omit_defaults=False):
    """An RFC 9457 problem: the body of every error."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    errors: list[ProblemError] = field(default_factory=list)
