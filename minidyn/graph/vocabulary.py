"""What sympy's functions are in a graph: one row for each class, from the nodes of its arguments to its own node.

All numbers here are real, so that `re`, `conjugate` and their like are read as well.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import sympy as sp

from minidyn.graph.branches import guarded
from minidyn.graph.functions import of
from minidyn.graph.nodes import Node
from minidyn.graph.poles import sinc
from minidyn.graph.special import READINGS

Reading = Callable[..., Node]
_SAME_NAME = (
    "exp log sin cos tan asin acos atan asec acsc acot sinh cosh tanh csch asinh acosh atanh asech acsch acoth erf erfc"
).split()


def _one(op: str) -> Reading:
    return partial(of, op)


def step(op: str, x: Node) -> Node:
    """A function that is flat between its jumps, its slope NaN with it."""
    return guarded(of(op, x), [x], [x])


def _inverse(op: str) -> Reading:
    """1/f"""
    return lambda x: 1.0 / of(op, x)


def _mod(x: Node, period: Node) -> Node:
    return x - period * of("floor", x / period)


def _rem(x: Node, period: Node) -> Node:
    turns = x / period
    return x - period * (of("sign", turns) * of("floor", of("abs", turns)))


def _atan2(y: Node, x: Node) -> Node:
    return y.graph.make("atan2", (y, x))


def _where(relation: str, a: Node, b: Node, yes: float) -> Node:
    """A number where a comparison holds, 0 elsewhere."""
    g, met = a.graph, a.graph.binary(relation, a, b)
    return guarded(g.select(met, yes, 0.0), [met], [a])


VOCABULARY: dict[Any, Reading] = {
    **{getattr(sp, name): _one(name) for name in _SAME_NAME},
    **{kind: partial(step, op) for kind, op in {sp.sign: "sign", sp.floor: "floor", sp.ceiling: "ceil"}.items()},
    sp.Abs: _one("abs"), sp.Not: _one("not"),
    sp.sec: _inverse("cos"), sp.csc: _inverse("sin"), sp.cot: _inverse("tan"), sp.coth: _inverse("tanh"),
    sp.atan2: _atan2, sp.sinc: sinc,
    sp.Mod: _mod, sp.Rem: _rem, sp.frac: lambda x: x - of("floor", x),
    sp.KroneckerDelta: lambda i, j: _where("eq", i, j, 1.0),
    sp.UnevaluatedExpr: lambda x: x, sp.re: lambda x: x, sp.conjugate: lambda x: x,
    sp.im: lambda x: guarded(x.graph.const(0.0), [x], [x]),
    sp.arg: lambda x: _where("lt", x, x.graph.const(0.0), math.pi),
    **READINGS,
}  # fmt: skip
_OF_C: dict[str, Reading] = {  # of `sympy.codegen.cfunctions`, by name: whoever uses one has loaded them
    "expm1": _one("expm1"), "log1p": _one("log1p"), "Sqrt": _one("sqrt"), "Cbrt": _one("cbrt"),
    "log2": lambda x: of("log", x) / math.log(2.0), "log10": lambda x: of("log", x) / math.log(10.0),
    "exp2": lambda x: x.graph.pow(x.graph.const(2.0), x), "fma": lambda a, b, c: a * b + c,
    "hypot": lambda a, b: of("sqrt", a * a + b * b),
}  # fmt: skip
# read by `reading` as what stands around them allows
_OTHERS = "sech Heaviside Min Max Piecewise ITE Sum Product sqrt".split()
_NAMES = sorted([*_OTHERS, *(k.__name__ for k in VOCABULARY)], key=str.lower)
SUPPORTED = "+ - * / ** < > & | ~ " + " ".join(_NAMES)


def reading_of(kind: type) -> Reading | None:
    """The row of a class; None where it has none."""
    return _OF_C.get(kind.__name__) if kind.__module__ == "sympy.codegen.cfunctions" else VOCABULARY.get(kind)
