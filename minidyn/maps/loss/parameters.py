"""The parameters of a loss: which symbols they are, and where each stands in the vector `w`."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.errors import InputError
from minidyn.common.intake import finite, numbers, ordered, shown, whole


def unused(name: str, taken: set[str]) -> str:
    """The name, lengthened until no other one bears it."""
    while name in taken:
        name += "_"
    return name


def vector(name: str, size: int) -> sp.IndexedBase:
    """An indexed parameter or input of `size` entries, for sums over units or features.

    >>> import sympy as sp, minidyn as md
    >>> a, j = md.vector("a", 100), sp.Symbol("j", integer=True)
    >>> md.Loss(sp.Sum(a[j]**2, (j, 0, 99)), [a]).dim
    100
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"the name of a vector is a text such as 'a', not {shown(name)}.")
    return sp.IndexedBase(name, shape=(whole("the size of a vector", size, 1),), real=True)


def matrix(name: str, rows: int, columns: int) -> sp.MatrixSymbol:
    """A matrix of parameters, constants or data, for losses in `+ - @ .T`, `Trace`, `Inverse`, ...

    As a parameter its entries stand in `w` row after row.

    >>> import sympy as sp, minidyn as md
    >>> A, B = md.matrix("A", 20, 3), md.matrix("B", 3, 20)
    >>> loss = md.Loss(sp.Trace((A @ B - sp.Identity(20)) @ (A @ B - sp.Identity(20)).T) / 2, [A, B])
    >>> loss.dim, loss.value([0.0] * 120)
    (120, 10.0)
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"the name of a matrix is a text such as 'W', not {shown(name)}.")
    sizes = (whole(f"the number of {what} of a matrix", n, 1) for what, n in (("rows", rows), ("columns", columns)))
    return sp.MatrixSymbol(name, *sizes)


@dataclass(frozen=True)
class Block:
    """Consecutive entries of the parameter vector that belong to one symbol."""

    name: str
    symbol: Any
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """How many entries of `w` belong to the symbol."""
        return math.prod(self.shape)


def lay_out(params: Sequence[Any]) -> list[Block]:
    """One block after the other, in the order given; the entries of an explicit matrix are blocks of their own."""
    blocks: list[Block] = []
    offset = 0
    for p in params:
        if isinstance(p, sp.MatrixBase):
            entries = lay_out(list(p))
            blocks += [Block(b.name, b.symbol, b.shape, b.offset + offset) for b in entries]
            offset += len(entries)
            continue
        blocks.append(Block(str(label_of(p)), p, shape_of(p), offset))
        offset += blocks[-1].size
    if not blocks:
        raise InputError("a loss needs at least one parameter; params is empty.")
    twice = sorted(name for name, times in Counter(b.name for b in blocks).items() if times > 1)
    if twice:
        raise InputError(f"the parameter {twice[0]} is listed more than once.")
    return blocks


def label_of(p: Any) -> Any:
    """The symbol that names a parameter or an input, for `md.vector` that of the whole."""
    return p.label if isinstance(p, sp.IndexedBase) else p


def name_of(key: Any) -> str:
    """What a parameter goes by, as `Loss.param_names` has it, by its name or as a symbol or an entry of a matrix.

    >>> name_of(sp.MatrixSymbol("W", 3, 2)[0, 1])
    'W[0,1]'
    """
    return str(key).replace(", ", ",") if isinstance(key, sp.Basic) else str(key)


def shape_of(p: Any, what: str = "a parameter") -> tuple[int, ...]:
    """The shape of a parameter, () for a scalar; InputError for what is none."""
    if isinstance(p, sp.Symbol):
        return ()
    if isinstance(p, (sp.IndexedBase, sp.MatrixSymbol)):
        if p.shape is None or not all(sp.sympify(n).is_Integer for n in p.shape):
            raise InputError(f"{p} needs a shape of whole numbers, such as md.vector('{p}', 10).")
        return tuple(int(n) for n in p.shape)
    raise InputError(
        f"{shown(p)} cannot be {what}: use sympy Symbols, matrices of symbols, MatrixSymbols or md.vector(...)."
    )


def as_list(params: Any) -> list[Any]:
    """Parameters as a list, a single one too."""
    return [params] if isinstance(params, (sp.Symbol, sp.IndexedBase, sp.MatrixSymbol)) else ordered(params, "params")


def constant(symbol: Any, value: Any) -> Any:
    """The number of a constant, or those of a matrix or an `md.vector`."""
    shape = () if isinstance(symbol, sp.Symbol) else shape_of(symbol, "a constant")
    if not shape:
        return finite(value, f"the constant {symbol}")
    array = numbers(value, f"the constant {label_of(symbol)}")
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(
            f"the constant {label_of(symbol)} must be an array of finite numbers of shape {shape}, not {shown(value)}."
        )
    return array
