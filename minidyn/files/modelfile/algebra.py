"""sympy's arithmetic, made safe: every step is cheap, real, and fits in float64.

sympy computes exact constants of any size (9**9**9), its simplifications turn exp(n*log(2*x)) into
2**n * x**n for any n, and a question such as "is tanh(x**99) real?" can take it seconds. Here sizes are
checked before they are computed, functions and powers of sums stay as they are written, and constants
that are not rational become floats before anything is computed from them.
"""

import math
from collections.abc import Sequence
from typing import Any

import sympy as sp

from minidyn.common.errors import ExpressionError
from minidyn.files.modelfile.wording import shorten

MAX_EXPONENT = 100  # of a power with a numeric exponent
MAX_INTEGER = 2**53  # beyond it an integer is no longer exactly a float64
MAX_BITS = 1_100  # of any integer that a constant power may produce; a float64 ends at 2**1024

ANY_NUMBER = ("Min", "Max")  # functions of any number of arguments
_SPECIAL_TWO = "beta binomial polygamma besselj besseli".split()
TWO = ("Mod", "atan2", *_SPECIAL_TWO)  # functions of two; the others take one
EITHER = ("LambertW",)  # of one, or of two
_ONE = (
    "exp log sqrt sin cos tan sec csc cot sinc asin acos atan asec acsc acot sinh cosh tanh sech csch coth asinh acosh "
    "atanh asech acsch acoth erf erfc Abs sign floor ceiling frac Heaviside"
).split()
_SPECIAL_ONE = "erfinv erfcinv gamma loggamma digamma factorial".split()
_SPECIAL = {*_SPECIAL_ONE, *_SPECIAL_TWO, *EITHER}  # exact, those of whole numbers may be of any size
FUNCTIONS: dict[str, Any] = {name: getattr(sp, name) for name in (*_ONE, *_SPECIAL_ONE, *TWO, *EITHER, *ANY_NUMBER)}


def number(text: str) -> sp.Number:
    """The exact integer, or exactly the float64, that the digits spell."""
    if text.isdigit():
        if len(text) > 20 or int(text) > MAX_INTEGER:
            raise ExpressionError(f"The integer {shorten(text)} is above 2**53; write a decimal, as in 1e20.")
        return sp.Integer(int(text))
    value = float(text)
    if not math.isfinite(value):
        raise ExpressionError(f"The number {shorten(text)} does not fit in double precision.")
    return sp.Float(value)  # 53 bits: exactly the float64


def power(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """`base**exponent`, after making sure that it is real and cheap to compute."""
    exponent = constant(exponent)
    if base is sp.E and not exponent.is_Number:
        return apply("exp", [exponent])
    if base.is_Add or not exponent.is_Integer:
        base = constant(base) if base is not sp.E else base
    if not exponent.is_Number:
        if base.is_zero:
            raise ExpressionError(f"The power 0 ** {shorten(exponent)} of the constant 0 is not defined everywhere.")
        return base if base is sp.S.One else finite(sp.Pow(base, _small_integers(exponent), evaluate=False))
    if exponent.is_Float and (2 * float(exponent)).is_integer():
        exponent = sp.Rational(int(2 * exponent), 2)  # x**2.0 is x**2, x**0.5 is sqrt(x)
    if abs(exponent) > MAX_EXPONENT:
        raise ExpressionError(f"The exponent {shorten(exponent)} is above {MAX_EXPONENT} in magnitude.")
    if base.is_Number and base.is_negative and not exponent.is_Integer:
        raise ExpressionError(f"The constant {shorten(base)} ** ({exponent}) is not real.")
    bits = max((max(abs(n.p), n.q).bit_length() for n in base.atoms(sp.Rational)), default=0)
    if exponent != -1 and bits * abs(exponent) > MAX_BITS:
        raise ExpressionError(f"The power {shorten(base)} ** {exponent} is too large for double precision.")
    simplify = exponent in (0, 1) or base.is_number or base.is_Atom
    simplify = simplify or (exponent.is_Integer and (base.is_Mul or base.is_Pow))
    return finite(sp.Pow(base, exponent, evaluate=simplify))


def apply(name: str, arguments: Sequence[sp.Expr]) -> sp.Expr:
    """A function call, left as written unless its arguments are plain numbers."""
    if name == "sqrt":
        return power(arguments[0], sp.Rational(1, 2))
    if name not in ("sin", "cos", "tan") or not arguments[0].has(sp.pi):  # sin(pi/2) is 1
        arguments = [constant(argument) for argument in arguments]
    if all(argument.is_number for argument in arguments):
        if name in _SPECIAL:
            arguments = [sp.Float(_value(argument)) for argument in arguments]
        return finite(FUNCTIONS[name](*arguments))
    if name in ANY_NUMBER and len(set(arguments)) == 1:
        return arguments[0]
    if name == "exp" and arguments[0].has(sp.log):
        arguments = [_small_integers(arguments[0])]
    return FUNCTIONS[name](*arguments, evaluate=False)


def constant(expr: sp.Expr) -> sp.Expr:
    """`expr`, as a float if it is a constant that is not rational."""
    return sp.Float(_value(expr)) if expr.is_number and not expr.is_Number else expr


def _small_integers(exponent: sp.Expr) -> sp.Expr:
    """`exponent` with large integers as floats, so that no exact power of them is ever formed."""
    big = [n for n in exponent.atoms(sp.Rational) if abs(n.p) > MAX_EXPONENT * n.q]
    return exponent.xreplace({n: sp.Float(_value(n)) for n in big})


def finite(expr: sp.Expr) -> sp.Expr:
    """`expr` with every number in float64: as a float where it needs more than 53 bits, or refused."""
    if expr.has(sp.zoo, sp.nan, sp.oo, -sp.oo, sp.I):
        raise ExpressionError("A constant part divides by zero or is not real.")
    if expr.is_number:
        _value(expr)
    values = {n: _value(n) for n in expr.atoms(sp.Number)}
    big = {n: sp.Float(v) for n, v in values.items() if n.is_Rational and max(abs(n.p), n.q) > MAX_INTEGER}
    return expr.xreplace(big) if big else expr


def _value(expr: sp.Expr) -> float:
    """A constant as a finite float."""
    try:
        value = float(expr)
    except (TypeError, ValueError, ArithmeticError):
        value = math.nan
    if not math.isfinite(value):
        raise ExpressionError(f"The constant {shorten(expr)} is not real or overflows double precision.")
    return value
