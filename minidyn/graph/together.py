"""Sums and products that are read as a whole: quotients of exponentials, `c f(a) - c`, signed roots."""

from typing import Any

import sympy as sp

from minidyn.graph.exponentials import Exponentials, Form
from minidyn.graph.nodes import Graph, Node
from minidyn.graph.numbers import double


class Together:
    """The part of a `Converter` that looks at several terms or factors at once; `go` gives the node of one of them."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.exponentials = Exponentials(graph)
        self._exponential: dict[int, sp.Basic] = {}  # what holds exponentials, by id

    def _small(self, args: list[sp.Basic], go: Any) -> Node | None:
        """`c f(a) - c` for a function f that may be near 1, None for other sums."""
        if len(args) != 2 or not args[0].is_Number:
            return None
        g, (c, f) = self.graph, args[1].as_coeff_Mul()
        if isinstance(f, sp.exp) and c == -args[0]:
            return g.mul(double(c), g.unary("expm1", go(f.args[0])))
        if isinstance(f, (sp.cosh, sp.cos)) and c == -args[0]:
            half = g.unary("sinh" if isinstance(f, sp.cosh) else "sin", 0.5 * go(f.args[0]))
            return g.mul(2.0 * double(c) * (1 if isinstance(f, sp.cosh) else -1), g.powi(half, 2))
        if isinstance(f, sp.erf) and abs(c) == abs(args[0]):
            x = go(f.args[0])
            return g.mul(double(args[0]), g.unary("erfc", -x if c == args[0] else x))
        if isinstance(f, sp.erfc) and c == -args[0] / 2:  # so sympy writes erfc(-a)
            return g.mul(double(-c), g.unary("erfc", -go(f.args[0])))
        return None

    def _met(self, args: list[sp.Basic], go: Any) -> Node | None:
        """The sum of quotients of exponentials in which terms cancel, as in 1 - tanh(x), None for others."""
        if len(args) > 4 or not all(a.is_Number or id(a) in self._exponential for a in args):
            return None
        forms = [f for f in (self.exponentials.form(go(a)) for a in args) if f is not None]
        if len(forms) < len(args) or not any(f.quotient for f in forms):
            return None
        total = self.exponentials.added(forms)
        return None if total is None or not self.exponentials.cancelled else self.exponentials.product(total)

    def _signed(self, factors: list[Any], go: Any) -> list[Any]:
        """The factors, with `sign(u) |u|^q` as one function: a real root, whose slope at 0 is infinite and not NaN."""
        roots = {
            f.base.args[0]: f
            for f in factors
            if isinstance(f, sp.Pow) and isinstance(f.base, sp.Abs) and f.exp.is_Rational and not f.exp.is_Integer
        }
        for u, f in roots.items():
            if sp.sign(u) in factors:
                x = go(u)
                root = (
                    self.graph.unary("cbrt", x)
                    if f.exp == sp.Rational(1, 3)
                    else self.graph.make("signed_pow", (x, self.graph.const(double(f.exp))))
                )
                factors = [root, *(a for a in factors if a not in (f, sp.sign(u)))]
        return factors

    def _quotient(self, factors: list[sp.Basic], go: Any) -> tuple[Node, list[sp.Basic]] | None:
        """What is a quotient of sums of exponentials among the factors of a product, and the other factors."""
        if not any(self._divides(f) for f in factors):
            return None
        found, others = Form(1.0), []
        for f in factors:
            base, exponent = f.args if isinstance(f, sp.Pow) and f.exp.is_Rational else (f, sp.S.One)
            known = id(f) in self._exponential and abs(exponent) <= 8
            form = self.exponentials.form(go(base)) if known else None
            if form is not None and not (exponent.is_Integer or form.positive):
                form = None
            if form is None or not form.coefficient:
                others.append(f)
            else:
                found = found.times(form, float(exponent))
        if len(others) == len(factors):
            return None
        for k, f in enumerate(others):
            node = None if f.is_Number else self.exponentials.bernoulli(found, go(f))
            if node is not None:
                return node, others[:k] + others[k + 1 :]
        node = self.exponentials.product(found)
        return None if node is None else (node, others)

    def _divides(self, f: sp.Basic) -> bool:
        """Whether a factor is a negative or broken power of something with exponentials."""
        if id(f) not in self._exponential or not isinstance(f, sp.Pow) or not f.exp.is_Rational:
            return False
        return bool(f.exp.is_negative) or not f.exp.is_Integer
