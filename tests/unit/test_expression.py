"""The arithmetic of epoch and step, against Python's own."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.nets.expression import MAX_LENGTH, ExpressionError, parse

SAFE = {
    **{name: getattr(math, name) for name in ("sqrt", "exp", "log", "cos", "sin", "floor", "pi")},
    **{"min": min, "max": max, "abs": abs},
}


def by_python(text: str, epoch: float, step: float) -> Any:
    return eval(text, {"__builtins__": {}}, SAFE | {"epoch": epoch, "step": step})  # the measure, not the way


@pytest.mark.parametrize(
    "text",
    [
        "0.95 ** epoch",
        "1 / (1 + 0.1 * epoch)",
        "min(1, (step + 1) / 100) * 0.5 * (1 + cos(pi * min(step, 300) / 300))",
        "min((step + 1) ** -0.5, (step + 1) * 40 ** -1.5)",
        "0.1 if epoch >= 3 else 0.5 if epoch > 1 else 1",
        "1 if 2 < epoch <= 4 else 0.1",
        "-2 ** 2 + +epoch % 3 - step // 7",
        "2 ** 3 ** 2 / 512",
        "max(0.1, 1 - epoch / 10, 0.2)",
        "exp(-epoch) + log(step + 1) + sqrt(abs(sin(step))) + floor(step / 10)",
        "1 / epoch if epoch > 0 else 1",
        " 1 ",
        "(epoch == 2) + (epoch != 2) * 0.5",
    ],
)
def test_an_expression_has_the_value_that_python_gives(text: str) -> None:
    parsed = parse(text)
    for epoch in range(6):
        assert parsed.at(epoch, 50 * epoch + 7) == by_python(text.strip(), epoch, 50 * epoch + 7)


numbers = st.one_of(
    st.integers(0, 50).map("{}.0".format), st.sampled_from(["0.5", "1e-3", "epoch", "step", "pi"])
)
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner),
        st.builds(
            "({} if {} {} {} else {})".format, inner, inner, st.sampled_from(["<", ">=", "=="]), inner, inner
        ),
        st.builds("{}({})".format, st.sampled_from(["abs", "cos", "sqrt", "floor"]), inner),
        st.builds("-{}".format, inner),
    ),
    max_leaves=8,
).filter(lambda text: len(text) <= MAX_LENGTH)


@given(expressions, st.integers(0, 30), st.integers(0, 300))
def test_any_expression_has_python_s_value_or_an_error_of_its_own(text: str, epoch: int, step: int) -> None:
    try:
        ours = parse(text).at(epoch, step)
    except ExpressionError:
        return
    # Floats on both sides: Python's integers would grow where ours overflow.
    assert ours == by_python(text, float(epoch), float(step))


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_an_error_of_its_own(text: str) -> None:
    try:
        value = parse(text).at(3, 30)
    except ExpressionError:
        return
    assert math.isfinite(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os').system('true')", "no arithmetic"),
        ("epoch.__class__", "no arithmetic"),
        ("[x for x in (1,)]", "no arithmetic"),
        ("lambda: 1", "no arithmetic"),
        ("'a' * 3", "no arithmetic"),
        ("True", "no arithmetic"),
        ("1j", "no arithmetic"),
        ("epoch and 1", "no arithmetic"),
        ("(epoch := 3)", "no arithmetic"),
        ("max(1, key=abs)", "no arithmetic"),
        ("epochs", "there is no 'epochs'"),
        ("tan(epoch)", "there is no 'tan'"),
        ("cos(1, 2)", "takes one number; 2 came"),
        ("max(1)", "two numbers or more; 1 came"),
        ("1 +", "no arithmetic expression"),
        ("", "no arithmetic expression"),
        ("0; 1", "no arithmetic expression"),
        ("1\x00", "no arithmetic expression"),
        ("1 + " * 60 + "1", "at most 200 characters"),
        ("(" * 99 + "1" + ")" * 99, ""),
        ("-" * 150 + "1", "nests at most"),
        ("9" * 200 + ".", "at most 200"),
        ("1" + "0" * 199, ""),
        ("1e999", "too large"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused_with_the_reason(text: str, why: str) -> None:
    if not why:  # long, and yet in the grammar
        assert math.isfinite(parse(text).at(0, 0))
        return
    with pytest.raises(ExpressionError, match=why):
        parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 / epoch", "divides by zero"),
        ("5 % epoch", "divides by zero"),
        ("log(epoch)", "no real value"),
        ("(-1) ** 0.5", "no real value"),
        ("0 ** -1", "no real value"),
        ("9 ** 9 ** 9 ** 9", "too large"),
        ("exp(1e6)", "too large"),
        ("1e308 * 10", "too large"),
        ("1e308 * 10 - 1e308 * 10", "too large"),
        ("floor(1e308 * 10)", "too large"),
    ],
)
def test_a_value_that_is_no_finite_number_is_told_with_the_place(text: str, why: str) -> None:
    parsed = parse(text)
    with pytest.raises(ExpressionError, match=rf"at epoch 0, step 0: .*{why}"):
        parsed.at(0, 0)


def test_a_tower_of_exponents_costs_nothing() -> None:
    began = time.perf_counter()
    for text in ("9**" * 60 + "9", "(9**9**9)**(9**9**9)", "99999999999**99999999999"):
        with pytest.raises(ExpressionError):
            parse(text).at(1, 1)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(("text", "nearest"), [("epch * 2", "epoch"), ("coss(step)", "cos")])
def test_a_misspelt_name_is_told_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(ExpressionError, match=f'Did you mean "{nearest}"'):
        parse(text)
