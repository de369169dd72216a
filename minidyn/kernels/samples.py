"""Samples side by side: a loop over samples becomes a loop over blocks of eight around loops over eight samples.

The inner loop is the innermost of all, so that LLVM works on eight samples at once whatever else a kernel loops
over. A sum over samples is eight sums, one for each place in a block, which are added in a fixed order at the end:
the result does not depend on the width of the machine's vectors. The last block is filled up with the last
sample, which does not count there.
"""

from collections.abc import Sequence

from minidyn.graph import SAMPLE, Graph, Index, Node, reachable

SIDES = 8
BLOCK = Index(-1, "block")
SIDE = Index(99, "side", SIDES)
_BOTH = frozenset((BLOCK, SIDE))


def fits(stores: Sequence[Node]) -> bool:
    """Whether samples are only summed over: nothing is stored, or found, by a sample's number."""
    nodes = reachable(stores)
    numbered = any(
        any(i == SAMPLE for i, _ in n.data[2]) if n.op in ("load", "store") else n.op == "index" and n.data == SAMPLE
        for n in nodes
    )
    sums = any(n.op == "sum" and n.data == SAMPLE for n in nodes)
    return sums and not numbered and all(SAMPLE not in s.indices for s in stores)


def side_by_side(stores: Sequence[Node]) -> list[Node]:
    """The same stores in a new graph where samples go by blocks; what is read of a sample alone is read once."""
    g = Graph()
    memo: dict[int, Node] = {}
    for n in reachable(stores):
        args = [memo[a.id] for a in n.args]
        indices = (n.indices - {SAMPLE}) | _BOTH if SAMPLE in n.indices else n.indices
        if n.op == "sum" and n.data == SAMPLE:
            each = g.make("sum", args, BLOCK, indices | {SIDE})
            memo[n.id] = g.make("across", (each,), None, indices)
            continue
        new = g.make(n.op, args, n.data, indices)
        memo[n.id] = g.make("copy", (new,), None, indices) if n.op == "load" and indices == _BOTH else new
    return [memo[s.id] for s in stores]
