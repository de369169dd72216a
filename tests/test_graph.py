"""The graph: every subexpression once, loops as nodes, and a sentence for what cannot become a kernel."""

import numpy as np
import pytest
import sympy as sp
from interpreter import evaluate

import minidyn as md
from minidyn.graph import SAMPLE, Array, Converter, Graph, Index, reachable
from minidyn.graph.derivatives import forward, reverse

x, y = sp.symbols("x y", real=True)
j, k = sp.symbols("j k", integer=True)
a = md.vector("a", 4)


def scalars(g, *names):
    """A converter that knows these symbols, and `a`, as entries of `w`."""
    table = {s: g.load("w", i) for i, s in enumerate(names)}
    return Converter(g, table, {"a": Array("w", len(names), (4,))})


def test_equal_nodes_are_one():
    """Building an expression twice, or with its terms swapped, gives the same node."""
    g = Graph()
    p, q = g.load("w", 0), g.load("w", 1)
    assert p * q + g.unary("sin", p) is g.unary("sin", p) + q * p
    assert g.load("w", 0) is p
    assert g.sum(g.load("w", 2, [(Index(0, "sum", 4), 1)]), Index(0, "sum", 4)) is scalars(g, x, y)(
        sp.Sum(a[k], (k, 0, 3))
    )


def test_shared_subexpressions_are_shared():
    """Sixty times sin(p**2 + p), 2**60 terms if written out, stays small, and so do three derivatives of it."""
    g = Graph()
    node = g.load("w", 0)
    for _ in range(60):
        node = g.unary("sin", node * node + node)
    loss = len(reachable([node]))
    assert loss == 3 * 60 + 1
    ((_, slope),) = reverse(node, "w")
    second = forward([slope], "w", "u")
    third = forward(second, "w", "v")
    sizes = [len(reachable(nodes)) / loss for nodes in ([slope], second, third)]
    assert sizes[0] <= 4 and sizes[1] <= 10 and sizes[2] <= 25


@pytest.mark.parametrize("units", [10, 100])
def test_gradient_is_a_small_multiple_of_the_loss(units):
    """Written out unit by unit, the gradient of a tanh net has at most five times the operations of the loss."""
    p = sp.symbols(f"p:{3 * units}", real=True)
    net = sum(p[3 * i] * sp.tanh(p[3 * i + 1] * x + p[3 * i + 2]) for i in range(units))
    g = Graph()
    loss = scalars(g, *p, x, y)((net - y) ** 2 / 2)
    slopes = [d for _, d in reverse(loss, "w")]
    work = [sum(n.op not in ("load", "const") for n in reachable(out)) for out in ([loss], slopes)]
    assert work[1] <= 5 * work[0]


def test_looped_graph_does_not_grow():
    """A loop of a million turns is the same number of nodes as a loop of two."""

    def size(turns):
        b = md.vector("b", turns)
        g = Graph()
        node = Converter(g, {}, {"b": Array("w", 0, (turns,))})(sp.Sum(sp.tanh(b[j]) ** 2, (j, 0, turns - 1)))
        return len(reachable([d for _, d in reverse(node, "w")]))

    assert size(2) == size(10**6)


def test_trivial_operations_vanish():
    """x + 0, 1 x, x - x, -(-x), 0 x, x**1 and x / 1 leave nothing behind."""
    g = Graph()
    p = g.load("w", 0)
    assert p + 0.0 is p and 1.0 * p is p and p / 1.0 is p and p**1 is p and -1.0 * -p is p
    assert p - p is g.const(0.0) and 0.0 * p is g.const(0.0) and p**0 is g.const(1.0)
    assert g.const(-0.0) is g.const(0.0)
    assert (-p) * p is -(p * p) and p + (-p) * p is p - p * p


@pytest.mark.parametrize(("first", "second", "joined"), [(3, 7, True), (0.5, 0.1, True), (0.1, 0.3, False)])
def test_constants_are_regrouped_only_where_exact(first, second, joined):
    """a (b x) becomes (a b) x where the product a b has no rounding error, and only there."""
    g = Graph()
    p = g.load("w", 0)
    node = first * (second * p)
    assert (node is (first * second) * p) == joined
    assert evaluate(node, {"w": [1.7]}) == pytest.approx(first * (second * 1.7), rel=5e-16)


