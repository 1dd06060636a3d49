"""Dates and times in ISO 8601, as Python's `datetime.fromisoformat` reads them, and their parts."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.prepare.steps import Part
from core.errors import Invalid

EXAMPLE = '"2024-02-29" or "2024-02-29T13:45:00"'

_PARTS: dict[Part, Callable[[datetime], int]] = {
    "year": lambda date: date.year,
    "month": lambda date: date.month,
    "day": lambda date: date.day,
    "weekday": datetime.weekday,
    "dayofyear": lambda date: date.timetuple().tm_yday,
    "hour": lambda date: date.hour,
    "minute": lambda date: date.minute,
}


def is_date(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def parts_of(values_N: NDArray[Any], parts: Sequence[Part], *, is_strict: bool) -> NDArray[np.float64]:
    """[N, F], a feature for each part, NaN where missing. What is no date is missing too, or if strict raises
    Invalid with its row, counted from 0."""
    parts_NF = np.full((len(values_N), len(parts)), np.nan)
    read = [_PARTS[part] for part in parts]
    for row, value in enumerate(values_N):
        if value is None:
            continue
        try:
            date = datetime.fromisoformat(value)
        except ValueError as error:
            if not is_strict:
                continue
            raise Invalid(
                f"expected an ISO 8601 date such as {EXAMPLE}, got {value[:50]!r} in row {row}",
                code="bad_date",
            ) from error
        parts_NF[row] = [part(date) for part in read]
    return parts_NF
