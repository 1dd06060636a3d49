"""Regular expressions on parameter names: the whole name must match, in time linear in its length."""

from collections.abc import Iterable

import re2

from core.faults import fault, show
from modelyard.specs import ProblemError

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # a spec's bad pattern is told to who sent it, not to the log
_OPTIONS.max_mem = 2**20
_MAX_SHOWN_NAMES = 6


class BadPattern(ValueError):
    """The pattern is no regular expression of RE2; the message says why."""


def full_matches(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that the pattern matches from end to end, in their order. Raises BadPattern.

    RE2 has no lookarounds and no back-references: they aren't regular, and cost exponential time.
    Source: Cox 2010, https://swtch.com/~rsc/regexp/regexp3.html
    """
    try:
        compiled = re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        why = error.args[0]
        raise BadPattern(why.decode() if isinstance(why, bytes) else str(why)) from error
    return [name for name in names if compiled.fullmatch(name)]


def check_pattern(pattern: str, pointer: str, errors: list[ProblemError]) -> None:
    """That it is one; what it matches isn't known yet."""
    try:
        full_matches(pattern, [])
    except BadPattern as error:
        _no_pattern(pattern, error, pointer, errors)


def check_matches(pattern: str, names: Iterable[str], pointer: str, errors: list[ProblemError]) -> list[str]:
    """`full_matches` for a plan: a pattern that is none, or that matches nothing, is an error."""
    names = list(names)
    try:
        found = full_matches(pattern, names)
    except BadPattern as error:
        _no_pattern(pattern, error, pointer, errors)
        return []
    if not found:
        hint = "A pattern matches whole names: end it with .* to match all that begin alike."
        message = f"{show(pattern)} matches none of the parameters {listed(names)}. {hint}"
        fault(errors, pointer, "matches_nothing", message)
    return found


def listed(names: list[str]) -> str:
    """`0.weight, 0.bias, … (12 in all)`"""
    shown = ", ".join(name[:100] for name in names[:_MAX_SHOWN_NAMES]) or "(there are none)"
    return shown if len(names) <= _MAX_SHOWN_NAMES else f"{shown}, … ({len(names)} in all)"


def _no_pattern(pattern: str, error: BadPattern, pointer: str, errors: list[ProblemError]) -> None:
    message = f"{show(pattern)} is no regular expression of RE2: {error}. Mend the pattern."
    fault(errors, pointer, "invalid_pattern", message)
