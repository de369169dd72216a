"""The averaged rule of one coordinate, compiled: values, derivatives, answers to powers of the noise."""

from __future__ import annotations

import sympy as sp

from minidyn.graph import SAMPLE, Graph, Node
from minidyn.graph.derivatives import slopes_by_place
from minidyn.kernels import Emitter, Places, Source, store
from minidyn.maps.averaging import AveragedRule
from minidyn.maps.rule_symbols import NODES, G

_TABLES: Places = {"POINTS": "POINTS[i]", "WEIGHTS": "WEIGHTS[i]"}


def add_jets(src: Source, rule: AveragedRule) -> None:
    """`jets(x, hp, kk, R, J, gain, sign_gain)`, values, slopes and answers to the noise for one coordinate, and
    `curvatures(x, hp, kk, K)`, second derivatives; curves that are no polynomials by quadrature."""
    if rule.summed:
        src.line("from minidyn.compiler import lanes\nfrom minidyn.maps.quadrature import POINTS, WEIGHTS, powers")
    g, width, start = Graph(), 3 + len(rule.accumulators), [f"n = {NODES}"] if rule.summed else []
    first, second = list[Node](), list[Node]()
    for a, node in enumerate(rule.nodes(g, rule.moved_at_a_node if rule.summed else rule.moved)):
        mean = g.sum(_weighted(node), SAMPLE) if node.indices else node
        first.append(store(g, mean, "R", a))
        slopes = slopes_by_place(mean, "x")
        for p in range(width):
            d = slopes.get(p, g.const(0.0))
            first.append(store(g, d, "J", a * width + p))
            if p == 1 and rule.curved[a] is not None:
                first.append(store(g, d, "gain", a))
            bent = slopes_by_place(d, "x")
            second += [store(g, bent.get(r, g.const(0.0)), "K", (a * width + p) * width + r) for r in range(width)]
    plain = {a: e for a, e in enumerate(rule.gain) if rule.curved[a] is None}
    first += [store(g, node, "gain", a) for a, node in zip(plain, rule.nodes(g, [*plain.values()]), strict=True)]
    first += [store(g, node, "sign_gain", a) for a, node in enumerate(rule.nodes(g, rule.sign_gain or []))]
    src.add(
        "jets",
        "x, hp, kk, R, J, gain, sign_gain",
        start + Emitter(first, _TABLES).lines(),
        "averaged rule, one coordinate",
    )
    src.add("curvatures", "x, hp, kk, K", start + Emitter(second, _TABLES).lines(), "its second derivatives")


def _weighted(node: Node) -> Node:
    return node * node.graph.load("WEIGHTS", per=SAMPLE)


def add_bends(src: Source, rule: AveragedRule) -> None:
    """`bends(x, hp, kk, C)`: how every output answers to each Hermite polynomial of the noise but the constant,
    `C[a, k]` with `rule.powers` of them.

    `f_a(sqrt(q) x) = sum_k C[a, k] He_k(x) / sqrt(k!)`, so outputs covary by `sum_k C[a, k] C[b, k] rho^k`
    (Mehler 1866).
    """
    g, count = Graph(), len(rule.outputs)
    curves = {a: e for a, e in enumerate(rule.curved) if e is not None}
    body = [f"for q in range({count * rule.powers}):", "    C[q] = 0.0"]
    if rule.summed:
        apart = [(e - e.xreplace({G: sp.S.Zero})).xreplace(rule.noisy) for e in curves.values()]
        stores = [
            store(g, _weighted(node), "parts", NODES * n, [(SAMPLE, 1)]) for n, node in enumerate(rule.nodes(g, apart))
        ]
        lines = Emitter(stores, _TABLES, {SAMPLE: [f"for i in lanes({NODES}):"]}).lines()
        body += [f"parts = np.empty({NODES * len(stores)})", *lines]
        body += [f"powers(parts, {NODES * n}, C, {NODES * a})" for n, a in enumerate(curves)]
    elif curves:
        nodes = {(a, k): rule.answer(e, k) for a, e in curves.items() for k in range(1, rule.powers)}
        stores = [
            store(g, n, "C", a * rule.powers + k)
            for (a, k), n in zip(nodes, rule.nodes(g, [*nodes.values()]), strict=True)
        ]
        body += Emitter(stores).lines()
    src.add("bends", "x, hp, kk, C", body, "the averaged rule's answers to powers of the noise, one coordinate")


def add_tilts(src: Source, rule: AveragedRule) -> None:
    """`tilts(x, hp, kk, T)`: the outputs' answers to xi^3, T[a], behind them those to xi^2, and `rule.shares`, of one
    coordinate."""
    g, stores = Graph(), []
    count = len(rule.outputs)
    pad = [sp.S.Zero] * (2 * count - len(rule.cubes) - len(rule.squares))
    for a, node in enumerate(rule.nodes(g, [*rule.cubes, *rule.squares, *pad, *rule.shares])):
        if not (node.is_const and node.data == 0.0):
            stores.append(store(g, node, "T", a))
    body = [f"for q in range({2 * count + len(rule.shares)}):", "    T[q] = 0.0"]
    body += Emitter(stores).lines() if stores else []
    src.add("tilts", "x, hp, kk, T", body, "the rule's answers to powers of the noise, one coordinate")
