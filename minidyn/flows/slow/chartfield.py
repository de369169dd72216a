"""The field of a closed form, compiled: for one path, from all that `reduction` derived (`chart_form`), and, where no
matrix has to be factorized, as expressions number by number, for many paths side by side.

The latter is for Gaussian noise of the map's own or one coordinate, and one or two numbers that oscillate across the
minima (a parameter, and its momentum).
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.status import Status
from minidyn.flows.slow.reduction import ChartForm
from minidyn.flows.slow.settle import SLACK
from minidyn.graph import Graph, Node
from minidyn.kernels import Emitter, Source, matrix, store
from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import cholesky_semidefinite, discrete_lyapunov, extreme_eigenvalues, inner
from minidyn.minima.charts import Chart

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


class Size(IntEnum):
    """What the field reads as `fp`: how many numbers there are of every kind."""

    THETA = 0
    COORDINATES = 1
    NORMALS = 2
    CORE = 3
    COUPLED = 4
    PAIRS = 5
    SEEN = 6
    CLOUD = 7


def chart_outputs(form: ChartForm, chart: Chart, noise: list[sp.Expr]) -> list[sp.Expr]:
    """What `chart_form` stores, in the order in which `parts` takes it apart."""
    s = chart.coordinates
    slopes = [sp.diff(e, x) for e in chart.place for x in s]
    bends = [bend(form, s, e) for e in chart.place]
    rest = [*form.feedback, *form.cloud, *form.seen]
    return [*form.drift, *form.covariance, *noise, *form.core, *slopes, *bends, *rest]


@inner
def parts(fp):
    """Where in the outputs of `chart_form` each part ends: drift, covariance, noise, core, slopes, bends, feedback,
    cloud, what accumulators see."""
    count = np.int64(fp[Size.COORDINATES])
    covariance = count + count * count
    noise = covariance + count * np.int64(fp[Size.NORMALS])
    core = noise + np.int64(fp[Size.CORE]) * np.int64(fp[Size.CORE])
    slopes = core + np.int64(fp[Size.THETA]) * count
    bends = slopes + np.int64(fp[Size.THETA])
    feedback = bends + np.int64(fp[Size.PAIRS]) * np.int64(fp[Size.PAIRS])
    cloud = feedback + np.int64(fp[Size.CLOUD])
    return count, covariance, noise, core, slopes, bends, feedback, cloud, cloud + np.int64(fp[Size.SEEN])


def put_on_minima(fns, w, hp, c, d, nz, fp):
    """theta from its coordinates."""
    _, place = fns
    dim = np.int64(fp[Size.THETA])
    out = np.empty(dim)
    place(w[dim:], c, nz, out)
    for i in range(dim):
        w[i] = out[i]
    return Status.FINISHED


def chart_field(fns, w, k, hp, c, d, nz, fp, b, f):
    """Drift per step and noise factor per square root of a step, of theta and of the coordinates."""
    form, _ = fns
    dim = np.int64(fp[Size.THETA])
    drift, covariance, noise, core, slopes, bends, feedback, cloud, every = parts(fp)
    count, width = drift, np.int64(fp[Size.NORMALS])
    out = np.empty(every)
    code = consistent(form, w[dim:], k, hp, c, nz, count, every - cloud, out)
    if code == Status.FINISHED:
        code = lawful(out[noise:core], out[bends:feedback], out[feedback:cloud], fp)
    if code != Status.FINISHED:
        return code
    root = np.zeros((count, f.shape[1]))
    if fp[Size.COUPLED] != 0.0:
        for a in range(count):
            for r in range(width):
                root[a, r] = out[covariance + a * width + r]
    else:
        room = np.empty((2, count, count))
        small, lower = room[0], room[1]
        for a in range(count):
            for e in range(count):
                small[a, e] = out[count + a * count + e]
        cholesky_semidefinite(small, lower)
        for a in range(count):
            for e in range(count):
                root[a, e] = lower[a, e]
    for a in range(count):
        b[dim + a] = out[a]
        for r in range(f.shape[1]):
            f[dim + a, r] = root[a, r]
    for i in range(dim):
        total = out[slopes + i]
        for a in range(count):
            total += out[core + i * count + a] * out[a]
        b[i] = total
        for r in range(f.shape[1]):
            total = 0.0
            for a in range(count):
                total += out[core + i * count + a] * root[a, r]
            f[i, r] = total
    return Status.FINISHED


@inner
def lawful(core, feedback, cloud, fp):
    """Whether the oscillation across the minima comes to a stationary law; a status code."""
    size, pairs = np.int64(fp[Size.CORE]), np.int64(fp[Size.PAIRS])
    room = np.zeros((3, size, size))
    gap, unit, spread = room[0], room[1], room[2]
    for i in range(size):
        unit[i, i] = 1.0
        for j in range(size):
            gap[i, j] = unit[i, j] - core[i * size + j]
    if size == 1:
        if not 0.0 < gap[0, 0] < 2.0:
            return Status.UNSTABLE
    elif not discrete_lyapunov(gap, unit, unit, spread):
        return Status.UNSTABLE
    if pairs > 0 and not settles(feedback, pairs):
        return Status.DRIVEN
    if cloud.shape[0] > 0:
        least, largest = extremes(cloud, cloud.shape[0])
        if not least >= -SLACK * max(0.0, largest):
            return Status.LAWLESS
    return Status.FINISHED


@inner
def consistent(form, s, k, hp, c, nz, count, seen, out):
    """`form` at coordinates s and at what the accumulators see of the oscillation that it describes: the fixed point
    of its last outputs, extrapolated as in `oscillation.next_seen`; a status code."""
    kk = np.empty(1)
    kk[0] = k
    point = np.zeros(count + seen)
    last = np.zeros(seen)
    for a in range(count):
        point[a] = s[a]
    at = out.shape[0] - seen
    share = 1.0
    for turn in range(200):
        form(point, kk, hp, c, nz, out)
        change, before, both, scale = 0.0, 0.0, 0.0, 1e-300
        for i in range(seen):
            scale = max(scale, abs(out[at + i]))
        for i in range(seen):
            gap = out[at + i] - point[count + i]
            if not abs(gap) < np.inf:
                return Status.SINGULAR
            weight = 1.0 / (1e-6 * scale + abs(out[at + i]))
            change = max(change, abs(gap) * weight)
            before += ((gap - last[i]) * weight) ** 2
            both += last[i] * (gap - last[i]) * weight**2
        if change <= 1e-14:
            break
        if turn > 0 and before > 0.0:
            share = min(1.5, max(0.1, -share * both / before))
        for i in range(seen):
            gap = out[at + i] - point[count + i]
            point[count + i] = max(0.0, point[count + i] + share * gap)
            last[i] = gap
    for q in range(out.shape[0]):
        if not abs(out[q]) < np.inf:
            return Status.SINGULAR
    return Status.FINISHED if change <= 1e-11 else Status.SINGULAR


@inner
def settles(flat, pairs):
    """Whether second moments across the minima die out: `C = I + feedback C` has a positive solution, see `feedback`;
    the lower triangle of C is numbered row by row, and ends up in `flat`."""
    left = np.empty((pairs, pairs))
    x = np.zeros((pairs, 1))
    a, diagonal = 0, 0
    for at in range(pairs):
        if at == diagonal:
            x[at, 0] = 1.0
            a += 1
            diagonal += a + 1
        for p in range(pairs):
            left[at, p] = (1.0 if p == at else 0.0) - flat[at * pairs + p]
    if not solve(left, x):
        return False
    for at in range(pairs):
        flat[at] = x[at, 0]
    least, _ = extremes(flat, pairs)
    return least > 0.5


@inner
def extremes(x, pairs):
    """The least and the largest eigenvalue of a symmetric matrix, its lower triangle row by row in x."""
    size = 0
    while size * (size + 1) // 2 < pairs:
        size += 1
    C = np.empty((size, size))
    at = 0
    for a in range(size):
        for b in range(a + 1):
            C[a, b] = x[at]
            C[b, a] = x[at]
            at += 1
    return extreme_eigenvalues(C)


def field_as_written(fns, w, k, hp, c, d, nz, fp, b, f):
    """`chart_field` where it is written out."""
    field, _ = fns
    return field(w, k, hp, c, nz, b, f)


def place_as_written(fns, w, hp, c, d, nz, fp):
    """`put_on_minima` where it is written out."""
    _, place = fns
    place(w, c, nz)
    return Status.FINISHED


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
    return not form.seen and form.core.rows <= 2 and form.feedback.rows <= 1 and (couples or chart.dimension == 1)


def add_chart_field(
    src: Source, form: ChartForm, chart: Chart, couples: bool, conversion: Callable[[Graph, str, int], Conversion]
) -> None:
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

    places = matrix("f", width) | {"core": "core_{}", "kk": "k"}
    terms = [f"b[{i}]" for i in range(dim + count)] + [f"f[{i}, {r}]" for i in range(dim + count) for r in range(width)]
    terms += [f"core_{q}" for q in range(len(tests))]
    lines = [
        *Emitter(stores, places=places).lines(),
        f"lost = {' + '.join(f'{t} * 0.0' for t in terms)}",
        *_STABLE[form.core.rows],
        *([f"inside = inside and core_{len(form.core)} < 1.0"] if form.feedback.rows else []),
        f"lawful = inside and core_{len(tests) - 1} >= 0.0" if form.cloud else "lawful = inside",
        "away = 0.0 if lawful else np.nan",  # else the map leaves the minima
        *[f"b[{dim + a}] += away" for a in range(count)],
        f"code = 0 if away == 0.0 else ({Status.LAWLESS:d} if inside else {Status.UNSTABLE:d})",
        f"return code if lost == 0.0 else {Status.SINGULAR:d}",
    ]
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
