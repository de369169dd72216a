"""Indexed symbols: where they live, and which entry an index in sums is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from minidyn.common.errors import ExpressionError
from minidyn.graph.nodes import Graph, Index, Node

Loops = Mapping[sp.Basic, tuple[Index, int]]  # the symbols that sums run over: their loops, and where they begin


@dataclass(frozen=True)
class Array:
    """Where an indexed symbol lives: `array[offset + strides . index]`; `of` makes something else of what is read."""

    array: str
    offset: int
    shape: tuple[int, ...]
    per: Index | None = None
    of: Callable[[Node], Node] | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """By how many numbers each index moves, the last by one."""
        return tuple(math.prod(self.shape[k + 1 :]) for k in range(len(self.shape)))


def element(graph: Graph, arrays: Mapping[str, Array], loops: Loops, e: Any) -> Node:
    """The load of an entry of a vector or matrix; ExpressionError where it may lie outside of its array."""
    name, positions = str(e.base.label if isinstance(e, sp.Indexed) else e.parent), e.indices
    if name not in arrays:
        known = ", ".join(sorted(arrays)) or "none"
        raise ExpressionError(f"{e}: the indexed symbol {name} is neither a parameter nor data (known: {known}).")
    home = arrays[name]
    if len(home.shape) == 1 and len(positions) == 2 and positions[1] == 0:
        positions = positions[:1]
    if len(positions) != len(home.shape):
        raise ExpressionError(f"{e}: {name} has {len(home.shape)} indices, not {len(positions)}.")
    offset = home.offset
    strides: dict[Index, int] = {}
    for position, stride, length in zip(positions, home.strides, home.shape, strict=True):
        const, reach = sp.sympify(position), []
        for symbol in sorted(position.free_symbols, key=str):
            if symbol not in loops:
                raise ExpressionError(f"{e}: the index {symbol} is not bound by a Sum.")
            slope = sp.diff(position, symbol)
            if not slope.is_Integer:
                raise ExpressionError(f"{e}: an index must be a whole-number combination of sum indices.")
            index, low = loops[symbol]
            strides[index] = strides.get(index, 0) + int(slope) * stride
            const = const.subs(symbol, low)
            reach.append(int(slope) * (index.size - 1))
        if not const.is_Integer:
            raise ExpressionError(f"{e}: the index {position} is not a whole number.")
        least = int(const) + sum(min(r, 0) for r in reach)
        most = int(const) + sum(max(r, 0) for r in reach)
        if least < 0 or most >= length:
            raise ExpressionError(f"{e}: the index runs from {least} to {most}, but {name} has {length} entries.")
        offset += int(const) * stride
    read = graph.load(home.array, offset, [(i, s) for i, s in strides.items() if s], per=home.per)
    return read if home.of is None else home.of(read)
