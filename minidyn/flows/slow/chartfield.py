"""The closed form's field number by number, for many paths side by side.

As `closed`, for Gaussian noise of the map's own or one coordinate, and one or two numbers that oscillate across the
minima (a parameter, and its momentum): drift and noise factor of theta and of the coordinates are expressions, and
putting a point back is one, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from minidyn.flows.slow.reduction import ChartForm
from minidyn.graph import Graph, Node
from minidyn.kernels import Emitter, Source, store
from minidyn.minima.charts import Chart

_STABLE = {  # whether the eigenvalues of the core lie inside the unit circle (Jury)
    1: ["inside = abs(core_0) < 1.0"],
    2: [
        "area = core_0 * core_3 - core_1 * core_2",
        "inside = abs(area) < 1.0 and abs(core_0 + core_3) < 1.0 + area",
    ],
}
Conversion = Callable[[Any], Node]


def can_be_written(form: ChartForm, chart: Chart, couples: bool) -> bool:
    """Whether one or two numbers oscillate across the minima, and no matrix has to be factorized."""
    return not form.heard and form.core.rows <= 2 and form.feedback.rows <= 1 and (couples or chart.dimension == 1)


def add_chart_field(src: Source, form: ChartForm, chart: Chart, couples: bool,
                    conversion: Callable[[Graph, str, int], Conversion]) -> None:  # fmt: skip
    """Add `written_field(w, k, hp, c, nz, b, f)`, which returns a status code, and `written_place(w, c, nz)`.

    conversion(graph, array, offset) : sympy -> nodes, with the coordinates read from `array` from `offset` on.
    """
    g, dim, s = Graph(), len(chart.place), chart.coordinates
    count = len(s)
    convert = conversion(g, "w", dim)
    drift = [convert(e) for e in form.drift]
    if couples and form.noise is not None:
        noise = [[convert(e) for e in form.noise.row(a)] for a in range(count)]
    else:
        noise = [[g.unary("sqrt", convert(form.covariance[0, 0]))]]
    b = [_along(g, [convert(sp.diff(e, x)) for x in s], drift, convert(bend(form, s, e))) for e in chart.place] + drift
    slopes = [[convert(sp.diff(e, x)) for x in s] for e in chart.place]
    width = len(noise[0])
    f = [[_along(g, row, [n[r] for n in noise], g.const(0.0)) for r in range(width)] for row in slopes] + noise
    tests = [*form.core, *form.feedback, *form.cloud]
    stores = [store(g, convert(e), "core", q) for q, e in enumerate(tests)]
    stores += [store(g, node, "b", i) for i, node in enumerate(b)]
    stores += [store(g, node, "f", i * width + r) for i, row in enumerate(f) for r, node in enumerate(row)]

    def read(array: str, address: str) -> str:
        if array == "f":
            return f"f[{int(address) // width}, {int(address) % width}]"
        return {"core": f"core_{address}", "kk": "k"}.get(array, f"{array}[{address}]")

    terms = [f"b[{i}]" for i in range(dim + count)] + [f"f[{i}, {r}]" for i in range(dim + count) for r in range(width)]
    terms += [f"core_{q}" for q in range(len(tests))]
    lines = [
        *Emitter(stores, read=read).lines(), f"lost = {' + '.join(f'{t} * 0.0' for t in terms)}",
        *_STABLE[form.core.rows], *([f"inside = inside and core_{len(form.core)} < 1.0"] if form.feedback.rows else []),
        f"lawful = inside and core_{len(tests) - 1} >= 0.0" if form.cloud else "lawful = inside",
        "away = 0.0 if lawful else np.nan",  # else the map leaves the minima
        *[f"b[{dim + a}] += away" for a in range(count)], "code = 0 if away == 0.0 else (18 if inside else 5)",
        "return code if lost == 0.0 else 6",
    ]  # fmt: skip
    src.add("written_field", "w, k, hp, c, nz, b, f", lines, "drift and noise factor per step", fma=True)
    place = conversion(g := Graph(), "w", dim)
    stores = [store(g, place(e), "w", i) for i, e in enumerate(chart.place)]
    src.add("written_place", "w, c, nz", Emitter(stores).lines(), "theta from its coordinates", fma=True)


def bend(form: ChartForm, s: list[sp.Symbol], e: sp.Expr) -> sp.Expr:
    """Ito's correction of a parameter `e(s)`."""
    return sum(form.covariance[a, b] * sp.diff(e, x, y) for a, x in enumerate(s) for b, y in enumerate(s)) / 2


def _along(g: Graph, slope: list[Node], move: list[Node], start: Node) -> Node:
    for a, b in zip(slope, move, strict=True):
        start = start + a * b
    return start
