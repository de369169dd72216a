"""The stochastic modified equation written out: drift and noise factor of a small model, number by number.

As `sme`, for Gaussian noise on losses without loops: every number is an expression on the graph, with the second-order
term `M' M / 2` from reverse differentiation, so that many paths run side by side without a call.
"""

import math

import sympy as sp

from minidyn.graph import Graph, Node
from minidyn.graph.derivatives import reverse
from minidyn.kernels import Places, Source, store
from minidyn.maps.discrete import Map
from minidyn.maps.rule_symbols import THETA, G
from minidyn.maps.rules import Displacement

SMALL = 16  # numbers in a state: beyond, the terms of the second order are too many to write out


def can_be_written(system: Map, squares: bool) -> bool:
    """Whether the equation of a map has such a form: few numbers, no loops, independent normals under a square."""
    loss, bound = system.loss, system.bound
    return bound.couples and loss.straight and system.components <= SMALL and (bound.independent or not squares)


def add_written(src: Source, system: Map, moved: Displacement, order: int, squares_from: int | None) -> None:
    """Add `written_field(w, k, hp, c, d, nz, b, f)`, which returns a status code, to a module.

    squares_from : the column of the noise squared of the first coordinate; None where no state feels it.
    """
    g = Graph()
    loss, bound, size = system.loss, system.bound, system.dim
    gradient = {e.data[1]: d for e, d in bound.gradient(g)}
    mean: dict[int, Node] = {}
    factor: dict[tuple[int, int], Node] = {}
    for i in range(size):
        terms = bound.sigma_terms(g, i)
        variance = g.const(0.0)
        for sigma, _ in terms:
            variance = variance + sigma * sigma
        states = [g.load("w", (1 + a) * size + i) for a in range(len(moved.rule.states))]
        slope = gradient.get(i, g.const(0.0))
        convert = moved.rule.converter(g, g.load("w", i), slope, states, g.load("k"), held=True)
        for a, step in enumerate(moved.moved):
            gain = sp.diff(step, G)
            answer, curve = convert(gain), convert(sp.diff(gain, G))
            row = a * size + i
            mean[row] = convert(step) + 0.5 * (variance * curve)
            factor |= {(row, z.data[1]): answer * sigma for sigma, z in terms}
            if squares_from is not None:
                factor[row, squares_from + i] = math.sqrt(0.5) * (variance * curve)
    drift = mean if order == 1 else {row: node - 0.5 * _along(node, mean) for row, node in mean.items()}
    stores = [store(g, node, "b", row) for row, node in drift.items()]
    places = list(factor)
    stores += [store(g, factor[at], "f", q) for q, at in enumerate(places)]

    lie: Places = {"f": lambda q: f"f[{places[q][0]}, {places[q][1]}]", "k": "k"}
    lines = [*loss.emitter(stores, places=lie).lines(), *_status(moved, drift, places)]
    src.add("written_field", "w, k, hp, c, d, nz, b, f", lines, "drift and noise factor per step", fma=True)


def _along(node: Node, direction: dict[int, Node]) -> Node:
    """The derivative of a node along a direction in the state."""
    total = node.graph.const(0.0)
    for element, slope in reverse(node, "w"):
        total = total + slope * direction[element.data[1]]
    return total


def _status(moved: Displacement, drift: dict[int, Node], places: list[tuple[int, int]]) -> list[str]:
    """Code 6 where a step that is no polynomial is not finite; elsewhere a state that diverges says enough."""
    rest = {THETA, G, *moved.rule.letters}
    if all(e.is_polynomial(*rest & e.free_symbols) for e in moved.moved):
        return ["return 0"]
    terms = [f"b[{row}] * 0.0" for row in drift] + [f"f[{row}, {column}] * 0.0" for row, column in places]
    return [f"lost = {' + '.join(terms)}", "return 0 if lost == 0.0 else 6"]
