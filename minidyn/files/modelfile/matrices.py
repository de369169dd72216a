"""Matrices in expressions: what `+ - * @ ** .T [i, j]` and functions make of them, after a look at their sizes.

A declared vector of n numbers that stands without index is a column, n x 1. A 1 x 1 matrix is a number where one is
expected. A function of numbers acts on every entry.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction
from sympy.matrices.expressions.diagonal import DiagMatrix
from sympy.matrices.expressions.matexpr import MatrixElement
from sympy.matrices.expressions.slice import MatrixSlice

from minidyn.common.errors import ExpressionError
from minidyn.files.modelfile.algebra import MAX_EXPONENT
from minidyn.files.modelfile.wording import shorten

MAX_SIDE = 10_000  # rows or columns of an identity


def is_matrix(e: Any) -> bool:
    """Whether an expression is a matrix, of whatever size."""
    return isinstance(e, sp.MatrixExpr)


def is_table(e: Any) -> bool:
    """Whether it is a matrix of more than one number, or of none: a 1 x 1 matrix is a number where one is expected."""
    return is_matrix(e) and e.shape != (1, 1)


def sized(e: Any) -> str:
    """The expression and its size, for an error sentence."""
    return f"{shorten(e)} is " + (f"{e.shape[0]} x {e.shape[1]}" if is_matrix(e) else "a number")


def number(e: Any) -> Any:
    """`e` where a number is expected; ExpressionError for a matrix of more than one."""
    if not is_matrix(e):
        return e
    if e.shape == (1, 1):
        return MatrixElement(e, 0, 0)
    ways = f"its Norm or Trace, or an entry, as in {shorten(f'({e})[0, 0]')}"
    if isinstance(e, sp.MatrixSymbol):
        ways = f"it is indexed: write an entry, as in {shorten(f'{e}[0]' if e.shape[1] == 1 else f'{e}[0, 0]')}"
    raise ExpressionError(f"{sized(e)} where a number is expected; {ways}.")


def add(terms: Sequence[Any]) -> Any:
    """The sum of matrices of one size."""
    if not all(map(is_matrix, terms)):  # a 1 x 1 matrix and a number make a number
        odd = next(filter(is_table, terms), None)
        if odd is not None:
            plain = next(t for t in terms if not is_matrix(t))
            size = f"{odd.shape[0]}, {odd.shape[1]}"
            way = f"; for it in every entry write {plain}*OneMatrix({size})" if plain.is_Atom else ""
            raise ExpressionError(f"{sized(odd)} and {sized(plain)}: they do not add{way}.")
        return sp.Add(*map(number, terms))
    _alike("add", terms)
    return sp.MatAdd(*terms).doit(deep=False)


def multiply(factors: Sequence[Any], tied: frozenset[int] = frozenset()) -> Any:
    """The product of numbers and matrices; before the factors in `tied` stands an `@`, which is for matrices alone."""
    for k in tied:
        for f in factors[k - 1 : k + 1]:
            if f.is_Atom and not is_matrix(f):  # others may be matrices that happen to be 1 x 1
                raise ExpressionError(f"{sized(f)}, and `@` multiplies matrices; a product with a number is written *.")
    parts = [f for f in factors if is_table(f)]
    numbers = [number(f) for f in factors if not is_table(f)]
    for left, right in pairwise(parts):
        if left.shape[1] != right.shape[0]:
            raise ExpressionError(f"{sized(left)} and {sized(right)}: they do not fit in a product.")
    return sp.MatMul(*numbers, *parts).doit(deep=False) if parts else sp.Mul(*numbers)


def power(base: Any, exponent: Any) -> Any:
    """A whole power of a square matrix."""
    if is_matrix(exponent) or not exponent.is_Integer:
        raise ExpressionError(f"The power {shorten(base)} ** {shorten(exponent)}: the exponent must be a whole number.")
    if abs(exponent) > MAX_EXPONENT:
        raise ExpressionError(f"The exponent {shorten(exponent)} is above {MAX_EXPONENT} in magnitude.")
    _square("have powers", base)
    return sp.MatPow(base, exponent).doit(deep=False)


def turned(e: Any) -> Any:
    """`e.T`"""
    if not is_matrix(e):
        raise ExpressionError(f"{sized(e)} and has no `.T`, which transposes a matrix.")
    return sp.Transpose(e).doit(deep=False)


def entry(e: Any, places: Sequence[Any], check: Callable[[str, sp.Expr, Any], None]) -> Any:
    """`e[i, j]`, of a column `e[i]` too; a matrix where a place is a range (start, stop, step), from `a:b`."""
    if not is_matrix(e):
        raise ExpressionError(f"{shorten(e)} is a scalar and cannot be indexed.")
    if len(places) == 1 and e.shape[1] == 1:
        places = [*places, sp.S.Zero]
    if len(places) != 2:
        raise ExpressionError(f"{sized(e)} and takes 2 indices, row and column, not {len(places)}.")
    if not any(isinstance(p, tuple) for p in places):
        for p, size in zip(places, e.shape, strict=True):
            check(str(e), p, size)
        return MatrixElement(e, *places)
    return MatrixSlice(e, *(_range(e, p, int(size)) for p, size in zip(places, e.shape, strict=True)))


def _range(e: Any, place: Any, size: int) -> tuple[int, int, int]:
    start, stop, step = place if isinstance(place, tuple) else (place, None if place == -1 else place + 1, None)
    if not all(p is None or p.is_Integer for p in (start, stop, step)) or not (step is None or step > 0):
        raise ExpressionError(f"A range of {shorten(e)} is written with integers, upwards, as in `0:3` or `0:9:2`.")
    found = range(size)[slice(*(None if p is None else int(p) for p in (start, stop, step)))]
    if not found:
        text = ":".join("" if p is None else str(p) for p in (start, stop))
        raise ExpressionError(f"The range {shorten(text)} chooses none of the {size} rows or columns of {shorten(e)}.")
    return found.start, found[-1] + 1, found.step


def applied(make: Callable[[list[Any]], Any], arguments: Sequence[Any], taken: Sequence[str]) -> Any:
    """A function of numbers where one argument is a matrix, with each of its entries."""
    places = [k for k, a in enumerate(arguments) if is_matrix(a)]
    if len(places) > 1:
        two = " and ".join(sized(arguments[k]) for k in places[:2])
        raise ExpressionError(f"{two}: a function of numbers acts on the entries of one matrix, not of several.")
    (place,), name = places, "t"
    while name in taken:
        name += "_"
    letter = sp.Symbol(name)
    body = make([letter if k == place else a for k, a in enumerate(arguments)])
    return ElementwiseApplyFunction(sp.Lambda(letter, body), arguments[place])


def written(rows: Sequence[Sequence[Any]]) -> Any:
    """`Matrix((a, b), (c, d))`, of numbers or of blocks."""
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ExpressionError("The rows of a `Matrix` must be of one length, as in Matrix((a, b), (c, d)).")
    if not any(is_matrix(e) for row in rows for e in row):
        return sp.ImmutableMatrix(rows)
    blocks = [list(map(_block, row)) for row in rows]
    for what, lines, axis in (("beside", blocks, 0), ("below", list(zip(*blocks, strict=True)), 1)):
        for line in lines:
            odd = next((e for e in line if e.shape[axis] != line[0].shape[axis]), None)
            if odd is not None:
                raise ExpressionError(f"{sized(line[0])} and {sized(odd)}: they do not stand {what} each other.")
    return sp.BlockMatrix(blocks)


def _block(e: Any) -> Any:
    return e if is_matrix(e) else sp.ImmutableMatrix([[e]])


def called(name: str, arguments: Sequence[Any]) -> Any:
    """A function of `NAMES` of matrices, or of sizes."""
    least, most, kind, build = NAMES[name]
    first = 1 if name == "HadamardPower" else most  # so many of the arguments are matrices
    if not least <= len(arguments) <= most:
        wanted = {(1, 1): "one argument", (2, 2): "two arguments"}.get((least, most), "at least one argument")
        raise ExpressionError(f"{shorten(name)} takes {wanted}, not {len(arguments)}.")
    if kind == "matrix" and not arguments[0].is_Atom:  # a number may be a matrix that happens to be 1 x 1
        arguments = [*map(_block, arguments[:first]), *arguments[first:]]
    for k, a in enumerate(arguments):
        if kind == "matrix" and k < first and not is_matrix(a):
            raise ExpressionError(f"{shorten(name)} is of a matrix, and {sized(a)}.")
        if kind == "size" and not (not is_matrix(a) and a.is_Integer and 0 < a <= MAX_SIDE):
            raise ExpressionError(f"{shorten(name)} takes sizes, whole numbers from 1 to {MAX_SIDE}, not {shorten(a)}.")
    found = build(*arguments)
    return found if found.free_symbols or is_matrix(found) else found.doit()


def _alike(what: str, parts: Sequence[Any]) -> None:
    for p in parts[1:]:
        if p.shape != parts[0].shape:
            raise ExpressionError(f"{sized(parts[0])} and {sized(p)}: only matrices of one size {what}.")


def _square(what: str, e: Any) -> Any:
    if e.shape[0] != e.shape[1]:
        raise ExpressionError(f"{sized(e)}: only square matrices {what}.")
    return e


def _hadamard(*parts: Any) -> Any:
    _alike("have a product entry by entry", parts)
    return sp.HadamardProduct(*parts).doit(deep=False)


def _diagonal(e: Any) -> Any:
    if 1 not in e.shape:
        raise ExpressionError(f"{sized(e)}: `DiagMatrix` is made of a column or a row.")
    return DiagMatrix(e)


_ANY = 10**9
NAMES: dict[str, tuple[int, int, str, Callable[..., Any]]] = {
    "Trace": (1, 1, "matrix", lambda e: sp.Trace(_square("have a trace", e))),
    "Norm": (1, 1, "matrix", lambda e: sp.sqrt(sp.Trace(sp.MatMul(turned(e), e).doit(deep=False)))),
    "Determinant": (1, 1, "matrix", lambda e: sp.Determinant(_square("have a determinant", e))),
    "Inverse": (1, 1, "matrix", lambda e: sp.Inverse(_square("have an inverse", e)).doit(deep=False)),
    "Transpose": (1, 1, "matrix", turned),
    "HadamardProduct": (1, _ANY, "matrix", _hadamard),
    "HadamardPower": (2, 2, "matrix", lambda e, n: sp.HadamardPower(e, number(n))),
    "DiagMatrix": (1, 1, "matrix", _diagonal),
    "Identity": (1, 1, "size", sp.Identity),
    "ZeroMatrix": (2, 2, "size", sp.ZeroMatrix),
    "OneMatrix": (2, 2, "size", sp.OneMatrix),
}