def test_what_does_not_depend_on_the_index_leaves_the_loop():
    """sum_j x a_j is x sum_j a_j, and sum_j x is n x."""
    g = Graph()
    turn = scalars(g, x)
    total = turn(sp.Sum(a[j], (j, 0, 3)))
    assert turn(sp.Sum(x * a[j], (j, 0, 3))) is g.load("w", 0) * total
    assert turn(sp.Sum(x, (j, 0, 3))) is 4.0 * g.load("w", 0)
    assert g.sum(g.load("w", 0), SAMPLE) is g.load("w", 0) * g.count(SAMPLE)


def test_free_indices():
    """A node knows the loops that it is inside of; a sum closes its own."""
    g = Graph()
    loop, inner = Index(0, "sum", 4), Index(1, "sum", 4)
    entry = g.load("w", 0, [(loop, 4), (inner, 1)])
    assert entry.indices == {loop, inner}
    assert g.sum(g.unary("sin", entry), inner).indices == {loop}
    assert g.load("d", 0, per=SAMPLE).indices == {SAMPLE}
    assert g.load("d", 0).indices == frozenset() and g.load("d", 0, per=SAMPLE) is g.load("d", 0, per=SAMPLE)


def test_nested_loops_never_share_an_index():
    """However often a letter is used again, the loops open at one place are different loops."""
    g = Graph()
    turn = scalars(g)
    innermost = sp.Sum(a[k] * a[j], (k, 0, 3))
    turn(sp.Sum(a[j] * sp.Sum(sp.sin(innermost) * a[j], (j, 0, 3)), (j, 0, 3)))
    loads = {n.data[2] for n in g.nodes if n.op == "load"}
    products = [n for n in g.nodes if n.op == "mul" and all(q.op == "load" for q in n.args)]
    assert len(loads) == 3  # three levels
    assert all(n.args[0].indices != n.args[1].indices for n in products)


def test_the_bound_letter_hides_a_parameter():
    """Inside a sum over x, x is the index, outside it is the parameter."""
    n = sp.Symbol("n", integer=True)
    node = scalars(Graph(), n)(n + sp.Sum(n**2, (n, 1, 3)))
    assert evaluate(node, {"w": [0.5]}) == 0.5 + 1 + 4 + 9


def test_long_sums_do_not_exhaust_the_stack():
    """An expression of 3000 terms, and one of 150 nested functions, convert and differentiate."""
    p = sp.symbols("p:3000", real=True)
    g = Graph()
    pairs = reverse(scalars(g, *p)(sp.Add(*(sp.sin(q) for q in p))), "w")
    assert len(pairs) == 3000
    deep = x
    for _ in range(150):
        deep = sp.tanh(deep) + y
    g = Graph()
    assert len(reverse(scalars(g, x, y)(deep), "w")) == 2


STABLE = {
    sp.log(1 + sp.exp(2 * x)): "softplus",
    1 / (1 + sp.exp(-x)): "logistic",
    sp.log(sp.cosh(x)): "logcosh",
    sp.exp(x) / (1 + sp.exp(x)): "logistic",
    sp.log(1 + x * y): "log1p",
    sp.exp(x * y) - 1: "expm1",
    1 - sp.exp(-x): "expm1",
    y * sp.exp(x) / (1 + sp.exp(x)): "logistic",
}


@pytest.mark.parametrize("expr", STABLE, ids=str)
def test_stable_forms_are_recognized(expr):
    """log(1 + exp x), 1/(1 + exp(-x)), log cosh x, log(1 + x) and exp(x) - 1 become functions that do not cancel."""
    g = Graph()
    ops = {n.op for n in reachable([scalars(g, x, y)(expr)])}
    assert STABLE[expr] in ops and not ops & {"exp", "log", "cosh"}


# -- what cannot become a kernel ------------------------------------------------------------------

