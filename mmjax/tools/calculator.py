"""Arithmetic on exact numbers, by a parser that knows nothing else."""

import ast
import math
import operator
from fractions import Fraction

LONGEST = 200  # characters of an expression
DIGITS = 100  # of a numerator or a denominator
POWER = 64  # largest exponent
_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> str:
    """The value of an expression of numbers, + - * / // % ** and brackets.

    Computed with fractions, so that 0.1 + 0.2 is 0.3; written as an integer, or else as a decimal
    number with up to 12 significant digits.

    Raises:
      ValueError: anything else, division by zero, or a number of more than `DIGITS` digits.
    """
    text = expression.strip()
    if len(text) > LONGEST:
        raise ValueError(f"the expression has {len(text)} characters, and at most {LONGEST} fit")
    try:
        tree = ast.parse(text.replace("×", "*").replace("÷", "/").replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"'{text}' is no arithmetic expression") from None
    try:
        value = _value(tree.body, text)
    except ZeroDivisionError:
        raise ValueError(f"'{text}' divides by zero") from None
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.12g}"


def _value(node: ast.expr, text: str) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if not math.isfinite(number):
                raise ValueError(f"'{text}' has a number that is too large")
            return _bounded(Fraction(repr(number)), text)  # the decimal number as it is written
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _UNARY[type(node.op)](_value(node.operand, text))
        case ast.BinOp(op=ast.Pow()):
            base, power = _value(node.left, text), _value(node.right, text)
            if power.denominator != 1 or abs(power) > POWER:
                raise ValueError(f"an exponent is a whole number of at most {POWER}")
            return _bounded(base ** int(power), text)
        case ast.BinOp() if type(node.op) in _BINARY:
            left, right = _value(node.left, text), _value(node.right, text)
            return _bounded(Fraction(_BINARY[type(node.op)](left, right)), text)
    raise ValueError(f"'{text}' has something else than numbers, + - * / // % ** and brackets")


def _bounded(value: Fraction, text: str) -> Fraction:
    if max(abs(value.numerator), value.denominator) >= 10**DIGITS:
        raise ValueError(f"'{text}' has a number of more than {DIGITS} digits")
    return value
