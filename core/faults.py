"""How a spec's errors read: JSON pointers, clipped values, the nearest valid name, a bound on how many."""

import difflib
import json
from collections.abc import Iterable

from modelyard.specs import ProblemError

#: Past this many errors a check stops looking: nobody reads more, and a hostile spec must stay cheap.
MAX_ERRORS = 100
MAX_MESSAGE = 1000
_MAX_SHOWN = 80
_MAX_WORD = 100


def join(pointer: str, *parts: str | int) -> str:
    """An RFC 6901 pointer one or more levels deeper. A monstrous key is left out: the parent is named."""
    for part in parts:
        word = str(part)
        if len(word) > _MAX_WORD:
            return pointer
        pointer += "/" + word.replace("~", "~0").replace("/", "~1")
    return pointer


def fault(errors: list[ProblemError], pointer: str, code: str, message: str) -> None:
    """Append one error, unless the list is full."""
    if not is_full(errors):
        errors.append(ProblemError(pointer=pointer, code=code, message=message))


def is_full(errors: list[ProblemError]) -> bool:
    return len(errors) >= MAX_ERRORS


def show(value: object) -> str:
    """A value as JSON, cut to a line; containers are cut before they are written out."""
    if isinstance(value, str):
        return _clip(json.dumps(value[: _MAX_SHOWN + 1], ensure_ascii=False))
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "an integer of more than 60 digits"
    if isinstance(value, bool | int | float) or value is None:
        return json.dumps(value)
    if isinstance(value, list):
        return _clip("[" + ", ".join(_kind(item) for item in value[:20]) + ("…]" if len(value) > 20 else "]"))
    if isinstance(value, dict):
        return "an object"
    return type(value).__name__


def suggestion(word: str, names: Iterable[str]) -> str:
    """` Did you mean "Conv2d"?`, or nothing where no name is near."""
    if len(word) > _MAX_WORD:
        return ""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f' Did you mean "{by_lower[near[0]]}"?' if near else ""


def first_line(error: BaseException) -> str:
    """torch's own words, without the C++ stack some of its messages carry."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "[…]"
    return show(value) if isinstance(value, str | bool | int | float) or value is None else "{…}"


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
