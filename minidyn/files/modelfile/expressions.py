"""Text to sympy without evaluating anything.

    text ──► tokens ──► nested tuples ──► sympy        (the first two arrows are `grammar`)

A whitelist of functions, subscripts of declared arrays, whole ones as `matrices`, `Sum(expr, (j, 0, 9))`, and
comparisons as the conditions of `Piecewise((expr, condition), ..., (expr, True))`. Nothing else exists, so
nothing else can happen; `algebra` keeps each step small.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import sympy as sp

from minidyn.common.errors import ExpressionError
from minidyn.files.modelfile import algebra, matrices
from minidyn.files.modelfile.algebra import ANY_NUMBER, EITHER, FUNCTIONS, TWO, constant, finite, power
from minidyn.files.modelfile.grammar import read_tree
from minidyn.files.modelfile.matrices import is_matrix, is_table, number
from minidyn.files.modelfile.wording import did_you_mean, shorten

MAX_RANGE = 10_000_000  # terms of one index
MAX_TERMS = 1_000_000_000  # of Sums in Sums
MAX_CASES = 64  # of all Piecewise in one Sum: sympy multiplies them out

SPECIAL_FORMS = ("Piecewise", "Sum", "Matrix", *matrices.NAMES)
NUMBERS = {"pi": sp.pi, "E": sp.E}
RELATIONS = {"<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge, "==": sp.Eq, "!=": sp.Ne}


def parse_expression(
    text: str, symbols: Mapping[str, Any], sizes: Mapping[str, int] | None = None, whole: bool = False
) -> sp.Expr:
    """The sympy expression that `text` spells, built from `symbols` and a whitelist of functions.

    `symbols` maps each name that `text` may use to a `Symbol` or an `IndexedBase` (with its shape, if
    indices shall be checked against it); a name may be anything, `lambda`, `in` and `x_{1}` included.
    `sizes` has the letters that run from 0 on without a Sum, with how many values each has; `whole` allows a matrix.
    Integers up to 2**53 stay exact; a decimal is the float64 that Python reads. Nothing is evaluated.

    Raises `ExpressionError`, one sentence, for anything outside the grammar or over a limit.
    """
    tree = read_tree(text, symbols)
    try:
        found = _Builder(symbols, sizes or {}).expression(tree)
        return found if whole else number(found)
    except ExpressionError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:  # sympy, where it must compare what is not real
        raise ExpressionError(f"The expression {shorten(text)} compares something that is not real.") from error


class _Builder:
    """Nested tuples to sympy, bottom up; `ranges` holds the indices of the Sums around."""

    def __init__(self, symbols: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self.symbols = symbols
        self.ranges = {name: (sp.Symbol(name, integer=True), 0, size - 1) for name, size in sizes.items()}

    def expression(self, tree: tuple) -> sp.Expr:
        match tree:
            case ("number", text):
                return algebra.number(text)
            case ("name", name):
                return self.name(name)
            case ("+", terms):
                return self.joined(sp.Add, matrices.add, list(map(self.expression, terms)))
            case ("*", factors):
                return self.product(factors)
            case ("-", operand):
                return self.joined(sp.Mul, matrices.multiply, [sp.S.NegativeOne, self.expression(operand)])
            case ("/", operand):
                return self.divisor(self.expression(operand))
            case ("**", base, exponent):
                a, b = self.expression(base), self.expression(exponent)
                return matrices.power(a, b) if is_table(a) else power(number(a), number(b))
            case (".T", operand):
                return matrices.turned(self.expression(operand))
            case ("entry", operand, places):
                return matrices.entry(self.expression(operand), list(map(self.place, places)), self.check_index)
            case ("index", name, indices):
                return self.indexed(name, indices)
            case ("call", "Sum", arguments) if "Sum" not in self.symbols:
                return self.sum(arguments)
            case ("call", "Piecewise", arguments) if "Piecewise" not in self.symbols:
                return self.piecewise(arguments)
            case ("call", "Matrix", arguments) if "Matrix" not in self.symbols:
                return self.matrix(arguments)
            case ("call", name, arguments):
                return self.call(name, arguments)
            case ("compare", relation, *_):
                raise ExpressionError(f"A comparison ({relation}) may only be a condition of Piecewise.")
        raise ExpressionError("A tuple (a, b) is only allowed inside Piecewise, Sum and Matrix.")

    def number(self, tree: tuple) -> sp.Expr:
        """The expression of a tree where a matrix cannot stand."""
        return number(self.expression(tree))

    @staticmethod
    def joined(plain: Any, whole: Any, parts: list[Any]) -> sp.Expr:
        return whole(parts) if any(map(is_matrix, parts)) else finite(plain(*parts))

    def product(self, factors: list[tuple]) -> sp.Expr:
        tied = frozenset(k for k, f in enumerate(factors) if f[0] == "@")
        parts = [self.expression(f[1] if f[0] == "@" else f) for f in factors]
        return matrices.multiply(parts, tied) if tied else self.joined(sp.Mul, matrices.multiply, parts)

    @staticmethod
    def divisor(e: sp.Expr) -> sp.Expr:
        if is_table(e):
            raise ExpressionError(f"{matrices.sized(e)} and nothing is divided by it; a product with Inverse(...) is.")
        return power(number(e), sp.Integer(-1))

    def place(self, tree: tuple) -> Any:
        if tree[0] != "range":
            return self.number(tree)
        if len(tree) > 4:
            raise ExpressionError("A range of an index is written start:stop or start:stop:step.")
        ends = [None if end is None else self.number(end) for end in tree[1:]]
        return (*ends, *[None] * (3 - len(ends)))

    def matrix(self, arguments: list[tuple]) -> sp.Expr:
        if not arguments or any(a[0] != "tuple" for a in arguments):
            raise ExpressionError(
                "`Matrix` is written by rows, as in Matrix((1, 0), (0, 2)); its parts may be matrices."
            )
        return matrices.written([list(map(self.expression, row)) for _, row in arguments])

    def name(self, name: str) -> sp.Expr:
        if name in self.ranges:
            return self.ranges[name][0]
        if name in self.symbols:
            found = self.symbols[name]
            return sp.MatrixSymbol(name, *(*found.shape, 1)[:2]) if isinstance(found, sp.IndexedBase) else found
        if name in NUMBERS:
            return NUMBERS[name]
        if name in FUNCTIONS or name in SPECIAL_FORMS:
            raise ExpressionError(f"{shorten(name)} is a function and needs arguments in parentheses.")
        raise self.undeclared(name)

    def undeclared(self, name: str) -> ExpressionError:
        known = [*self.symbols, *self.ranges]
        return ExpressionError(f"The name {shorten(name)} is not declared{did_you_mean(name, known)}")

    def call(self, name: str, arguments: list[tuple]) -> sp.Expr:
        if name in self.symbols or name in self.ranges:
            raise ExpressionError(f"{shorten(name)} is a declared symbol, not a function; a product is written *.")
        if name in matrices.NAMES:
            return matrices.called(name, [self.expression(argument) for argument in arguments])
        if name not in FUNCTIONS:
            near = did_you_mean(name, [*FUNCTIONS, *SPECIAL_FORMS])
            raise ExpressionError(f"{shorten(name)} is not a function that expressions may call{near}")
        many = (name in ANY_NUMBER and len(arguments) > 0) or (name in EITHER and len(arguments) == 2)
        if len(arguments) != (2 if name in TWO else 1) and not many:
            wanted = "two arguments" if name in TWO else "one argument"
            wanted = "at least one argument" if name in ANY_NUMBER else wanted
            wanted = "one or two arguments" if name in EITHER else wanted
            raise ExpressionError(f"{shorten(name)} takes {wanted}, not {len(arguments)}.")
        given = [self.expression(argument) for argument in arguments]
        if not any(map(is_table, given)):
            return algebra.apply(name, list(map(number, given)))
        return matrices.applied(partial(algebra.apply, name), given, [*self.symbols, *self.ranges])

    def indexed(self, name: str, indices: list[tuple]) -> sp.Expr:
        base = self.symbols.get(name)
        if base is None:
            raise self.undeclared(name)
        if not isinstance(base, sp.IndexedBase):
            raise ExpressionError(f"{shorten(name)} is a scalar and cannot be indexed.")
        places = list(map(self.place, indices))
        if any(isinstance(place, tuple) for place in places):
            return matrices.entry(self.name(name), places, self.check_index)
        shape = base.shape if base.shape is not None else (None,) * max(1, len(places))
        if len(places) != len(shape):
            raise ExpressionError(f"{shorten(name)} takes {len(shape)} index(es), not {len(places)}.")
        for place, size in zip(places, shape, strict=True):
            self.check_index(name, place, size)
        return base[tuple(places)]

    def check_index(self, name: str, place: sp.Expr, size: Any) -> None:
        """An index is affine in the Sum indices and stays within `0 .. size - 1` over their ranges."""
        ranges = {symbol: (low, high) for symbol, low, high in self.ranges.values()}
        terms = place.as_coefficients_dict()
        if not all((t is sp.S.One or t in ranges) and c.is_Integer for t, c in terms.items()):
            raise ExpressionError(f"The index {shorten(place)} of {shorten(name)} is no integer or Sum index.")
        ends = [[int(c) * end for end in ranges.get(t, (1, 1))] for t, c in terms.items()]  # each on its own
        least, most = sum(map(min, ends)), sum(map(max, ends))
        if size is not None and not (least >= 0 and most < size):
            raise ExpressionError(
                f"The index {shorten(place)} of {shorten(name)} runs from {least} to {most}, "
                f"but {shorten(name)} has entries 0 to {size - 1} there."
            )

    def sum(self, arguments: list[tuple]) -> sp.Expr:
        if len(arguments) < 2 or any(a[0] != "tuple" or len(a[1]) != 3 for a in arguments[1:]):
            raise ExpressionError("`Sum` is written Sum(expression, (j, 0, 9)), with more ranges if needed.")
        outer, limits = self.ranges, []
        for _, (index, low, high) in arguments[1:]:
            limit = _limit(index, self.number(low), self.number(high))
            if index[1] in self.symbols or index[1] in self.ranges:
                raise ExpressionError(f"The Sum index `{index[1]}` is already the name of something else.")
            self.ranges = self.ranges | {index[1]: limit}
            limits.append(limit)
        if prod(high - low + 1 for _, low, high in self.ranges.values()) > MAX_TERMS:
            index = shorten(limits[-1][0])
            raise ExpressionError(f"The Sum over {index} has more than {MAX_TERMS} terms, those around it included.")
        body = self.number(arguments[0])
        self.ranges = outer
        if not body.free_symbols - {symbol for symbol, _, _ in limits}:
            raise ExpressionError(f"The Sum of {shorten(body)} is a constant: write its value instead.")
        if prod(len(piecewise.args) for piecewise in body.atoms(sp.Piecewise)) > MAX_CASES:
            raise ExpressionError(f"A Sum holds Piecewise with more than {MAX_CASES} cases in all.")
        return finite(sp.Sum(body, *limits))

    def piecewise(self, arguments: list[tuple]) -> sp.Expr:
        if not arguments or any(a[0] != "tuple" or len(a[1]) != 2 for a in arguments):
            raise ExpressionError("Write Piecewise((expression, condition), ..., (expression, True)).")
        if arguments[-1][1][1] != ("name", "True"):
            raise ExpressionError("The last condition of `Piecewise` must be True: it is always defined.")
        pairs = [(self.number(value), self.condition(condition)) for _, (value, condition) in arguments]
        return sp.Piecewise(*pairs, evaluate=False)

    def condition(self, tree: tuple) -> Any:
        if tree == ("name", "True"):
            return sp.true
        if tree[0] != "compare":
            raise ExpressionError("A condition of `Piecewise` is one comparison, as in x < 0, or True.")
        _, relation, left, right = tree
        a, b = constant(self.number(left)), constant(self.number(right))
        if a.has(sp.Piecewise) or b.has(sp.Piecewise):  # sympy would multiply the cases out
            raise ExpressionError("A condition of `Piecewise` must not hold another `Piecewise`.")
        return RELATIONS[relation](a, b, evaluate=a.is_Number and b.is_Number)


def _limit(index: tuple, low: sp.Expr, high: sp.Expr) -> tuple[sp.Symbol, int, int]:
    """The range of one Sum index, both ends included."""
    if index[0] != "name":
        raise ExpressionError("A range of `Sum` begins with the name of its index, as in (j, 0, 9).")
    if not (low.is_Integer and high.is_Integer and 0 <= high - low < MAX_RANGE):
        raise ExpressionError(
            f"The range of the Sum index {shorten(index[1])}, {shorten(low)} to {shorten(high)}, must be two "
            f"integers in order, with at most {MAX_RANGE} terms."
        )
    return sp.Symbol(index[1], integer=True), int(low), int(high)
