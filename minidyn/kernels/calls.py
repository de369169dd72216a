"""Whole matrices in generated code: calls of `kernels.dense` and `kernels.cofactors`, and where their arguments lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minidyn.graph import NO_INDICES, Graph, Index, Node, reachable, tables
from minidyn.kernels.rewrite import rewritten

TAKERS = frozenset(("dot", "inverse", "det", "logdet", "cofactors"))  # these take whole arrays
GIVERS = frozenset(("dot", "inverse", "cofactors", "literal"))  # these give one
HOMES = dict.fromkeys(("determinant", "invert", "log_determinant", "product"), "dense") | dict.fromkeys(
    ("cofactors", "placed"), "cofactors"
)  # in which module of `kernels` each function is
_SCALARS = {"det": "determinant", "logdet": "log_determinant"}


def inner(n: Node) -> frozenset[Index]:
    """The loops of a node's result, or of its argument, that run inside of the call."""
    if n.op == "literal":
        return n.indices
    if n.op == "dot":
        return frozenset(n.data)
    return frozenset(tables.square(n)) if n.op in TAKERS else NO_INDICES


def gathered(stores: Sequence[Node], plain: Callable[[str], bool]) -> list[Node]:
    """The same stores, where matrices that do not lie plainly in memory are copied before a call takes them, and
    products take those that they read under other names as they lie: `data` are rows and columns of both factors."""
    if not any(n.op in TAKERS for n in reachable(stores)):
        return list(stores)

    def change(graph: Graph, n: Node, args: list[Node]) -> Node | None:
        if n.op not in TAKERS:
            return None
        data = n.data
        if n.op == "dot":
            (i,), (j,) = n.args[0].indices - {data}, n.args[1].indices - {data}
            left, right = ({new: old for old, new in a.data} if a.op == "moved" else {} for a in n.args)
            data = (left.get(i, i), left.get(data, data), right.get(data, data), right.get(j, j))
            args = [a.args[0] if a.op == "moved" else a for a in args]
        lie = [graph.make("copy", (a,)) if a.op == "load" and not plain(a.data[0]) else a for a in args]
        return graph.make(n.op, lie, data, n.indices)

    return rewritten(stores, change)


def held(n: Node, slots: Sequence[Index], count: Callable[[Index], str]) -> tuple[str, str, dict[Index, str]]:
    """(array, where it begins, steps) of a node that lies in an array: its own scratch, or memory that it loads."""
    if n.op == "load":
        array, offset, strides = n.data
        return array, str(offset), {i: str(s) for i, s in strides}
    steps: dict[Index, str] = {}
    for k, i in enumerate(slots):
        steps[i] = "*".join(count(j) for j in slots[k + 1 :]) or "1"
    return f"{'s' if n.op == 'sum' else 't'}{n.id}", "0", steps


Holder = Callable[[Node], tuple[str, str, dict[Index, str]]]


def arguments(n: Node, rows: Index, columns: Index, hold: Holder) -> str:
    """A matrix as an argument of these functions: the array, where it begins, the steps down and right."""
    array, start, steps = hold(n)
    others = [f"{i.var}*{s}" for i, s in steps.items() if i not in (rows, columns)]
    return ", ".join([array, " + ".join([start, *others]), steps[rows], steps[columns]])


def call(n: Node, hold: Holder) -> list[str]:
    """The lines that fill the array of a node of `GIVERS`."""
    out = hold(n)[0]
    if n.op == "literal":
        return [f"{out}[{k}] = {x!r}" for k, x in enumerate(n.data[0])]
    if n.op == "dot":
        (a, b), (i, k, over, j) = n.args, n.data
        sides = f"{arguments(a, i, k, hold)}, {arguments(b, over, j, hold)}"
        return [f"product({sides}, {out}, {i.size}, {j.size}, {k.size})"]
    rows, columns = tables.square(n)
    given, made = [arguments(a, rows, columns, hold) for a in n.args], arguments(n, rows, columns, hold)
    if n.op == "inverse":
        return [f"invert({given[0]}, {made}, {rows.size})"]
    return [
        f"m{n.id} = np.empty({len(given)}*{rows.size}*{columns.size})",
        *(f"placed({a}, m{n.id}, {k}, {rows.size})" for k, a in enumerate(given)),
        f"cofactors(m{n.id}, {len(given) - 1}, {made}, {rows.size})",
    ]


def scalar(n: Node, hold: Holder) -> str:
    """The call that gives the number of a `det` or `logdet`."""
    rows, columns = tables.square(n)
    return f"{_SCALARS[n.op]}({arguments(n.args[0], rows, columns, hold)}, {rows.size})"