HUGE = sp.Integer(10) ** 400
W = sp.MatrixSymbol("W", 4, 3)
unsupported = sp.Function("f")
REFUSED = {  # expression: what the sentence must name
    "function": (x + 2 * sp.airyai(x + 1), r"airyai\(x \+ 1\) uses airyai, which has no kernel; supported: .*erf"),
    "undefined function": (unsupported(x) ** 2, r"f\(x\) uses f"),
    "deep inside": (sp.sin(x + sp.Sum(a[j] * sp.zeta(x), (j, 0, 3))), r"zeta\(x\)"),
    "product": (sp.Product(a[j], (j, 0, k)), r"product over j runs from 0 to k"),
    "integral": (sp.Integral(x, (x, 0, 1)), r"Integral"),
    "long": (sp.zeta(sum(sp.symbols("q:99"))), r"zeta\(q0 .*\.\.\. uses zeta"),
    "not real": (x * (2 + 3 * sp.I), r"3\*I is not real"),
    "not real, hidden": (x + sp.asin(2), r"asin\(2\) is not real"),
    "log of a negative number": (x * sp.log(-3), r"I.* is not real"),
    "infinite": (x * sp.zoo, r"zoo"),
    "nan": (sp.nan, r"nan, which is not a finite number"),
    "infinite limit": (x + sp.oo, r"oo, which is not a finite number"),
    "huge integer": (HUGE * x, r"10000.*\.\.\., which is not a finite number"),
    "huge float": (sp.Float("1e400") * x, r"not a finite number"),
    "unknown symbol": (x * sp.Symbol("q"), r"symbol q is neither .* \(known: a, x, y\)"),
    "unknown array": (x * md.vector("q", 3)[0], r"q\[0\]: the indexed symbol q .* \(known: a\)"),
    "unknown matrix": (x * W[0, 1], r"W\[0, 1\]: the indexed symbol W"),
    "array without index": (x * a, r"subexpression a uses IndexedBase"),
    "no default": (sp.Piecewise((x, x > 0), (y, x < -1)), r"Piecewise.* has no last branch"),
    "unbound": (x * a[j], r"a\[j\]: the index j is not bound by a Sum"),
    "unbound inside": (sp.Sum(a[j] * a[k], (j, 0, 3)), r"a\[k\]: the index k is not bound"),
    "too large": (a[4] * x, r"a\[4\]: the index runs from 4 to 4, but a has 4 entries"),
    "too large in a loop": (sp.Sum(a[2 * j + 1], (j, 0, 2)), r"a\[2\*j \+ 1\]: the index runs from 1 to 5, but"),
    "negative": (sp.Sum(a[j - 1], (j, 0, 3)), r"a\[j - 1\]: the index runs from -1 to 2"),
    "negative number": (a[-1], r"a\[-1\]: the index runs from -1 to -1"),
    "fraction": (sp.Sum(a[j / 2], (j, 0, 2)), r"a\[j/2\]: an index must be a whole-number combination"),
    "square": (sp.Sum(a[j**2], (j, 0, 1)), r"a\[j\*\*2\]: an index must be a whole-number combination"),
    "remainder": (sp.Sum(a[sp.Mod(j, 2)], (j, 0, 3)), r"whole-number combination"),
    "number of indices": (sp.Sum(sp.IndexedBase("a")[j, j], (j, 0, 3)), r"a\[j, j\]: a has 1 indices, not 2"),
    "symbolic limit": (sp.Sum(a[j], (j, 0, k)), r"sum over j runs from 0 to k: both must be integers"),
    "infinite sum": (sp.Sum(x**j, (j, 0, sp.oo)), r"from 0 to oo"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    """What has no kernel is refused when the loss is made, in one sentence that names the subexpression."""
    expr, sentence = REFUSED[name]
    with pytest.raises(md.ExpressionError, match=sentence) as caught:
        md.Loss(expr, [x, y, a])
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and isinstance(caught.value, (md.InputError, ValueError))


def test_constants_that_overflow():
    """Constants that are folded into one beyond the range of doubles are refused, not written as inf."""
    g = Graph()
    for huge in (lambda c: c * c, lambda c: c**3, lambda c: c / 1e-200, lambda c: c - c * -1e200):
        with pytest.raises(md.ExpressionError, match=r"a constant of the expression is -?inf"):
            huge(g.const(1e200))


def test_interpreter_reads_every_operation():
    """Every operation that a graph can hold has a meaning in the interpreter."""
    from interpreter import FLOAT

    from minidyn.graph import FUNCTIONS

    missing = FUNCTIONS.keys() - FLOAT.functions.keys()
    assert not missing
    assert np.isnan(FLOAT.functions["max"](np.nan, 1.0))
