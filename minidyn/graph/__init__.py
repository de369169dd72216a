"""sympy expression -> hash-consed graph in single-assignment form.

`nodes` is the graph, which knows nothing of sympy; `reading` turns the expressions that users write into it, and
`walk` visits and prints these, however deep they are.
"""

from minidyn.graph.indexed import Array
from minidyn.graph.nodes import LANE, NO_INDICES, SAMPLE, UNARY, Graph, Index, Node, reachable, users
from minidyn.graph.reading import SUPPORTED, Converter

__all__ = [
    "LANE", "NO_INDICES", "SAMPLE", "SUPPORTED", "UNARY", "Array", "Converter", "Graph", "Index", "Node", "reachable",
    "users",
]  # fmt: skip
