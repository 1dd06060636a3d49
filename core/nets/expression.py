"""A small arithmetic of `epoch` and `step`: parsed into functions of floats, never evaluated as code.

    sum     =  term, {("+" | "-"), term}          term   =  power, {("*" | "/" | "//" | "%"), power}
    power   =  ("-" | "+") power | atom ["**" power]
    atom    =  number | "epoch" | "step" | "pi" | name "(" choice {"," choice} ")" | "(" choice ")"
    choice  =  sum {("<" | "<=" | ">" | ">=" | "==" | "!=") sum} ["if" choice "else" choice]

Python's own parser gives the tree, so that precedence is Python's; what isn't in the grammar is refused by
name. All numbers are floats: a tower of exponents overflows at once instead of growing digits.
"""

import ast
import math
import operator
from collections.abc import Callable
from itertools import pairwise

from msgspec import Struct

from core.faults import suggestion

MAX_LENGTH = 200
MAX_DEPTH = 100

#: From (epoch, step) to a number.
Formula = Callable[[float, float], float]

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # Python's own ** would give a complex number for (-1) ** 0.5
    ast.Pow: math.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_ONE: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "cos": math.cos,
    "sin": math.sin,
    "floor": lambda x: float(math.floor(x)),
}
_SEVERAL: dict[str, Callable[..., float]] = {"min": min, "max": max}
_KNOWN = f"epoch, step, pi, {', '.join(_SEVERAL)}, {', '.join(_ONE)}"


class ExpressionError(ValueError):
    """The text isn't in the grammar, or has no number as its value somewhere; the message says what."""


class Expression(Struct, frozen=True):
    text: str
    formula: Formula

    def at(self, epoch: int, step: int) -> float:
        """Raises ExpressionError where the value is no finite number."""
        try:
            value = self.formula(float(epoch), float(step))
        except ZeroDivisionError:
            why = "it divides by zero"
        except OverflowError:
            why = "a number in it is too large"
        except ValueError:
            why = "a log, root or power in it has no real value"
        else:
            if math.isfinite(value):
                return value
            why = "a number in it is too large"
        raise ExpressionError(f"{self.text!r} has no value at epoch {epoch}, step {step}: {why}")


def parse(text: str) -> Expression:
    """Raises ExpressionError. Costs microseconds whatever the text."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters; {len(text)} came")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ExpressionError(f"{text!r} is no arithmetic expression: {why}") from error
    return Expression(text, _formula(tree, MAX_DEPTH))


def _formula(node: ast.expr, depth: int) -> Formula:
    if depth == 0:
        raise ExpressionError(f"an expression nests at most {MAX_DEPTH} levels")
    match node:
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            return _constant(value)
        case ast.Name(id="epoch"):
            return lambda epoch, step: epoch
        case ast.Name(id="step"):
            return lambda epoch, step: step
        case ast.Name(id="pi"):
            return lambda epoch, step: math.pi
        case ast.Name(id=name):
            raise _unknown(name)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(_BINARY[type(op)], _formula(left, depth - 1), _formula(right, depth - 1))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _apply(_UNARY[type(op)], [_formula(operand, depth - 1)])
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _COMPARISONS for op in ops
        ):
            parts = [_formula(part, depth - 1) for part in (left, *others)]
            return _comparison([_COMPARISONS[type(op)] for op in ops], parts)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _choice(*(_formula(part, depth - 1) for part in (test, body, orelse)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _call(name, [_formula(arg, depth - 1) for arg in args])
        case ast.BinOp(left=left, op=ast.BitXor(), right=right):
            power = ast.unparse(ast.BinOp(left, ast.Pow(), right))
            raise ExpressionError(f"{ast.unparse(node)[:60]!r} is no power; write a power as {power[:60]}")
    raise ExpressionError(f"{ast.unparse(node)[:60]!r} is no arithmetic; an expression may use {_KNOWN}")


def _constant(value: float) -> Formula:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ExpressionError("a number in the expression is too large")
    return lambda epoch, step: number


def _binary(of: Callable[[float, float], float], left: Formula, right: Formula) -> Formula:
    return lambda epoch, step: of(left(epoch, step), right(epoch, step))


def _apply(of: Callable[..., float], parts: list[Formula]) -> Formula:
    return lambda epoch, step: of(*[part(epoch, step) for part in parts])


def _comparison(of: list[Callable[[float, float], bool]], parts: list[Formula]) -> Formula:
    """1.0 where every neighbouring pair compares so, else 0.0."""

    def compare(epoch: float, step: float) -> float:
        values = [part(epoch, step) for part in parts]
        return float(all(one(*pair) for one, pair in zip(of, pairwise(values), strict=True)))

    return compare


def _choice(test: Formula, body: Formula, orelse: Formula) -> Formula:
    """Only the branch taken is computed: `1 / epoch if epoch > 0 else 1` never divides by zero."""
    return lambda epoch, step: body(epoch, step) if test(epoch, step) else orelse(epoch, step)


def _call(name: str, parts: list[Formula]) -> Formula:
    if name in _ONE:
        if len(parts) != 1:
            raise ExpressionError(f"{name} takes one number; {len(parts)} came")
        return _apply(_ONE[name], parts)
    if name in _SEVERAL:
        if len(parts) < 2:
            raise ExpressionError(f"{name} takes two numbers or more; {len(parts)} came")
        return _apply(_SEVERAL[name], parts)
    raise _unknown(name)


def _unknown(name: str) -> ExpressionError:
    hint = suggestion(name, _KNOWN.split(", "))
    return ExpressionError(f"there is no {name!r} in an expression.{hint} It may use {_KNOWN}")
