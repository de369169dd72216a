"""Graphs rewritten for speed: the same numbers up to rounding, with fewer operations that wait for each other."""

import heapq
from collections.abc import Callable, Mapping, Sequence

from minidyn.graph import Graph, Node, reachable, users

Change = Callable[[Graph, Node, list[Node]], Node | None]
_LATENCY = {"div": 13, "sqrt": 20, "neg": 1, "abs": 1, "select": 1, "load": 0, "const": 0}  # in cycles, roughly
_SLOW = 40


def rewritten(outputs: Sequence[Node], change: Change) -> list[Node]:
    """A copy of the outputs in a graph of its own; `change(graph, node, new args)` may give another node."""
    graph = Graph()
    made: dict[int, Node] = {}
    for n in reachable(outputs):
        args = [made[a.id] for a in n.args]
        new = change(graph, n, args)
        made[n.id] = graph.make(n.op, args, n.data, n.indices) if new is None else new
    return [made[n.id] for n in outputs]


def replaced(outputs: Sequence[Node], place: Mapping[int, tuple[str, int]]) -> list[Node]:
    """The outputs with some nodes (by id) read from memory instead."""
    return rewritten(outputs, lambda graph, n, args: graph.load(*place[n.id]) if n.id in place else None)


def dependence(outputs: Sequence[Node], fixed: Sequence[str], step: Sequence[str]) -> dict[int, str]:
    """What each node (by id) depends on: "fixed" arrays, the "step" beside them, or anything else: the "path"."""
    kinds: dict[int, str] = {}
    for n in reachable(outputs):
        if n.op == "load":
            kinds[n.id] = "fixed" if n.data[0] in fixed else "step" if n.data[0] in step else "path"
        else:
            found = {kinds[a.id] for a in n.args}
            unknown = "fixed" if n.op == "const" or found else "path"
            kinds[n.id] = next((k for k in ("path", "step") if k in found), unknown)
    return kinds


def without_divisions(outputs: Sequence[Node], kinds: Mapping[int, str]) -> list[Node]:
    """Divisions by what does not depend on the path become products with its inverse."""

    def change(graph: Graph, n: Node, args: list[Node]) -> Node | None:
        if n.op == "div" and kinds[n.args[1].id] != "path" and kinds[n.args[0].id] == "path":
            return graph.make("mul", (args[0], graph.make("div", (graph.const(1.0), args[1]))))
        return None

    return rewritten(outputs, change)


def balanced(outputs: Sequence[Node], early: Sequence[str]) -> list[Node]:
    """Products in the order in which their factors become known; what is read from `early` arrays comes first."""
    nodes = reachable(outputs)
    uses, asked = users(nodes), {n.id for n in outputs}

    def inner(n: Node) -> bool:
        """Whether a product is only a factor of another one."""
        used = uses.get(n.id, [])
        return n.op == "mul" and n.id not in asked and len(used) == 1 and used[0].op == "mul"

    def factors(n: Node) -> list[Node]:
        found, todo = [], list(reversed(n.args))
        while todo:
            a = todo.pop()
            if inner(a):
                todo += reversed(a.args)
            else:
                found.append(a)
        return found

    graph = Graph()
    made: dict[int, Node] = {}
    ready: dict[int, int] = {}

    def make(op: str, args: Sequence[Node], like: Node) -> Node:
        new = graph.make(op, args, like.data, like.indices)
        if op == "load":
            ready[new.id] = -_SLOW if like.data[0] in early else 0
        elif op == "const":
            ready[new.id] = -_SLOW
        else:
            latency = _LATENCY.get(op, 4 if op in ("add", "sub", "mul") else _SLOW)
            ready.setdefault(new.id, latency + max((ready[a.id] for a in args), default=0))
        return new

    for n in nodes:
        if inner(n):
            continue
        if n.op != "mul":
            made[n.id] = make(n.op, [made[a.id] for a in n.args], n)
            continue
        waiting = [(ready[made[f.id].id], made[f.id].id, made[f.id]) for f in factors(n)]
        heapq.heapify(waiting)
        while len(waiting) > 1:
            first, second = heapq.heappop(waiting)[2], heapq.heappop(waiting)[2]
            product = make("mul", (first, second), n)
            heapq.heappush(waiting, (ready[product.id], product.id, product))
        made[n.id] = waiting[0][2]
    return [made[n.id] for n in outputs]
