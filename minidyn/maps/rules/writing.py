"""A rule as papers write it: `m_{k+1} = beta m_k + g_k`, `theta_{k+1} = theta_k - eta m_{k+1}`, in text and in LaTeX.

What a step uses of another new value is written by its name; hyperparameters stand before states, states before the
gradient, and theta first in a sum. The step from k to k + 1 is number k + 1: schedules and bias corrections say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.str import StrPrinter

from minidyn.graph import walk
from minidyn.graph.walk import indexed
from minidyn.maps import rule_symbols
from minidyn.maps.rule_symbols import THETA, G, K

if TYPE_CHECKING:
    from minidyn.maps.rules.rule import Rule


def new(rule: Rule) -> list[sp.Symbol]:
    """What stands for the new theta and the new states."""
    return [sp.Symbol(f"{name}'") for name in rule.called]


def _hats(rule: Rule) -> list[sp.Symbol]:
    """What stands for them after a bias correction."""
    return [sp.Symbol(f"{name}^") for name in rule.called]


def folded(rule: Rule, exprs: Sequence[sp.Expr]) -> list[tuple[sp.Symbol, sp.Expr]]:
    """(name, expression) of each new value, by the names of those that it uses: what is used comes first, theta late.

    `theta - lr (beta m + g)` is `theta - lr m'` where `m' = beta m + g`; `m'/(1 - beta^k)` is `m^`.
    """
    names = new(rule)
    if not all(map(walk.written, exprs)):
        return [(names[i], exprs[i]) for i in [*range(1, len(exprs)), 0]]
    parts = [i for i, e in enumerate(exprs) if e.args and sum(e == other for other in exprs) == 1]
    rows = {}
    for i, e in enumerate(exprs):
        for j in sorted(parts, key=lambda j: -walk.extent(exprs[j])[0]):
            e = e if i == j else _named(e, exprs[j], names[j])
        rows[i] = e
    out: list[tuple[sp.Symbol, sp.Expr]] = []
    for i in _in_order(rows, names):
        e = rows[i]
        for name, hat in zip(names, _hats(rule), strict=True):
            found = _corrected(e, name, hat)
            out += found[1:]
            e = found[0][1]
        out.append((names[i], e))
    return out


def _in_order(rows: dict[int, sp.Expr], names: list[sp.Symbol]) -> list[int]:
    """Places such that each row stands below those whose values it uses, theta behind the states where it can."""
    order: list[int] = []
    while len(order) < len(rows):
        waiting = [i for i in [*range(1, len(rows)), 0] if i not in order]
        free = [i for i in waiting if not rows[i].free_symbols & {names[j] for j in waiting if j != i}]
        order.append((free or waiting)[0])
    return order


def _corrected(e: sp.Expr, name: sp.Symbol, hat: sp.Symbol) -> list[tuple[sp.Symbol, sp.Expr]]:
    """`e` with `hat` for `name/(1 - beta^k)`, and what that is."""
    for part, _ in walk.postorder(e):
        base = part.base if part.is_Pow and part.exp == -1 else sp.S.Zero
        if base.is_Add and base.has(K) and sp.S.One in base.args and e.has(name) and len(base.args) == 2:
            found = e.subs(name * part, hat)
            if found.has(hat) and not found.has(name):
                return [(hat, found), (hat, name * part)]
    return [(hat, e)]


def _named(e: sp.Expr, part: sp.Expr, name: sp.Symbol) -> sp.Expr:
    """`e` with `name` for `part`, also where a sum holds it among other terms."""
    found = e.xreplace({part: name})
    if found != e or not part.is_Add:
        return found
    found = e.subs(part, name)
    return found if found.has(name) and sp.count_ops(found) < sp.count_ops(e) else e


class _Ordered:
    """The printers' order of terms: k, a number, theta, states, new values, the gradient, what has none of these; and
    no sign in front where another term has none."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.names: dict[str, str] = {}

    def _as_ordered_terms(self, expr: sp.Expr, order: Any = None) -> list[sp.Expr]:
        def rank(term: sp.Expr) -> tuple[Any, ...]:
            moving = [s.name for s in term.free_symbols if s.name[0] in "123"]
            first = "" if term == K else min(moving, default="4") if term.free_symbols else "0"
            return first, term.could_extract_minus_sign(), int(term.count_ops()), sp.default_sort_key(term)

        terms = sorted(sp.Add.make_args(expr), key=rank)
        plain = [t for t in terms if not t.could_extract_minus_sign()]
        return terms if not plain else [plain[0], *(t for t in terms if t is not plain[0])]

    def _print_Symbol(self, symbol: sp.Symbol, **_: Any) -> str:
        return self.names.get(symbol.name) or super()._print_Symbol(symbol)  # type: ignore[misc]


class _Text(_Ordered, StrPrinter):
    pass


class _Latex(_Ordered, LatexPrinter):
    def _print_Piecewise(self, expr: sp.Piecewise) -> str:
        """On one line: `{0.1 for k < 100, 0.01 otherwise}`, which matplotlib can draw too."""
        cases = [
            self._print(e) + (r"\;\mathrm{otherwise}" if c == sp.true else rf"\;\mathrm{{for}}\;{self._print(c)}")
            for e, c in expr.args
        ]
        return r"\left\{" + r",\; ".join(cases) + r"\right\}"


