"""Lists: a page of rows and the cursor of the next."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from modelyard.specs import Page

Row = TypeVar("Row")
View = TypeVar("View")


def page_of(
    rows: Sequence[Row], limit: int, view: Callable[[Row], View], cursor: Callable[[Row], str]
) -> Page[View]:
    """`rows` has one more than `limit` where there is a next page."""
    shown = rows[:limit]
    return Page([view(row) for row in shown], cursor(shown[-1]) if len(rows) > limit else None)
