"""Sympy expressions of any depth, as graphs: every distinct subexpression is visited once, without recursion.

What sympy prints, or asks of an expression, takes the time of the expression written out as a tree, which doubles
with every layer of `h = sin(h) + cos(h)`, and as many frames of the stack as there are layers.
"""

from collections.abc import Mapping
from typing import Any

import sympy as sp

from minidyn.common.errors import InputError, clipped
from minidyn.common.intake import shown

_WRITTEN, _DEEPEST = 3000, 60  # sympy prints what has at most so many parts and layers
_SHOWN_LAYERS, _SHOWN_PARTS = 3, 4
_DOTS = sp.Symbol(r"...")


def expression(value: Any, what: str) -> sp.Expr:
    """A sympy expression or a number, as it is given: a text is refused, for sympy would evaluate it as Python."""
    try:
        found = sp.sympify(value, strict=True)
    except Exception as e:  # whatever a foreign `_sympy_` raises
        raise InputError(f"{what} must be a sympy expression, not {shown(value)}; build it from sympy symbols.") from e
    if getattr(found, "is_Matrix", False) and found.shape == (1, 1):
        return sp.Trace(found) if isinstance(found, sp.MatrixExpr) else found[0, 0]
    if not isinstance(found, sp.Expr) or found.is_Matrix:
        raise InputError(f"{what} must be one sympy expression, not {shown(value)}.")
    return found


def postorder(e: sp.Basic) -> list[tuple[sp.Basic, tuple[sp.Basic, ...]]]:
    """The distinct subexpressions of an expression with their arguments, arguments first."""
    found: list[tuple[sp.Basic, tuple[sp.Basic, ...]]] = []
    seen: dict[int, sp.Basic] = {}  # keeps them, so that no other gets their id
    todo: list[tuple[sp.Basic, tuple[sp.Basic, ...] | None]] = [(e, None)]
    while todo:
        part, args = todo.pop()
        if args is not None:
            found.append((part, args))
        elif id(part) not in seen:
            seen[id(part)] = part
            args = tuple(a for a in part.args if isinstance(a, sp.Basic))
            todo.append((part, args))
            todo.extend((a, None) for a in args)
    return found


def extent(e: sp.Basic) -> tuple[int, int]:
    """(parts, layers) of the tree that an expression stands for, if it were written out."""
    known: dict[int, tuple[int, int]] = {}
    for part, args in postorder(e):
        inner = [known[id(a)] for a in args]
        known[id(part)] = 1 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    return known[id(e)]


def has_matrices(e: sp.Basic) -> bool:
    """Whether matrices stand in an expression."""
    return any(isinstance(part, sp.MatrixExpr) for part, _ in postorder(e))


def within(e: sp.Basic, most: int) -> bool:
    """Whether an expression written out as a tree has at most so many parts; no more of them are looked at."""
    todo = [e]
    while todo and most:
        most -= 1
        todo.extend(todo.pop().args)
    return not todo


def written(e: sp.Basic) -> bool:
    """Whether an expression is of a size that sympy can write out."""
    size, depth = extent(e)
    return size <= _WRITTEN and depth <= _DEEPEST


def prints(e: sp.Basic) -> bool:
    """Whether sympy can write an expression out, and does not look for its sign by inverting a matrix of entries."""
    return written(e) and not any(
        isinstance(part, (sp.Inverse, sp.MatPow)) and isinstance(part.args[0], sp.MatrixBase)
        for part, _ in postorder(e)
    )


def free_symbols(e: sp.Basic) -> set[Any]:
    """`e.free_symbols`, of deep expressions too (where the letters of sums count as symbols)."""
    return set(e.free_symbols) if written(e) else {s for s, _ in postorder(e) if isinstance(s, sp.Symbol)}


def printed(e: Any, longest: int = 80) -> str:
    """An expression in at most `longest` characters; of one too large for sympy, its outermost layers."""
    return clipped(named(e), longest)


def named(e: Any) -> str:
    """The text of an expression, whatever its length, or of anything else; of one too large, its outermost layers."""
    return str(shortened(e))


def letter(name: str) -> str:
    """A name in LaTeX: a letter as it is, Greek by its name, `beta1` with an index; a word or several upright."""
    head, *more = name.split("_")
    tex = str(sp.latex(sp.Symbol(name)))
    word = (len(head) > 1 and tex.startswith(head)) or (len(more) > 1 and any(len(m) > 1 and m.isalpha() for m in more))
    if name.isascii() and word:
        return rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
    return tex


def latex(e: Any, names: Mapping[Any, str] | None = None) -> str:
    """An expression in LaTeX: words stand upright and apart, and symbols that have `names` as these say."""
    called = {s: letter(s.name) for s in sp.sympify(e).free_symbols if type(s) is sp.Symbol} | dict(names or {})
    apart = r" \, " if any(name.startswith(r"\mathrm") for name in called.values()) else None
    return str(sp.latex(e, symbol_names=called, mul_symbol=apart))


def indexed(tex: str, index: str) -> str:
    """A letter in LaTeX with one more index: `x_{1}` and i make `x_{1,i}`."""
    return f"{tex[:-1]},{index}}}" if tex.endswith("}") and "_{" in tex else f"{tex}_{{{index}}}"


def shortened(e: Any) -> Any:
    """The expression itself, or its outermost layers with dots below where it is too large to be written."""
    return e if not isinstance(e, sp.Basic) or prints(e) else _outermost(e, _SHOWN_LAYERS)


def _outermost(e: sp.Basic, layers: int) -> sp.Basic:
    if not e.args:
        return e
    if not layers:
        return _DOTS
    args = [_outermost(a, layers - 1) for a in e.args[:_SHOWN_PARTS]]
    head = e.func if isinstance(e, (sp.Add, sp.Mul, sp.Pow)) else sp.Function(type(e).__name__)
    if len(e.args) > _SHOWN_PARTS:
        args.append(_DOTS)
    return head(*args, evaluate=False)