class Notation:
    """Expressions in a rule's letters and `new` values as text, or in LaTeX with the letters of papers.

    bar : LaTeX that new values stand under.  inline : write the gradient where it stands, as `nabla L(theta_k)`.
    """

    def __init__(self, rule: Rule, latex: bool = False, bar: str = "%s", inline: bool = False):
        greek = rule_symbols.in_papers([*rule.hyper, *rule.called])
        called = [greek[name] for name in rule.called]
        gradient = rule.arguments[1] if len(rule.arguments[1]) == 1 else "g"
        self.gradient = indexed(r"\mathrm{grad}" if gradient in (*rule.called, *rule.hyper) else gradient, "k")
        self.slope = rf"\nabla L({indexed(called[0], 'k')})"
        moving = [
            *(
                (s, n, indexed(t, "k"), "1")
                for s, n, t in zip((THETA, *rule.letters), rule.called, called, strict=True)
            ),
            *((s, s.name, indexed(bar % t, "k+1"), "2") for s, t in zip(new(rule), called, strict=True)),
            *((s, s.name, indexed(rf"\hat{{{t}}}", "k+1"), "2") for s, t in zip(_hats(rule), called, strict=True)),
            (G, rule.arguments[1], self.slope if inline else self.gradient, "3"),
        ]
        printer = _Latex({"mul_symbol": r" \, "}) if latex else _Text()
        self.symbols: dict[sp.Symbol, sp.Expr] = {K: K + 1} if latex else {}
        for i, (h, v) in enumerate(rule.hyper.items()):
            mark = sp.Symbol(f"0{i:03d}", **rule_symbols.hyper(h).assumptions0)
            self.symbols |= {rule_symbols.hyper(h): mark, rule_symbols.hyper(h, v): mark}
            printer.names[mark.name] = _rate(greek[h], v) if latex else h
        for i, (letter, name, tex, rank) in enumerate(moving):
            self.symbols[letter] = sp.Symbol(f"{rank}{i:03d}")
            printer.names[self.symbols[letter].name] = tex if latex else name
        self._printer, self._brackets = printer, (r"\left(%s\right)" if latex else "(%s)")

    def __call__(self, e: Any) -> str:
        """An expression as text or LaTeX."""
        marked = walk.shortened(sp.sympify(e)).xreplace(self.symbols)
        halves = {p: _without_halves(p) for p, _ in walk.postorder(marked) if p.is_Mul and p.args[0].is_Rational}
        marked = marked.xreplace(halves)
        products = [p for p, _ in walk.postorder(marked) if p.is_Mul]
        weights = dict.fromkeys(a for p in products for a in p.args if a.is_Add and _is_number(a))
        for i, weight in enumerate(weights):  # `(1 - beta) g`, for sympy writes sums behind symbols
            self._printer.names[f"0~{i}"] = self._brackets % self._printer.doprint(weight)
        return str(self._printer.doprint(marked.xreplace({w: sp.Symbol(f"0~{i}") for i, w in enumerate(weights)})))


def _without_halves(product: sp.Expr) -> sp.Expr:
    """`(2 - 2 beta) q / 2` as `(1 - beta) q`."""
    weight = next((a for a in product.args if a.is_Add and _is_number(a)), None)
    if weight is None or product.args[0].is_Integer:
        return product
    rest = [a for a in product.args[1:] if a is not weight]
    return sp.Mul(sp.expand(product.args[0] * weight), *rest)


def _is_number(e: sp.Expr) -> bool:
    return all(s == K or s.name[0] == "0" for s in e.free_symbols)


def _rate(tex: str, value: Any) -> str:
    """A hyperparameter of step k + 1."""
    return indexed(tex, "k+1") if isinstance(value, sp.Expr) else tex


def updates(rule: Rule, latex: bool, step: Sequence[sp.Expr] = ()) -> list[tuple[str, str]]:
    """The equations (left, right) of one step, or of another `step`, in LaTeX with gradient, schedules and numbers."""
    rows = folded(rule, step or rule.step)
    if not latex:
        show = Notation(rule)
        return [(show(name), show(e)) for name, e in rows]
    once = all(walk.written(e) for _, e in rows) and sum(int(e.count(G)) for _, e in rows) <= 1
    inline = once and not any(p.base == G for _, e in rows for p in e.atoms(sp.Pow))
    show = Notation(rule, latex, inline=inline)
    defined = [] if inline else [(show.gradient, show.slope)]
    return defined + [(show(name), show(e)) for name, e in rows] + _numbers(rule)


def _numbers(rule: Rule) -> list[tuple[str, str]]:
    greek = rule_symbols.in_papers([*rule.hyper, *rule.called])
    moving = {h: v for h, v in rule.hyper.items() if isinstance(v, sp.Expr)}
    fixed = [f"{greek[h]} = {rule_symbols.number_in_latex(v)}" for h, v in rule.hyper.items() if h not in moving]
    schedules = [(indexed(greek[h], "k"), _Latex().doprint(walk.shortened(v))) for h, v in moving.items()]
    if not fixed:
        return schedules
    left, right = r",\quad ".join(fixed).split(" = ", 1)
    return [*schedules, (left, right)]
