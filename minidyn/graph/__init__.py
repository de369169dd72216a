"""sympy expression -> hash-consed graph in single-assignment form.

`nodes` is the graph, which knows nothing of sympy, `functions` the table of the functions in it; `reading`
turns the expressions that users write into it (`vocabulary`: the classes of sympy that it knows), and `walk` visits and
prints these, however deep they are.
"""

from minidyn.graph.functions import FUNCTIONS
from minidyn.graph.indexed import Array
from minidyn.graph.nodes import LANE, NO_INDICES, SAMPLE, Graph, Index, Node, reachable, users
from minidyn.graph.reading import Converter
from minidyn.graph.rolling import SHORTEST, Numbers
from minidyn.graph.vocabulary import SUPPORTED

__all__ = [
    "FUNCTIONS", "LANE", "NO_INDICES", "SAMPLE", "SHORTEST", "SUPPORTED", "Array", "Converter", "Graph", "Index",
    "Node", "Numbers", "reachable", "users",
]  # fmt: skip
