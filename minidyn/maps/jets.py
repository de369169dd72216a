"""The averaged rule of one coordinate, compiled: values, derivatives, answers to powers of the noise."""

from __future__ import annotations

import numpy as np
import sympy as sp

from minidyn.graph import Graph, Node
from minidyn.graph.derivatives import slopes_by_place
from minidyn.kernels import Emitter, Source, store
from minidyn.maps.averaging import NODES, AveragedRule, nodes
from minidyn.maps.rule_symbols import G

_JETS = "x, hp, kk, R, J, K, gain, sign_gain"


def add_jets(src: Source, rule: AveragedRule) -> None:
    """`jets(x, hp, kk, R, J, K, gain, sign_gain)` for one coordinate; curves by quadrature, node by node."""
    if not rule.wide:
        stores = _jet_stores(rule, rule.moved, rule.gain)
        src.add("jets", _JETS, Emitter(stores).lines(), "averaged rule, one coordinate")
        return
    here = rule.moved_at_a_node
    gain = [m if e is None else sp.diff(e, G).xreplace(rule.noisy) for e, m in zip(rule.curved, rule.gain, strict=True)]
    src.add("jets_at", _JETS.replace("kk,", "kk, node,"), Emitter(_jet_stores(rule, here, gain)).lines(), "at one node")
    outputs, width = len(here), 3 + len(rule.accumulators)
    at = {"R": 0, "J": outputs, "K": outputs * (1 + width), "gain": outputs * (1 + width + width**2)}
    parts = dict(zip(at, np.diff([*at.values(), at["gain"] + outputs]), strict=True))
    body = [f"one = np.zeros({sum(parts.values())})", "node = np.empty(1)"]
    for name, size in parts.items():
        body += [f"for q in range({size}):", f"    {name}[q] = 0.0"]
    places = ", ".join(f"one[{at[n]}:{at[n] + s}]" for n, s in parts.items())
    body += [*_each_node(), f"    jets_at(x, hp, kk, node, {places}, sign_gain)"]
    for name, size in parts.items():
        body += [f"    for q in range({size}):", f"        {name}[q] += weight * one[{at[name]} + q]"]
    src.add("jets", _JETS, body, "averaged rule, one coordinate")


def _jet_stores(rule: AveragedRule, exprs: list[sp.Expr], gains: list[sp.Expr]) -> list[Node]:
    """Stores of values, first and second derivatives."""
    g = Graph()
    width = 3 + len(rule.accumulators)
    stores = []

    for a, node in enumerate(rule.nodes(g, exprs)):
        stores.append(store(g, node, "R", a))
        first = slopes_by_place(node, "x")
        for p in range(width):
            d = first.get(p, g.const(0.0))
            stores.append(store(g, d, "J", a * width + p))
            second = slopes_by_place(d, "x")
            for r in range(width):
                stores.append(store(g, second.get(r, g.const(0.0)), "K", (a * width + p) * width + r))
    for a, node in enumerate(rule.nodes(g, gains)):
        stores.append(store(g, node, "gain", a))
    for a, node in enumerate(rule.nodes(g, rule.sign_gain) if rule.sign_gain else []):
        stores.append(store(g, node, "sign_gain", a))
    return stores


def _each_node() -> list[str]:
    """A loop over the nodes that have a weight worth adding, `node[0]` and `weight`; opposite ones follow each other,
    so that odd sums vanish."""
    pairs = sorted(((float(t), float(w)) for t, w in zip(*nodes(), strict=True) if w > 1e-17), key=lambda p: abs(p[0]))
    table = [f"{name} = np.empty({len(pairs)})" for name in ("points", "weights")]
    table += [f"{name}[{i}] = {p[n]!r}" for i, p in enumerate(pairs) for n, name in enumerate(("points", "weights"))]
    return [*table, f"for turn in range({len(pairs)}):", "    node[0] = points[turn]", "    weight = weights[turn]"]


def add_bends(src: Source, rule: AveragedRule) -> None:
    """`bends(x, hp, kk, C)`: how every output answers to each Hermite polynomial of the noise, C[a, k], by quadrature.

    `f_a(sqrt(q) x) = sum_k C[a, k] He_k(x) / sqrt(k!)`, so outputs covary by `sum_k C[a, k] C[b, k] rho^k`
    (Mehler 1866).
    """
    g, count = Graph(), len(rule.outputs)
    curves = {a: e for a, e in enumerate(rule.curved) if e is not None}
    apart = [(e - e.xreplace({G: sp.S.Zero})).xreplace(rule.noisy) for e in curves.values()]
    stores = [store(g, node, "F", a) for a, node in zip(curves, rule.nodes(g, apart), strict=True)]
    body = [f"for q in range({count * NODES}):", "    C[q] = 0.0"]
    if stores:
        src.add("curve_at", "x, hp, kk, node, F", Emitter(stores).lines(), "outputs that bend, at one node")
        body += [
            f"F = np.zeros({count})", f"h = np.empty({NODES})", f"up = np.empty({NODES})", f"down = np.empty({NODES})",
            f"for k in range({NODES}):", "    up[k] = 1.0 / np.sqrt(k + 1.0)", "    down[k] = np.sqrt(k / (k + 1.0))",
            "node = np.empty(1)", *_each_node(),
            "    curve_at(x, hp, kk, node, F)", "    h[0] = 1.0", "    h[1] = node[0]",
            f"    for k in range(1, {NODES - 1}):",
            "        h[k + 1] = node[0] * h[k] * up[k] - h[k - 1] * down[k]",
            f"    for a in range({count}):", "        part = F[a] * weight", f"        for k in range({NODES}):",
            f"            C[a * {NODES} + k] += part * h[k]",
        ]  # fmt: skip
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
