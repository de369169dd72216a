"""Sums and quotients of exponentials, read as what they are: logistics, softmax, tanh, log-sum-exp.

A node that is `c e^l S1^k1 S2^k2 ...` with sums `S = sum_i c_i e^(l_i)` is known by its *form* (c, l, {S: k}),
however it was written: terms that cancel do so before anything is rounded, and what is left is made of functions that
keep their digits where exponentials overflow, such that their derivatives are such functions again. Exponents
are linear combinations of nodes, so that `e^x e^(-2x)` and `e^(-x)` are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from minidyn.graph.nodes import Graph, Node
from minidyn.graph.series import over

Exponent = tuple[tuple[int, float], ...]  # (node id, factor), sorted; the constant under -1
Sum = tuple[tuple[Exponent, float], ...]  # (exponent, coefficient) of each term, the one with exponent 0 first
_KNOWN = frozenset("logistic logistic_slope tanh tanh_slope cosh sinh csch expm1 bose".split())
_DEEP, _MOST_TERMS = 12, 12
_SERIES = over(  # x/(e^x - 1)
    [Fraction(k == 0) for k in range(25)], [Fraction(1, math.factorial(k + 1)) for k in range(25)]
)


@dataclass(frozen=True)
class Form:
    """`coefficient * exp(exponent) * product of sum**power`."""

    coefficient: float
    exponent: Exponent = ()
    powers: dict[Sum, float] = field(default_factory=dict)

    def times(self, other: Form, power: float = 1.0) -> Form:
        """`self * other**power`, with equal sums counted together."""
        powers = dict(self.powers)
        for s, k in other.powers.items():
            powers[s] = powers.get(s, 0.0) + power * k
        coefficient, exponent = self.coefficient * other.coefficient**power, _plus(self.exponent, other.exponent, power)
        return Form(coefficient, exponent, {s: k for s, k in powers.items() if k})

    @property
    def quotient(self) -> bool:
        """Whether a sum stands in the denominator."""
        return any(k < 0 for k in self.powers.values())

    @property
    def positive(self) -> bool:
        """Whether the form is positive everywhere because all its coefficients are."""
        return self.coefficient > 0 and all(c > 0 for s in self.powers for _, c in s)


_ONE = Form(1.0)


def _plus(a: Exponent, b: Exponent, factor: float = 1.0) -> Exponent:
    out = dict(a)
    for place, c in b:
        out[place] = out.get(place, 0.0) + factor * c
    return tuple(sorted((place, c) for place, c in out.items() if c))


def _scaled(a: Exponent, factor: float) -> Exponent:
    return _plus((), a, factor)


def _constant(a: Exponent) -> bool:
    return all(place == -1 for place, _ in a)


def _factored(terms: dict[Exponent, float]) -> Form | None:
    """A sum of terms as one: a term outside, so that sums that differ by a factor are the same."""
    terms = {e: c for e, c in terms.items() if c}
    if not terms or len(terms) > _MOST_TERMS:
        return None if terms else Form(0.0)
    if len(terms) == 1:
        ((e, c),) = terms.items()
        return Form(c, e)
    candidates = [tuple(sorted((_plus(e, base, -1.0), c / b) for e, c in terms.items())) for base, b in terms.items()]
    chosen = max(candidates)
    base, b = list(terms.items())[candidates.index(chosen)]
    return Form(b, base, {chosen: 1.0})


class Exponentials:
    """The forms of the nodes of one graph, and nodes for forms."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self._forms: dict[int, Form | None] = {}
        self._shifted: dict[int, Node] = {}
        self._written: dict[Exponent, Node] = {}

    # -- nodes as forms -----------------------------------------------------------------------------
    def form(self, n: Node, depth: int = 0) -> Form | None:
        """The form of a node, None where it is no product of sums of exponentials."""
        if n.id not in self._forms and depth < _DEEP:
            self._forms[n.id] = self._form(n, depth + 1)
        return self._forms.get(n.id)

    def _form(self, n: Node, depth: int) -> Form | None:
        if n.op == "const":
            return Form(n.data)
        if n.op == "exp":
            return Form(1.0, self.linear(n.args[0]))
        if n.op in _KNOWN:
            return self.function(n.op, n.args[0])
        if n.op == "sum" and (body := self.form(n.args[0], depth)) and body.coefficient > 0 and body.exponent:
            return Form(1.0, ((self._log_of_loop(n, body).id, 1.0),))
        if n.op == "select":
            return self._choice(n, depth)
        if n.op in ("add", "sub"):
            parts = [self.form(a, depth) for a in reversed(n.args)]
            if parts[0] is None or parts[1] is None:
                return None
            return self.added([parts[1], parts[0] if n.op == "add" else parts[0].times(Form(-1.0))])
        if n.op not in ("neg", "mul", "div", "powi"):
            return None
        forms = [self.form(a, depth) for a in n.args]
        if any(f is None or not f.coefficient for f in forms):
            return None
        first = forms[0]
        assert first is not None
        if n.op == "neg":
            return first.times(Form(-1.0))
        if n.op == "powi":
            return _ONE.times(first, float(n.data)) if abs(n.data) <= _MOST_TERMS else None
        assert forms[1] is not None
        return first.times(forms[1], 1.0 if n.op == "mul" else -1.0)

    def _choice(self, n: Node, depth: int) -> Form | None:
        """`e^a` under a condition, else `e^b`, however many: the exponential of that choice."""
        conditions, arms = [], []
        while n.op == "select":
            conditions.append(n.args[0])
            arms.append(n.args[1])
            n = n.args[2]
        forms = [self.form(a, depth) for a in (*arms, n)]
        logs = [self.log(f) for f in forms if f is not None and f.positive]
        found = [a for a in logs if a is not None]
        if len(found) < len(forms):
            return None
        out = found.pop()
        for condition, a in zip(reversed(conditions), reversed(found), strict=True):
            out = self.graph.select(condition, a, out)
        return Form(1.0, self.linear(out))

    def function(self, op: str, of: Node) -> Form | None:
        """The form of a function of a node."""
        x = self.linear(of)
        twice = _scaled(x, 2.0)
        plus, minus = _factored({(): 1.0, twice: 1.0}), _factored({(): -1.0, twice: 1.0})
        once = _factored({(): 1.0, x: 1.0})
        if plus is None or minus is None or once is None or not x:
            return None
        back = Form(0.5, _scaled(x, -1.0))
        if op in ("expm1", "bose"):
            less = _factored({(): -1.0, x: 1.0})
            return None if less is None else _ONE.times(less, 1.0 if op == "expm1" else -1.0)
        return {
            "logistic": Form(1.0, x).times(once, -1.0),
            "logistic_slope": Form(1.0, x).times(once, -2.0),
            "tanh": minus.times(plus, -1.0),
            "tanh_slope": Form(4.0, twice).times(plus, -2.0),
            "cosh": back.times(plus),
            "sinh": back.times(minus),
            "sech": _ONE.times(back.times(plus), -1.0),
            "csch": _ONE.times(back.times(minus), -1.0),
        }[op]

    def linear(self, n: Node, depth: int = 0) -> Exponent:
        """A node as a linear combination of others."""
        found = self._combination(n, depth)
        if not depth:
            self._written.setdefault(found, n)
        return found

    def _combination(self, n: Node, depth: int) -> Exponent:
        if n.op == "const":
            return ((-1, n.data),) if n.data else ()
        if depth < _DEEP:
            if n.op in ("add", "sub"):
                a, b = (self.linear(x, depth + 1) for x in n.args)
                return _plus(a, b, 1.0 if n.op == "add" else -1.0)
            if n.op == "neg":
                return _scaled(self.linear(n.args[0], depth + 1), -1.0)
            if n.op == "mul" and n.args[0].is_const:
                return _scaled(self.linear(n.args[1], depth + 1), n.args[0].data)
            if n.op == "div" and n.args[1].is_const and n.args[1].data:
                return _scaled(self.linear(n.args[0], depth + 1), 1.0 / n.args[1].data)
        return ((n.id, 1.0),)

    def added(self, forms: Sequence[Form]) -> Form | None:
        """The form of a sum over its common denominator."""
        common = _ONE
        for s in {s: None for f in forms for s in f.powers}:
            least = min(f.powers.get(s, 0.0) for f in forms)
            common = common.times(Form(1.0, (), {s: least} if least < 0 else {}))
        terms: dict[Exponent, float] = {}
        for f in forms:
            tops = self._multiplied(f.times(common, -1.0))
            if tops is None:
                return None
            for e, c in tops.items():
                terms[e] = terms.get(e, 0.0) + c
        self.cancelled = any(not c for c in terms.values())
        total = _factored(terms)
        return None if total is None else total.times(common) if total.coefficient else total

    @staticmethod
    def _multiplied(f: Form) -> dict[Exponent, float] | None:
        """The terms of a form without denominator, multiplied out."""
        terms = {f.exponent: f.coefficient}
        for s, k in f.powers.items():
            if k < 0 or k != int(k) or len(terms) * len(s) ** k > 8 * _MOST_TERMS:
                return None
            for _ in range(int(k)):
                product: dict[Exponent, float] = {}
                for e, c in terms.items():
                    for e2, c2 in s:
                        at = _plus(e, e2)
                        product[at] = product.get(at, 0.0) + c * c2
                terms = product
        return terms

    # -- forms as nodes -----------------------------------------------------------------------------
    def node(self, e: Exponent) -> Node:
        """The linear combination as a node."""
        g = self.graph
        if e in self._written:
            return self._written[e]
        if (back := _scaled(e, -1.0)) in self._written:
            return g.neg(self._written[back])
        out = g.const(0.0)
        for place, c in e:
            out = out + (c if place < 0 else g.mul(c, g.nodes[place]))
        return out

    def product(self, f: Form) -> Node | None:
        """A node for a quotient's form, in functions that do not overflow; None if there are none."""
        if not f.coefficient:
            return None
        g, out, exponent, powers = self.graph, self.graph.const(f.coefficient), f.exponent, dict(f.powers)
        for s, k in f.powers.items():
            partner = _mirrored(s)
            if partner is not None and powers.get(partner) == -k and k == int(k):  # (1 - e^z)^k / (1 + e^z)^k
                tanh = g.unary("tanh", self.node(_scaled(s[1][0], 0.5)))
                out = g.mul(out, g.powi(g.neg(tanh), int(k)))
                del powers[s], powers[partner]
        for s, k in list(powers.items()):
            if k < 0 and k == int(k) and (found := self._shares(s, int(-k), exponent)):
                share, exponent = found
                out = g.mul(out, share)
                del powers[s]
        for s, k in list(powers.items()):
            if all(c > 0 for _, c in s):
                continue
            if len(s) > 2 or k != int(k):
                return None
            half = g.mul(0.5, self._log_term((s[1][0], -s[1][1])))  # 1 - e^z = -2 sinh(z/2) e^(z/2)
            if k > 0:
                out = g.mul(out, g.powi(g.mul(-2.0, g.unary("sinh", half)), int(k)))
            else:
                out = g.mul(out, g.powi(g.mul(-0.5, g.unary("csch", half)), int(-k)))
            out = g.mul(out, g.const(abs(s[1][1]) ** (0.5 * k)))
            exponent = _plus(exponent, s[1][0], 0.5 * k)
            del powers[s]
        rest = self.log(Form(1.0, exponent, powers))
        return out if rest is None else g.mul(out, g.unary("exp", rest))

    def _shares(self, s: Sum, k: int, exponent: Exponent) -> tuple[Node, Exponent] | None:
        """`e^exponent / s^k` as a product of logistics, each one term's share of the sum, and what is left over.

        The shares of a difference are functions `bose(z) = 1/(e^z - 1)`: `1/(1 - e^z) = -bose(z)`.
        """
        g, mixed = self.graph, any(c < 0 for _, c in s)
        if len(s) == 2:
            z, name = self._log_term((s[1][0], abs(s[1][1]))), "bose" if mixed else "logistic"
            for first in range(k, -1, -1):
                left = _plus(exponent, s[1][0], -float(first))
                if not _constant(left) or (mixed and 2 * first == k):
                    continue
                up, down = (g.unary(name, w) for w in ((g.neg(z), z) if mixed else (z, g.neg(z))))
                share = g.mul(g.powi(up, first), g.powi(g.neg(down) if mixed else down, k - first))
                if first == k - first == 1:
                    share = g.unary("logistic_slope", z)
                return g.mul(abs(s[1][1]) ** -float(first), share), left
            return None
        if mixed:
            return None
        for term in s:
            left = _plus(exponent, term[0], -float(k))
            if _constant(left):
                share = g.unary("logistic", g.neg(self._others(s, term)))
                return g.mul(term[1] ** -float(k), g.powi(share, k)), left
        return None

    def bernoulli(self, f: Form, factor: Node) -> Node | None:
        """`factor * f` where that is a multiple of `z/(e^z - 1)`, which has no pole at 0: a series nearby."""
        g = self.graph
        ((s, k),) = f.powers.items() if len(f.powers) == 1 else (((), 0.0),)
        if k != -1.0 or len(s) != 2 or s[1][1] != -1.0 or f.exponent not in ((), s[1][0]):
            return None
        e, multiple = s[1][0], self.linear(factor)
        ratio = dict(multiple).get(e[0][0], 0.0) / e[0][1]
        if not ratio or _scaled(e, ratio) != multiple:
            return None
        z = self.node(_scaled(e, -1.0) if f.exponent else e)  # factor f = -ratio coefficient z/(e^z - 1)
        square, near = z * z, g.const(0.0)
        for c in reversed(_SERIES[2::2]):
            near = near * square + float(c)
        near = near * square + (1.0 - 0.5 * z)
        small = g.binary("lt", square, g.const(1.0))
        return g.mul(-ratio * f.coefficient, g.select(small, near, z * g.unary("bose", z)))

    def _others(self, s: Sum, term: tuple[Exponent, float]) -> Node:
        """The logarithm of the other terms of a sum over one of them."""
        return self.log_sum([(_plus(e, term[0], -1.0), c / term[1]) for e, c in s if (e, c) != term])

    def log(self, f: Form) -> Node | None:
        """The logarithm of a form; where it is a difference, of one that is positive."""
        g, exponent, minus = self.graph, f.exponent, f.coefficient < 0
        if not f.coefficient or not (f.exponent or f.powers):
            return None
        out = g.const(math.log(abs(f.coefficient)))
        for s, k in f.powers.items():
            mixed = any(c < 0 for _, c in s)
            half = _plus(exponent, s[1][0], 0.5 * k)
            match = next((t for t in s if k < 0 and not mixed and _constant(_plus(exponent, t[0], k))), None)
            if mixed:
                if len(s) > 2:
                    return None
                base, other = (s[1], s[0]) if minus and k % 2 else s
                minus = minus and not k % 2
                ratio = self._log_term((_plus(other[0], base[0], -1.0), abs(other[1] / base[1])))
                out = out + g.mul(k, self._log_rest(ratio) + math.log(abs(base[1])))
                exponent = _plus(exponent, base[0], k)
            elif match is not None:  # of a share
                out = out + g.mul(k, g.unary("softplus", self._others(s, match)) + math.log(match[1]))
                exponent = _plus(exponent, match[0], k)
            elif len(s) == 2 and _constant(half):  # e^(-z/2) + e^(z/2)
                z = g.mul(0.5, self._log_term(s[1]))
                out = out + g.mul(k, g.unary("logcosh", z) + math.log(2.0 * math.sqrt(s[1][1])))
                exponent = half
            else:
                whole = [(_plus(e, exponent, 1.0 / k), c) for e, c in s]
                if sum(len(e) for e, _ in whole) < len(exponent) + sum(len(e) for e, _ in s):
                    s, exponent = tuple(whole), ()
                out = out + g.mul(k, self.log_sum(s))
        return None if minus else out + self.node(exponent)

    def _log_rest(self, a: Node) -> Node:
        """`log(1 - e^a)` for negative a."""
        g = self.graph
        near, far = g.neg(g.unary("expm1", a)), g.neg(g.unary("exp", a))
        return g.select(g.binary("gt", a, g.const(-0.7)), g.unary("log", near), g.unary("log1p", far))

    def log_sum(self, terms: Sequence[tuple[Exponent, float]]) -> Node:
        """`log(sum of c e^l)` for positive c; its slopes are the shares of the terms."""
        g, (first, *others) = self.graph, terms
        out = self._log_term(first)
        for t in others:
            term = self._log_term(t)
            if out.is_const:
                out = out + g.unary("softplus", term - out)
            elif term.is_const:
                out = term + g.unary("softplus", out - term)
            else:
                out = g.binary("logaddexp", out, term)
        return out

    def _log_term(self, term: tuple[Exponent, float]) -> Node:
        return self.node(term[0]) + math.log(term[1])

    def _log_of_loop(self, n: Node, body: Form) -> Node:
        """`log(sum over a loop of e^l) = m + log(sum e^(l - m))` for any m: one near the largest l, held fixed in
        derivatives, in which it does not occur. `64 log(sum e^(l/64))` lies within 64 log(turns) of it."""
        g = self.graph
        if n.id not in self._shifted:
            found = self.log(body)
            assert found is not None
            near = g.mul(64.0, g.unary("log", g.sum(g.unary("exp", g.mul(1 / 64, found)), n.data)))
            held = g.make("held", (near,))
            self._shifted[n.id] = held + g.unary("log", g.sum(g.unary("exp", found - held), n.data))
        return self._shifted[n.id]


def _mirrored(s: Sum) -> Sum | None:
    """`e^z + 1` for `e^z - 1` or `1 - e^z`."""
    if len(s) != 2 or abs(s[1][1]) != 1.0 or s[1][1] * s[0][1] > 0:
        return None
    return tuple(sorted((e, 1.0) for e, _ in s))
