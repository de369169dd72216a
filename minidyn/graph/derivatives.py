"""Forward and reverse differentiation on the graph.

Reverse mode gives every gradient in one sweep; forward mode differentiates along a direction, so
`hvp` is forward over reverse and `third` one more forward level. The cost of each level is a small
multiple of the level below, at any size, because the graph shares its subexpressions.

Source: Griewank, Walther, *Evaluating Derivatives* (2008), chapters 3-5.
"""

from collections.abc import Sequence

from minidyn.graph import FUNCTIONS, NO_INDICES, Index, Node, reachable, tables


def partials(n: Node) -> tuple[Node | float | None, ...]:
    """The derivative of an elementwise node with respect to each argument; None where it is zero."""
    g, op, a = n.graph, n.op, n.args
    if op in ("add", "sub"):
        return 1.0, 1.0 if op == "add" else -1.0
    if op == "mul":
        return a[1], a[0]
    if op == "div":
        return 1.0 / a[1], -(n / a[1])
    if op == "neg":
        return (-1.0,)
    if op == "powi":
        return (float(n.data) * g.powi(a[0], n.data - 1),)
    if op == "pow" and a[1].is_const:
        return a[1] * g.pow(a[0], a[1] - 1.0), None
    if op == "pow" and a[0].is_const and a[0].data > 0.0:
        return None, n * g.unary("log", a[0])
    if op in ("pow", "pow_slope"):  # one operation of any order, since 0 times infinity is a limit at x = 0
        m, k = n.data or (0, 0)
        return g.make("pow_slope", a, (m + 1, k)), g.make("pow_slope", a, (m, k + 1))
    if op in ("lt", "le", "gt", "ge", "eq", "ne", "and", "or"):
        return None, None
    return (None,) if op == "held" else FUNCTIONS[op].slopes(n, *a)


def choice(n: Node) -> tuple[Node, Node, Node] | None:
    """(condition, value where it holds, value elsewhere) of a node that only chooses, else None."""
    if n.op == "select":
        return n.args[0], n.args[1], n.args[2]
    if n.op in ("min", "max"):  # on a tie the first
        return n.graph.binary("le" if n.op == "min" else "ge", *n.args), n.args[0], n.args[1]
    return None


def forward(outputs: Sequence[Node], array: str, direction: str) -> list[Node]:
    """Derivatives of the outputs when `array` moves along `direction` (an array of the same layout)."""
    if not outputs:
        return []
    g = outputs[0].graph
    zero = g.const(0.0)
    tangent: dict[int, Node] = {}
    for n in reachable(outputs):
        if n.op == "load":
            name, offset, strides = n.data
            tangent[n.id] = g.load(direction, offset, strides) if name == array else zero
        elif n.op == "sum":
            t = tangent[n.args[0].id]
            tangent[n.id] = zero if t is zero else g.sum(t, n.data)
        elif not n.args or all(tangent[a.id] is zero for a in n.args):
            tangent[n.id] = zero
        elif n.op in tables.TABLES:
            tangent[n.id] = tables.tangent(n, [tangent[a.id] for a in n.args])
        elif chosen := choice(n):
            condition, yes, no = chosen
            tangent[n.id] = g.select(condition, tangent[yes.id], tangent[no.id])
        else:
            total = zero
            for a, slope in zip(n.args, partials(n), strict=True):
                t = tangent[a.id]
                if slope is not None and t is not zero:
                    total = total + slope * t
            tangent[n.id] = total
    return [tangent[n.id] for n in outputs]


def reverse(output: Node, array: str, fixed: frozenset[Index] = NO_INDICES) -> list[tuple[Node, Node]]:
    """Gradient of a scalar output: pairs (element of `array`, derivative), one per element that occurs.

    An element that is read inside a loop, `a[j]`, gives a derivative that still depends on `j`: it
    stands for one number per turn. Two pairs may touch the same entry: their derivatives add.
    Loops in `fixed` stay open: with the sample loop fixed, the derivative is that of one sample.
    """
    g = output.graph
    zero = g.const(0.0)
    nodes = reachable([output])
    wanted = {n.id for n in nodes if n.op == "load" and n.data[0] == array}
    active: set[int] = set()
    for n in nodes:
        if n.id in wanted or any(a.id in active for a in n.args):
            active.add(n.id)
    adjoint: dict[int, Node] = {output.id: g.const(1.0)}
    for n in reversed(nodes):
        bar = adjoint.get(n.id)
        if bar is None or bar is zero or n.id not in active:
            continue
        if n.op == "sum":
            contributions = [(n.args[0], bar)]
        elif n.op in tables.TABLES:
            contributions = [(a, flow) for a, flow in tables.adjoints(n, bar) if a.id in active]
        elif chosen := choice(n):  # a mask, not a factor 0 or 1: the branch not taken may be infinite
            condition, yes, no = chosen
            flows = [(yes, g.select(condition, bar, 0.0)), (no, g.select(condition, 0.0, bar))]
            contributions = [(a, flow) for a, flow in flows if a.id in active]
        else:
            slopes = partials(n) if n.args else ()
            pairs = zip(n.args, slopes, strict=True)
            contributions = [(a, bar * slope) for a, slope in pairs if slope is not None and a.id in active]
        for a, flow in contributions:
            for index in sorted(n.indices - a.indices - fixed, reverse=True):
                if n.op not in ("sum", "moved", "dot"):  # whose flows have the loops of their arguments
                    flow = g.sum(flow, index)
            adjoint[a.id] = adjoint[a.id] + flow if a.id in adjoint else flow
    return [(n, adjoint.get(n.id, zero)) for n in nodes if n.id in wanted]


def slopes_by_place(output: Node, array: str) -> dict[int, Node]:
    """`reverse` where elements are read at fixed places: {place in `array`: derivative}."""
    return {element.data[1]: slope for element, slope in reverse(output, array)}
