"""The bytes of a job spec as plain Python values, read once and strictly."""

import json
import math
from typing import Any, NoReturn

from core.errors import Malformed, TooLarge

MAX_SPEC_BYTES = 1024 * 1024


def parse_spec(body: bytes) -> object:
    """Raises `TooLarge` over 1 MiB and `Malformed` for all that is no strict JSON: bad UTF-8, a key twice in
    one object, NaN, Infinity, a number beyond a double, half a surrogate pair, nesting beyond the stack."""
    if len(body) > MAX_SPEC_BYTES:
        raise TooLarge(f"A spec has at most {MAX_SPEC_BYTES} bytes; {len(body)} came.")
    try:
        value: object = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
        )
        # An escape such as \ud800 without its second half decodes, but can't be written as UTF-8 again.
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"A spec is JSON in UTF-8; byte {error.start} is not.") from error
    except UnicodeEncodeError as error:
        raise Malformed("A string in the spec holds half of a surrogate pair; send both halves.") from error
    except json.JSONDecodeError as error:
        raise Malformed(
            f"A spec is JSON; {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise Malformed("The spec nests deeper than can be read; a net nests at most 32 levels.") from error
    except ValueError as error:
        # Python refuses to read integers of more than 4300 digits.
        raise Malformed("The spec holds an integer too long to read.") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed(f"A key may stand once in an object; {key[:100]!r} stands twice.")
            seen.add(key)
    return value


def _constant(word: str) -> NoReturn:
    raise Malformed(f"JSON has no {word}; send a finite number.")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"{text[:40]} is beyond what a double holds; send a smaller number.")
    return value
