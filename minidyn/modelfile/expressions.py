"""Text to sympy without evaluating anything.

    text ──► tokens ──► nested tuples ──► sympy        (the first two arrows are `grammar`)

A whitelist of functions, subscripts of declared arrays, `Sum(expr, (j, 0, 9))`, and comparisons as the
conditions of `Piecewise((expr, condition), ..., (expr, True))`. Nothing else exists, so nothing else can
happen; every size is checked before the work that it would make expensive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import sympy as sp

from ..errors import ExpressionError
from .grammar import read_tree
from .wording import did_you_mean, shorten

MAX_EXPONENT = 100  # of a power with a numeric exponent
MAX_INTEGER = 2**53  # beyond it an integer is no longer exactly a float64
MAX_BITS = 1_100  # of any integer that a constant power may produce; a float64 ends at 2**1024
MAX_RANGE = 10_000_000  # terms of one Sum

_ONE_ARGUMENT = "exp log sin cos tan asin acos atan sinh cosh tanh erf Abs sign Heaviside sqrt"
_ANY_NUMBER = ("Min", "Max")
FUNCTIONS: dict[str, Any] = {name: getattr(sp, name) for name in (*_ONE_ARGUMENT.split(), *_ANY_NUMBER)}
SPECIAL_FORMS = ("Piecewise", "Sum")
NUMBERS = {"pi": sp.pi, "E": sp.E}
RELATIONS = {"<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge, "==": sp.Eq, "!=": sp.Ne}


def parse_expression(text: str, symbols: Mapping[str, Any]) -> sp.Expr:
    """The sympy expression that `text` spells, built from `symbols` and a whitelist of functions.

    `symbols` maps each name that `text` may use to a `Symbol` or an `IndexedBase` (with its shape, if
    indices shall be checked against it); a name may be anything, `lambda`, `in` and `x_{1}` included.
    Integers up to 2**53 stay exact; a decimal is the float64 that Python reads. Nothing is evaluated.

    Raises `ExpressionError`, one sentence, for anything outside the grammar or over a limit.
    """
    return _in_float64(_Builder(symbols).expression(read_tree(text, symbols)))


class _Builder:
    """Nested tuples to sympy, bottom up; `ranges` holds the indices of the Sums around."""

    def __init__(self, symbols: Mapping[str, Any]) -> None:
        self.symbols = symbols
        self.ranges: dict[str, tuple[sp.Symbol, int, int]] = {}

    def expression(self, tree: tuple) -> sp.Expr:
        match tree:
            case ("number", text):
                return _number(text)
            case ("name", name):
                return self.name(name)
            case ("+", terms):
                return _finite(sp.Add(*[self.expression(t) for t in terms]))
            case ("*", factors):
                return _finite(sp.Mul(*[self.expression(f) for f in factors]))
            case ("-", operand):
                return -self.expression(operand)
            case ("/", operand):
                return _power(self.expression(operand), sp.Integer(-1))
            case ("**", base, exponent):
                return _power(self.expression(base), self.expression(exponent))
            case ("index", name, indices):
                return self.indexed(name, indices)
            case ("call", "Sum", arguments) if "Sum" not in self.symbols:
                return self.sum(arguments)
            case ("call", "Piecewise", arguments) if "Piecewise" not in self.symbols:
                return self.piecewise(arguments)
            case ("call", name, arguments):
                return self.call(name, arguments)
            case ("compare", relation, *_):
                raise ExpressionError(f"A comparison ({relation}) may only be a condition of Piecewise.")
        raise ExpressionError("A tuple (a, b) is only allowed inside Piecewise and Sum.")

    def name(self, name: str) -> sp.Expr:
        if name in self.ranges:
            return self.ranges[name][0]
        if name in self.symbols:
            if isinstance(self.symbols[name], sp.IndexedBase):
                raise ExpressionError(f"`{name}` is indexed: write one of its entries, as in `{name}[0]`.")
            return self.symbols[name]
        if name in NUMBERS:
            return NUMBERS[name]
        if name in FUNCTIONS or name in SPECIAL_FORMS:
            raise ExpressionError(f"`{name}` is a function and needs arguments in parentheses.")
        raise self.undeclared(name)

    def undeclared(self, name: str) -> ExpressionError:
        known = [*self.symbols, *self.ranges]
        return ExpressionError(f"The name `{name}` is not declared{did_you_mean(name, known)}")

    def call(self, name: str, arguments: list[tuple]) -> sp.Expr:
        if name in self.symbols or name in self.ranges:
            raise ExpressionError(f"`{name}` is a declared symbol, not a function; a product is written *.")
        if name not in FUNCTIONS:
            near = did_you_mean(name, [*FUNCTIONS, *SPECIAL_FORMS])
            raise ExpressionError(f"`{name}` is not a function that expressions may call{near}")
        many = name in _ANY_NUMBER
        if len(arguments) != 1 and not (many and arguments):
            wanted = "at least one argument" if many else "one argument"
            raise ExpressionError(f"`{name}` takes {wanted}, not {len(arguments)}.")
        return _apply(name, [self.expression(argument) for argument in arguments])

    def indexed(self, name: str, indices: list[tuple]) -> sp.Expr:
        base = self.symbols.get(name)
        if base is None:
            raise self.undeclared(name)
        if not isinstance(base, sp.IndexedBase):
            raise ExpressionError(f"`{name}` is a scalar and cannot be indexed.")
        places = [self.expression(index) for index in indices]
        shape = base.shape if base.shape is not None else (None,) * max(1, len(places))
        if len(places) != len(shape):
            raise ExpressionError(f"`{name}` takes {len(shape)} index(es), not {len(places)}.")
        for place, size in zip(places, shape, strict=True):
            self.check_index(name, place, size)
        return base[tuple(places)]

    def check_index(self, name: str, place: sp.Expr, size: Any) -> None:
        """An index is affine in the Sum indices and stays within `0 .. size - 1` over their ranges."""
        ranges = {symbol: (low, high) for symbol, low, high in self.ranges.values()}
        terms = place.as_coefficients_dict()
        if not all((t is sp.S.One or t in ranges) and c.is_Integer for t, c in terms.items()):
            raise ExpressionError(f"The index {shorten(place)} of `{name}` is no integer or Sum index.")
        used = [t for t in terms if t in ranges]
        corners = product(*(ranges[symbol] for symbol in used))
        values = [place.xreplace(dict(zip(used, map(sp.Integer, corner), strict=True))) for corner in corners]
        if size is not None and not (min(values) >= 0 and max(values) < size):
            raise ExpressionError(
                f"The index {shorten(place)} of `{name}` runs from {min(values)} to {max(values)}, "
                f"but `{name}` has entries 0 to {size - 1} there."
            )

    def sum(self, arguments: list[tuple]) -> sp.Expr:
        if len(arguments) < 2 or any(a[0] != "tuple" or len(a[1]) != 3 for a in arguments[1:]):
            raise ExpressionError("`Sum` is written Sum(expression, (j, 0, 9)), with more ranges if needed.")
        outer, limits = self.ranges, []
        for _, (index, low, high) in arguments[1:]:
            limit = _limit(index, self.expression(low), self.expression(high))
            if index[1] in self.symbols or index[1] in self.ranges:
                raise ExpressionError(f"The Sum index `{index[1]}` is already the name of something else.")
            self.ranges = self.ranges | {index[1]: limit}
            limits.append(limit)
        body = self.expression(arguments[0])
        self.ranges = outer
        return sp.Sum(body, *limits)

    def piecewise(self, arguments: list[tuple]) -> sp.Expr:
        if not arguments or any(a[0] != "tuple" or len(a[1]) != 2 for a in arguments):
            raise ExpressionError("Write Piecewise((expression, condition), ..., (expression, True)).")
        if arguments[-1][1][1] != ("name", "True"):
            raise ExpressionError("The last condition of `Piecewise` must be True: it is always defined.")
        pairs = [(self.expression(value), self.condition(condition)) for _, (value, condition) in arguments]
        return sp.Piecewise(*pairs, evaluate=False)

    def condition(self, tree: tuple) -> Any:
        if tree == ("name", "True"):
            return sp.true
        if tree[0] != "compare":
            raise ExpressionError("A condition of `Piecewise` is one comparison, as in x < 0, or True.")
        _, relation, left, right = tree
        a, b = self.expression(left), self.expression(right)
        return RELATIONS[relation](a, b, evaluate=a.is_Number and b.is_Number)


def _limit(index: tuple, low: sp.Expr, high: sp.Expr) -> tuple[sp.Symbol, int, int]:
    """The range of one Sum index, both ends included."""
    if index[0] != "name":
        raise ExpressionError("A range of `Sum` begins with the name of its index, as in (j, 0, 9).")
    if not (low.is_Integer and high.is_Integer and 0 <= high - low < MAX_RANGE):
        raise ExpressionError(
            f"The range of the Sum index `{index[1]}`, {shorten(low)} to {shorten(high)}, must be two "
            f"integers in order, with at most {MAX_RANGE} terms."
        )
    return sp.Symbol(index[1], integer=True), int(low), int(high)


def _number(text: str) -> sp.Number:
    if text.isdigit():
        if len(text) > 20 or int(text) > MAX_INTEGER:
            raise ExpressionError(f"The integer {shorten(text)} is above 2**53; write a decimal, as in 1e20.")
        return sp.Integer(int(text))
    value = float(text)
    if not math.isfinite(value):
        raise ExpressionError(f"The number {shorten(text)} does not fit in double precision.")
    return sp.Float(value)  # 53 bits: exactly the float64


def _power(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """`base**exponent`, after making sure that it is real and cheap to compute."""
    if not exponent.is_Number:
        return _apply("exp", [exponent]) if base is sp.E else _finite(base ** _without_big_integers(exponent))
    if exponent.is_Float and (2 * float(exponent)).is_integer():
        exponent = sp.Rational(int(2 * exponent), 2)  # x**2.0 is x**2, x**0.5 is sqrt(x)
    if abs(exponent) > MAX_EXPONENT:
        raise ExpressionError(f"The exponent {shorten(exponent)} is above {MAX_EXPONENT} in magnitude.")
    if base.is_negative and base.is_Number and not exponent.is_Integer:
        raise ExpressionError(f"The constant {shorten(base)} ** ({exponent}) is not real.")
    bits = max((max(abs(n.p), n.q).bit_length() for n in base.atoms(sp.Rational)), default=0)
    if exponent != -1 and bits * abs(exponent) > MAX_BITS:
        raise ExpressionError(f"The power {shorten(base)} ** {exponent} is too large for double precision.")
    return _finite(base**exponent)


def _apply(name: str, arguments: list[sp.Expr]) -> sp.Expr:
    """A function call, left as written unless its arguments are plain numbers.

    sympy's own simplifications can take long, or turn exp(n*log(2)) into 2**n for any n.
    """
    if name == "sqrt":
        return _power(arguments[0], sp.Rational(1, 2))
    if all(argument.is_Number for argument in arguments):
        value = _finite(FUNCTIONS[name](*arguments))
        if value.is_extended_real is False:
            raise ExpressionError(f"The constant {shorten(value)} is not real.")
        return value
    if name in ("Min", "Max") and len(set(arguments)) == 1:
        return arguments[0]
    if name == "exp" and arguments[0].has(sp.log):
        arguments = [_without_big_integers(arguments[0])]
    return FUNCTIONS[name](*arguments, evaluate=False)


def _without_big_integers(expr: sp.Expr) -> sp.Expr:
    """The same exponent with large integers as floats, so that no exact power of them is ever formed."""
    big = [n for n in expr.atoms(sp.Rational) if abs(n.p) > MAX_EXPONENT * n.q]
    return expr.xreplace({n: sp.Float(float(n)) for n in big})


def _finite(expr: sp.Expr) -> sp.Expr:
    """`expr`, if it is not a constant that float64 lacks."""
    bad = expr.is_number and expr.has(sp.zoo, sp.nan, sp.oo, sp.I)
    if bad or (expr.is_Number and not math.isfinite(_as_float(expr))):
        raise ExpressionError("A constant part divides by zero, is not real, or overflows double precision.")
    return expr


def _in_float64(expr: sp.Expr) -> sp.Expr:
    """`expr` with every number finite, and as a float where an exact one needs more than 53 bits."""
    big = [n for n in expr.atoms(sp.Number) if not n.is_Rational or max(abs(n.p), n.q) > MAX_INTEGER]
    if expr.has(sp.I) or not all(math.isfinite(_as_float(n)) for n in big):
        raise ExpressionError(f"The expression {shorten(expr)} holds a number that is not real or finite.")
    return expr.xreplace({n: sp.Float(float(n)) for n in big if n.is_Rational})


def _as_float(number: sp.Number) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
