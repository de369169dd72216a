"""Samples side by side: loops over samples, or over tables, become loops over blocks of eight around loops over eight.

The inner loop is the innermost of all, so that LLVM works on eight samples at once whatever else a kernel loops
over. A sum over samples is eight sums, one for each place in a block, which are added in a fixed order at the end:
the result does not depend on the width of the machine's vectors. The last block is filled up with the last
sample, which does not count there.
"""

from collections.abc import Sequence

from minidyn.graph import SAMPLE, Graph, Index, Node, reachable

SIDES = 8
SIDE = Index(99, "side", SIDES)


def beside(stores: Sequence[Node]) -> list[Index]:
    """The loops whose turns go side by side: that over samples, or else those over tables. They are only summed over:
    nothing is stored, or found, by a sample's number."""
    nodes = reachable(stores)
    loops = {n.data for n in nodes if n.op == "sum" and n.data.kind in ("sample", "row")}
    by_number = ("load", "store") if SAMPLE in loops else ("store",)  # a table is read by number
    numbered = {n.data for n in nodes if n.op == "index"}.union(*(s.indices for s in stores))
    for n in nodes:
        if n.op in by_number:
            numbered |= {i for i, _ in n.data[2]}
    return sorted((loops & {SAMPLE} or loops) - numbered)


def block(loop: Index) -> Index:
    """The loop over the blocks of a loop."""
    return Index(-1, "block", loop.size)


def side_by_side(stores: Sequence[Node], loops: Sequence[Index]) -> list[Node]:
    """The same stores in a new graph where loops go by blocks; what is read in a turn alone is read once."""
    g = Graph()
    memo: dict[int, Node] = {}
    for n in reachable(stores):
        args = [memo[a.id] for a in n.args]
        inside = [i for i in loops if i in n.indices]
        turn = {block(i) for i in inside} | ({SIDE} if inside else set())
        indices = n.indices.difference(inside) | turn
        if n.op == "sum" and n.data in loops:
            each = g.make("sum", args, block(n.data), indices | {SIDE})
            memo[n.id] = g.make("across", (each,), None, indices)
            continue
        new = g.make(n.op, args, n.data, indices)
        alone = n.op == "load" and inside and indices == turn
        memo[n.id] = g.make("copy", (new,), None, indices) if alone else new
    return [memo[s.id] for s in stores]
