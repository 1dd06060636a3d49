"""The wire is guarded by a committed file: what a client may send and get changes where somebody sees it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.reference import document

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "reference" / "openapi.json"
RENEW = "If that is meant, run `make openapi`, and say so in the changelog where a client notices it."


def test_the_wire_is_the_one_in_the_committed_file() -> None:
    changed = list(differences(json.loads(COMMITTED.read_text(encoding="utf-8")), document()))
    assert not changed, "\n".join(["The wire has changed:", *changed[:50], RENEW])


def test_a_difference_says_where_it_is_and_what_it_was() -> None:
    before = {"paths": {"/v1/jobs": {"get": {"limit": 200, "tags": ["jobs"]}, "head": {}}}, "same": [1]}
    after = {"paths": {"/v1/jobs": {"get": {"limit": 100, "tags": ["jobs", "x"]}, "put": {}}}, "same": [1]}
    assert list(differences(before, after)) == [
        "changed  /paths/~1v1~1jobs/get/limit: 200 -> 100",
        'added    /paths/~1v1~1jobs/get/tags/1: "x"',
        "removed  /paths/~1v1~1jobs/head",
        "added    /paths/~1v1~1jobs/put: {}",
    ]


def differences(before: Any, after: Any, pointer: str = "") -> Iterator[str]:
    """A line for each place (a JSON pointer) at which the two differ."""
    match before, after:
        case dict(), dict():
            inner = [
                (key, before.get(key, MISSING), after.get(key, MISSING)) for key in sorted({*before, *after})
            ]
        case list(), list():
            length = max(len(before), len(after))
            padded = [[*one, *[MISSING] * (length - len(one))] for one in (before, after)]
            inner = [(str(place), *pair) for place, pair in enumerate(zip(*padded, strict=True))]
        case _:
            if before != after:
                yield f"changed  {pointer}: {_shown(before)} -> {_shown(after)}"
            return
    for key, was, now in inner:
        place = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
        if was is MISSING:
            yield f"added    {place}: {_shown(now)}"
        elif now is MISSING:
            yield f"removed  {place}"
        else:
            yield from differences(was, now, place)


class _Missing:
    pass


MISSING = _Missing()


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
