"""The bytes of a spec: strict JSON, or an error that says where it isn't."""

import pytest

from core.errors import Malformed, TooLarge
from core.nets.parse import MAX_SPEC_BYTES, parse_spec


def test_plain_json_comes_back_as_plain_values() -> None:
    assert parse_spec('{"a": [1, 2.5, null, true, "ü"]}'.encode()) == {"a": [1, 2.5, None, True, "ü"]}


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_spec(rb'"\ud83d\ude00"') == "😀"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "line 1"),
        (b'{"a": 1} x', "column 10"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        (b'{"lr": NaN}', "NaN"),
        (b'{"lr": -Infinity}', "-Infinity"),
        (b'{"lr": 1e400}', "1e400"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\uDC00": 1}', "surrogate"),
        (b"[" * 100_000, "deeper"),
        (b'{"a":' * 100_000, "deeper"),
        (b"1" * 5000, "integer"),
    ],
)
def test_what_is_no_strict_json_is_malformed_and_says_why(body: bytes, word: str) -> None:
    with pytest.raises(Malformed, match=word):
        parse_spec(body)


def test_a_spec_over_one_mebibyte_is_too_large() -> None:
    assert parse_spec(b" " * (MAX_SPEC_BYTES - 1) + b"1") == 1
    with pytest.raises(TooLarge, match=str(MAX_SPEC_BYTES)):
        parse_spec(b" " * MAX_SPEC_BYTES + b"1")
