"""sympy expression -> nodes of a graph."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, ClassVar, NoReturn

import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.matrices.expressions.matexpr import MatrixElement

from minidyn.common.errors import ExpressionError, said
from minidyn.graph import poles, special
from minidyn.graph.branches import guarded
from minidyn.graph.indexed import Array, element
from minidyn.graph.matrices import Matrices
from minidyn.graph.nodes import Graph, Index, Node
from minidyn.graph.numbers import double
from minidyn.graph.refusals import no_kernel, placed
from minidyn.graph.rolling import Numbers, Rolling
from minidyn.graph.together import Together
from minidyn.graph.vocabulary import reading_of, step
from minidyn.graph.walk import extent, postorder, printed

_RELATIONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_JOINED = {sp.Min: "min", sp.Max: "max", sp.And: "and", sp.Or: "or"}
_DEEP = 50  # layers that recursion may take on
_LARGEST_WHOLE = 2**53  # up to which every whole number is a double
_EXPONENTIALS = (sp.exp, sp.cosh, sp.sinh, sp.tanh, sp.sech, sp.csch, sp.coth)
_WHOLE = (  # what the walk does not descend into
    sp.Sum, sp.Product, sp.Indexed, sp.Derivative, sp.Subs, MatrixElement, sp.MatrixExpr, sp.Trace, sp.Determinant
)  # fmt: skip
_DIVISIONS = (sp.S.NegativeOne, -sp.S.Half)  # the derivatives of other negative powers are powers again
_LATE = (sp.Mod, sp.coth)  # functions whose arguments are read where they stand


class Converter(Together):
    """Turns sympy expressions into nodes of one graph.

    `symbols` maps a `Symbol` to a node; `arrays` maps the name of an `IndexedBase` or `MatrixSymbol` to the `Array`
    where it lives. Long sums become loops if there is a place for the `numbers` that differ between their terms.
    """

    def __init__(
        self,
        graph: Graph,
        symbols: Mapping[sp.Basic, Node],
        arrays: Mapping[str, Array] | None = None,
        numbers: Numbers | None = None,
    ):
        super().__init__(graph)
        self.symbols, self.arrays = symbols, dict(arrays or {})
        self.loops: dict[sp.Basic, tuple[Index, int]] = {}
        self._memo: dict[Any, Node] = {}
        self._numbers: dict[int, sp.Basic] = {}
        self.part: sp.Basic | None = None  # what could not be read
        self.rolling = Rolling(self, self.read, numbers)
        self.matrices = Matrices(self)

    def __call__(self, expr: Any) -> Node:
        """The node of an expression or a number; parts that occur again are read once.

        Raises ExpressionError for undeclared symbols, for what is not real, and for functions not in `SUPPORTED`.
        """
        expr = sp.sympify(expr)
        self.part = None
        try:
            return self.read(expr)
        except ExpressionError as error:
            raise (error if self.part is None else placed(error, expr, self.part)) from None

    def read(self, expr: Any) -> Node:
        """The node of an expression, by an iterative walk over what is deep: long sums do not exhaust the stack."""
        descend = _composed if extent(expr)[1] > _DEEP else _plain  # through branches and choices too
        for part, args in postorder(expr):
            hash(part)  # from below, since sympy asks the arguments; it remembers
            if all(id(a) in self._numbers for a in args) and (args or getattr(part, "is_number", False)):
                self._numbers[id(part)] = part
                self.rolling.exponential.add(id(part))
            if isinstance(part, _EXPONENTIALS) or (
                isinstance(part, (sp.Add, sp.Mul, sp.Pow, sp.Sum, sp.Piecewise, ExprCondPair))
                and any(id(a) in self._exponential for a in args)
            ):
                self._exponential[id(part)] = part
                of = args[:1] if isinstance(part, sp.Sum) else args
                if isinstance(part, _EXPONENTIALS) or all(id(a) in self.rolling.exponential for a in of):
                    self.rolling.exponential.add(id(part))
        todo = [expr]
        key = self.key
        while todo:
            e = todo[-1]
            if (e, key) in self._memo or not descend(e):
                todo.pop()
                continue
            pending = [
                a
                for b in self.rolling.split(e)[1]
                for a in (b.args if isinstance(b, ExprCondPair) else [b])
                if descend(a) and (a, key) not in self._memo
            ]
            if pending:
                todo.extend(pending)
                continue
            todo.pop()
            self._convert(e, key)
        return self._convert(expr, key)

    def inside(self, loops: Mapping[sp.Basic, tuple[Index, int]], expr: Any) -> Node:
        """The node of an expression inside loops that stay open: letters, with where each begins."""
        saved, self.loops = self.loops, self.loops | dict(loops)
        try:
            return self(expr)
        finally:
            self.loops = saved

    @property
    def key(self) -> Any:
        """What tells the readings of one expression in different loops apart."""
        return tuple(sorted((str(s), i, low) for s, (i, low) in self.loops.items()))

    def beside(self, known: Mapping[sp.Basic, Node]) -> "Converter":
        """A converter that knows these symbols too, inside the same loops."""
        other = Converter(self.graph, {**self.symbols, **known}, self.arrays)
        other.loops = self.loops
        return other

    def _convert(self, e: sp.Basic, key: Any) -> Node:
        node = self._memo.get((e, key))
        if node is None:
            try:
                node = self._memo[(e, key)] = self._build(e, key)
            except ExpressionError:
                self.part = e if self.part is None else self.part
                raise
        return node

    def _build(self, e: sp.Basic, key: Any) -> Node:
        g, go = self.graph, partial(self._convert, key=key)
        if e in self.loops:
            index, low = self.loops[e]
            return g.make("index", data=index, indices=frozenset([index])) + float(low)
        if e in self.symbols:
            return self.symbols[e]
        if e in self.rolling.letters:
            found = self.rolling.letters[e]
            return found if isinstance(found, Node) else go(found)
        if isinstance(e, sp.Symbol):
            self._refuse(e)
        if isinstance(e, (sp.Integer, sp.Float, sp.Rational)) or (e.is_Number or e.is_NumberSymbol):
            return g.const(double(e))
        if e is sp.I or (id(e) in self._numbers and e.is_real is False):
            raise ExpressionError(f"the subexpression {printed(e)} is not real; a loss must be a real expression.")
        for kind, build in self._KINDS.items():
            if isinstance(e, kind):
                return build(self, e, go)
        if (read := reading_of(type(e))) is not None:
            return read(*map(go, e.args))
        if isinstance(e, sp.Rel):
            return g.binary(_RELATIONS[e.rel_op], go(e.args[0]), go(e.args[1]))
        if e in (sp.true, sp.false):
            return g.binary("eq" if e else "ne", g.const(0.0), g.const(0.0))
        raise no_kernel(e)

    def _refuse(self, e: sp.Symbol) -> NoReturn:
        """Say what is wrong with a symbol that nothing is known of."""
        known = ", ".join(sorted({str(s) for s in self.symbols} | set(self.arrays))) or "none"
        if any(str(s) == str(e) for s in self.symbols):
            raise ExpressionError(
                f"the expression uses another symbol {e} than the one declared: sympy tells symbols with different "
                "assumptions (real=True, ...) apart; use the same object in both places."
            )
        raise ExpressionError(
            f"the symbol {e} is neither a parameter, a constant nor data (known: {known}); "
            f"declare it or give its number in {said('constants=')}."
        )

    def _joined(self, e: sp.Basic, go: Any) -> Node:
        """`Min`, `Max`, `And`, `Or`: two by two, in sympy's order."""
        joined = reduce(partial(self.graph.binary, _JOINED[type(e)]), map(go, e.args))
        return guarded(joined, map(go, e.args), map(go, e.args)) if isinstance(e, (sp.Min, sp.Max)) else joined

    def _heaviside(self, e: sp.Basic, go: Any) -> Node:
        g, x, at_zero = self.graph, go(e.args[0]), e.args[1]
        found = step("heaviside", x)
        return found if at_zero == sp.S.Half else g.select(g.binary("eq", x, g.const(0.0)), go(at_zero), found)

    def _ite(self, e: sp.Basic, go: Any) -> Node:
        """sympy's reading of a Piecewise inside a condition."""
        g, (condition, yes, no) = self.graph, (go(a) for a in e.args)
        return g.binary("or", g.binary("and", condition, yes), g.binary("and", g.unary("not", condition), no))

    def _element(self, e: Any, go: Any) -> Node:
        if isinstance(e, MatrixElement) and not isinstance(e.parent, sp.MatrixSymbol):
            return self.matrices.element(e)
        return element(self.graph, self.arrays, self.loops, e)

    def _sech(self, e: sp.Basic, go: Any) -> Node:
        x = go(e.args[0])
        form = self.exponentials.function("sech", x)
        stable = None if form is None else self.exponentials.product(form)
        return 1.0 / self.graph.unary("cosh", x) if stable is None else stable

    def _add(self, e: sp.Add, go: Any) -> Node:
        g, args = self.graph, list(e.args)
        if (small := self._small(args, go)) is not None:
            return small
        met = self._met(args, go)
        if met is not None:
            return met
        plain = self._terms(e, go)
        form = self.exponentials.form(plain) if id(e) in self._exponential else None
        if form is not None and all(len(s) <= 2 for s in form.powers):  # a quotient of it has digits already
            return plain
        near = poles.cancelling(g, e, go)
        return plain if near is None else g.select(*near, plain)

    def _terms(self, e: sp.Add, go: Any) -> Node:
        constant, (out, rest) = 0.0, self.rolling.summed(e)
        for a in rest:
            if a.is_Number:
                constant += double(a)
            else:
                out = out + go(a)
        return out + constant

    def _mul(self, e: sp.Mul, go: Any) -> Node:
        g, factors = self.graph, special.without_overflow(list(e.args))
        out: Node | None = None
        while (found := poles.met(factors)) is not None:
            group, left, taken = found
            small, near = poles.near(g, group, left, taken, go)
            part = g.select(small, near, self._product(taken, go))
            out = part if out is None else out * part
            factors = [f for f in factors if f not in taken]
        if out is None:
            return self._product(factors, go)
        return self._product(factors, go) * out if factors else out

    def _product(self, factors: list[sp.Basic], go: Any) -> Node:
        g = self.graph
        top, bottom = g.const(1.0), g.const(1.0)
        shares = self._quotient(factors, go)
        if shares is not None:
            top, factors = shares
        for f in (factors := self._signed(factors, go)):
            if isinstance(f, Node):
                top = top * f
            elif isinstance(f, sp.Rational) and not f.is_Integer and max(abs(f.p), f.q) < _LARGEST_WHOLE:
                top, bottom = top * float(f.p), bottom * float(f.q)
            elif isinstance(f, sp.Pow) and f.exp in _DIVISIONS:
                bottom = bottom * self._power(f.base, -f.exp, go)
            else:
                top = top * go(f)
        return top / bottom

    def _pow(self, e: sp.Pow, go: Any) -> Node:
        base, exponent = e.args
        share = self._quotient([e], go)
        if share is not None:
            return share[0]
        if exponent in _DIVISIONS:
            return 1.0 / self._power(base, -exponent, go)
        return self._power(base, exponent, go)

    def _power(self, base: sp.Basic, exponent: sp.Basic, go: Any) -> Node:
        g = self.graph
        if base == sp.E:
            return g.unary("exp", go(exponent))
        if isinstance(base, sp.Pow) and base.exp.is_even and exponent.is_Rational and not exponent.is_Integer:
            return g.pow(g.unary("abs", go(base.base)), g.const(double(base.exp * exponent)))  # sqrt(x**2) is |x|
        b = go(base)
        if exponent.is_Integer:
            if abs(int(exponent)) > _LARGEST_WHOLE:
                raise ExpressionError(f"the exponent {printed(exponent)} is too large: the largest is 2**53.")
            return g.powi(b, int(exponent))
        return g.pow(b, go(exponent))

    def _log(self, e: sp.log, go: Any) -> Node:
        g, x = self.graph, e.args[0]
        if len(e.args) > 1:  # log(x, base), as evaluate=False leaves it
            return self.read(sp.log(x)) / self.read(sp.log(e.args[1]))
        if isinstance(x, sp.Determinant):
            return self.matrices.determinant(x, log=True)
        if isinstance(x, sp.cosh):
            return g.unary("logcosh", go(x.args[0]))
        form = self.exponentials.form(go(x)) if id(x) in self._exponential else None
        stable = None if form is None else self.exponentials.log(form)
        if stable is not None:
            return stable
        if isinstance(x, sp.Add) and sp.S.One in x.args:
            return g.unary("log1p", go(x - 1))
        gammas = special.logarithm(x, go)
        if gammas is not None:
            return gammas
        return g.unary("log", go(x))

    def _piecewise(self, e: sp.Piecewise, go: Any) -> Node:
        pairs = list(e.args)
        if pairs[-1][1] not in (True, sp.true):
            raise ExpressionError(
                f"{printed(e)} has no last branch `(..., True)`: it would be undefined "
                "somewhere; end it in (0, True), say."
            )
        out = go(pairs[-1][0])
        for value, condition in reversed(pairs[:-1]):
            met, chosen = go(condition), go(value)
            out = guarded(self.graph.select(met, chosen, out), [met], [chosen, out])
        return out

    def _evaluated(self, e: sp.Basic, go: Any) -> Node:
        """What sympy was told to do later."""
        done = e.doit()
        if done.has(sp.Derivative, sp.Subs):
            raise no_kernel(e)
        return self.read(done)

    def _all_of(self, e: sp.Product, go: Any) -> Node:
        """A product over a loop: its factors two by two, so that its derivatives are products of the others."""
        *inner, (symbol, low, high) = e.limits
        body = sp.Product(e.function, *inner) if inner else e.function
        return self._tree([body.subs(symbol, i) for i in range(*self._range(e, symbol, low, high))])

    def _tree(self, factors: Sequence[sp.Basic]) -> Node:
        half = len(factors) // 2
        if not half:
            return self.read(factors[0]) if factors else self.graph.const(1.0)
        return self._tree(factors[:half]) * self._tree(factors[half:])

    @staticmethod
    def _range(e: sp.Basic, symbol: sp.Basic, low: sp.Basic, high: sp.Basic) -> tuple[int, int]:
        """The turns of a loop; ExpressionError where they are not known now."""
        if not (low.is_Integer and high.is_Integer):
            what = "sum" if isinstance(e, sp.Sum) else "product"
            raise ExpressionError(
                f"the {what} over {symbol} runs from {low} to {high}: both must be integers; put "
                "numbers there with .subs."
            )
        return int(low), max(int(high) + 1, int(low))

    def _sum(self, e: sp.Sum, go: Any) -> Node:
        turns: list[tuple[sp.Basic, int, int]] = []
        for symbol, low, high in reversed(e.args[1:]):  # sympy writes the innermost sum first
            first, end = self._range(e, symbol, low, high)
            if first == end:
                return self.graph.const(0.0)
            turns.append((symbol, first, end - first))
        return self.looped(turns, lambda _: self.read(e.args[0]))

    def looped(self, turns: Sequence[tuple[sp.Basic, int, int]], body: Callable[[list[Index]], Node],
               table: bool = False) -> Node:  # fmt: skip
        """The sum over letters (letter, first value, how many), the outermost first, of a body that may name them.

        table : whether the turns have numbers of their own, as samples do; what lies outside of all else is then a row.
        """
        saved, level = dict(self.loops), 1 + max((i.level for i, _ in self.loops.values()), default=-1)
        opened = [
            Index(level + k, "row" if table and level + k == 0 else "sum", size) for k, (_, _, size) in enumerate(turns)
        ]
        self.loops |= {letter: (index, low) for (letter, low, _), index in zip(turns, opened, strict=True)}
        try:
            node = body(opened)
        finally:
            self.loops = saved
        for index in reversed(opened):
            node = self.graph.sum(node, index)
        return node

    def _matrix(self, e: Any, go: Any) -> Node:
        read = self.matrices
        if isinstance(e, sp.Determinant):
            return read.determinant(e)
        return read.trace(e) if isinstance(e, sp.Trace) else read.number(e)

    _KINDS: ClassVar[dict[Any, Callable[..., Node]]] = {
        (sp.MatrixExpr, sp.MatrixBase, sp.Trace, sp.Determinant): _matrix,
        sp.Add: _add, sp.Mul: _mul, sp.Pow: _pow, sp.log: _log, sp.sech: _sech,
        tuple(_JOINED): _joined, sp.Heaviside: _heaviside, sp.Piecewise: _piecewise, sp.ITE: _ite,
        sp.Sum: _sum, sp.Product: _all_of, (sp.Derivative, sp.Subs): _evaluated, (sp.Indexed, MatrixElement): _element,
    }  # fmt: skip


def _plain(e: sp.Basic) -> bool:
    """True for what the walk descends into: not loops, elements or branches."""
    if isinstance(e, (sp.Add, sp.Mul, sp.Pow)):
        return not isinstance(e, sp.MatrixExpr)
    return reading_of(type(e)) is not None and not isinstance(e, _LATE)


def _composed(e: sp.Basic) -> bool:
    """True for all that has arguments with nodes of their own."""
    return bool(e.args) and not isinstance(e, _WHOLE)
