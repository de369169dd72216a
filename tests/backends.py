"""A family of results, from single functions to runs of maps and flows, made by each back end and compared.

    python tests/backends.py                         all cases by all back ends, to the last bit
    python tests/backends.py make FILE.npz CASE ...  the arrays of some cases, as `case/number`, by MINIDYN_COMPILER

A difference is printed with its case and ends in exit code 1.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp

import minidyn as md
from minidyn.common.status import Status
from minidyn.compiler import Known, across, horner, jit, lanes
from minidyn.kernels import elimination, linalg, nullspaces, random
from minidyn.kernels.cofactors import cofactors
from minidyn.kernels.functions import asin_slope, heaviside, logcosh, logistic, logistic_slope, sign, softplus
from minidyn.kernels.vectormath import (
    acos,
    asin,
    atan,
    cos,
    cosh,
    erf,
    exp,
    expm1,
    log,
    log1p,
    pow,
    sin,
    sinh,
    tan,
    tanh,
    tanh_slope,
)

CASES: dict[str, Callable[[], Iterator[Any]]] = {}
x, y, z = sp.symbols("x y z")
START = [0.7, -1.3]


def case(function: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    CASES[function.__name__] = function
    return function


# -- functions -------------------------------------------------------------------------------------------


@jit(fma=True)
def elementary(x, y, out):
    for i in range(x.shape[0]):
        a = x[i]
        out[0, i] = exp(a)
        out[1, i] = expm1(a)
        out[2, i] = log(a)
        out[3, i] = log1p(a)
        out[4, i] = sin(a)
        out[5, i] = cos(a)
        out[6, i] = tan(a)
        out[7, i] = asin(a)
        out[8, i] = acos(a)
        out[9, i] = atan(a)
        out[10, i] = sinh(a)
        out[11, i] = cosh(a)
        out[12, i] = tanh(a)
        out[13, i] = tanh_slope(a)
        out[14, i] = erf(a)
        out[15, i] = pow(a, y[i])
        out[16, i] = logistic(a) + softplus(a)
        out[17, i] = logcosh(a) - sign(a) * heaviside(y[i])
        out[18, i] = logistic_slope(a)
        out[19, i] = asin_slope(a)
        out[20, i] = math.sqrt(a) / math.atan2(a, y[i]) + math.fmod(y[i], a) * math.cbrt(a)


@case
def elementary_functions():
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 5e-324, -1e-300, 1e300, 709.9, -745.2, 0.5]
    a = np.concatenate([rng.normal(size=40), 10.0 ** rng.uniform(-320, 308, 20), 400 * rng.normal(size=20), special])
    b = np.concatenate([rng.permutation(a[:-20]), rng.normal(size=20)])
    out = np.zeros((21, len(a)))
    elementary(a, b, out)
    yield from out


@jit(fma=True)
def dialect(a, n, out, whole, words):
    """What the language leaves unsaid, and what Python would refuse."""
    x, y, z = a[0], a[1], a[2]
    out[0] = x * y + z
    out[1] = x * y - z
    out[2] = z - x * y
    out[3] = x * y + y * z
    out[3] -= x * z
    out[3] += n * x
    out[4] = x**2 - y**3 + z**4 * 1.0 + abs(x) ** 1.5
    out[5] = 1.0 / (x - x) + x / n + n / 7 + 1 / 3
    out[6] = min(x, y, 0.0) - max(x, n)
    out[7] = min(a[3], x) + max(x, a[3])
    out[8] = 1.0 if a[3] == a[3] else math.copysign(2.0, -x)
    zero, huge = 0.0, 1e300
    out[9] = zero / zero
    out[10] = -huge * huge - 1.0 / zero
    out[11] = math.log(zero) + math.exp(1000.0) if n > 0 else math.sqrt(-huge)
    out[12] = math.pow(huge, 2.0) * math.sqrt(-huge)
    out[13] = float(round(2.5)) + round(-x) + math.floor(y) + math.ceil(x) + int(-2.7)
    whole[0] = -n // 3 + -n % 3 + (n << 2 ^ 5 & n | 8) + (n >> 1)
    whole[1] = int(a[1] * 1e3) * (n == 7 or n > 100) + np.int64(words[0])
    word = np.uint64(n) * np.uint64(0x9E3779B97F4A7C15) ^ words[0]
    words[0] = word >> np.uint64(3) | word << np.uint64(61)
    words[1] = words[1] - np.uint64(5)
    words[2] = a[0].view(np.uint64) + (x * y).view(np.uint64)
    out[14] = ((words[2] >> np.uint64(12)) | np.uint64(0x3FF0000000000000)).view(np.float64)
    out[15] = (words[0] >> np.uint64(11)) * 1.1102230246251565e-16 * n
    out[16] = across(a, 4)
    tail = a[n : n + 16]
    local = np.zeros((2, 16))
    for lane in lanes(16):
        local[1, lane] = tail[lane] if lane % 2 == 0 else -x
    copied = local.copy()
    local[1, 0] = 99.0
    row = copied[1]
    out[17] = row[0] + row[1] * row[2] + len(tail)
    out[18] = z - x * horner(y, (0.1, -1 / 3, 7, -0.25))


@jit
def halved(x):
    return 0.5 * x


@jit
def tupled(parts, out):
    """Tuples in tuples, functions and known numbers in them, members of an enumeration."""
    f, n, (a, scale) = parts
    code = Status.FINISHED
    for i in range(n):
        out[i] = f(a[i]) * scale
        code = code if a[i] < 1.0 else Status.SOLVER_FAILED
    out[n] = code + (Status.DIVERGED if a[0] > 0.0 else 0) + parts[1]


@case
def the_language():
    for first in (-1.0, 2.0):
        out = np.zeros(4)
        tupled((halved, Known(3), (np.array([first, 0.25, 0.75]), 3.0)), out)
        yield out
    rng = np.random.default_rng(1)
    for n in (0, 1, 7, 8):
        a = rng.normal(size=24)
        a[3] = math.nan
        out, whole, words = np.zeros(19), np.zeros(2, np.int64), rng.integers(0, 2**64, 3, dtype=np.uint64)
        words[1] = n
        dialect(a, n, out, whole, words)
        yield from (out, whole, words.view(np.int64))


@case
def random_streams():
    for odd in (True, False):
        streams = random.seed_blocks(np.array([3, 2**63 + 5], np.uint64), 2, odd)
        yield streams.view(np.int64)
    r, z = random.seed_blocks(np.array([1, 2], np.uint64), 1)[0], np.zeros(8 * 64)
    random.normals(r, z, 0, 2)
    for k in (1, 2):
        random.half_pair(r, z, 3 + k, k)
    random.signs(r, z, 6, 2)
    index, order = np.zeros(5 * 64, np.int64), np.repeat(np.arange(11), 64)
    random.with_replacement(r, index, 2, 11)
    random.shuffle(r, order, 11, 4)
    yield from (z, index.copy(), order, r.view(np.int64))
    random.few_without_replacement(r, index, 5, 11)
    yield index.copy()
    order = np.repeat(np.arange(11), 64)
    random.without_replacement(r, index, order, 5, 11)
    yield from (index, order, r.view(np.int64))


@case
def linear_algebra():
    rng = np.random.default_rng(2)
    for n in (1, 4):
        a = rng.normal(size=(n, n))
        s, b, out = a @ a.T, rng.normal(size=(n, 2)), np.zeros((n, n))
        yield elimination.solve(a.copy(), b)
        values, vectors = np.zeros(n), np.zeros((n, n))
        linalg.symmetric_eigen(s.copy(), values, vectors)
        yield from (b, values, vectors)
        yield linalg.discrete_lyapunov(np.eye(n) - 0.3 * a / np.linalg.norm(a), np.eye(n), s, out)
        yield out.copy()
        linalg.cholesky_semidefinite(s, out)
        yield out
    a = np.diag([1.0, 0.5, -0.25]) + np.triu(rng.normal(size=(3, 3)), 1)
    p, right, left = np.zeros((3, 3)), np.zeros((3, 1)), np.zeros((1, 3))
    yield nullspaces.spectral_projector(np.eye(3) - a, np.eye(3), p, right, left)
    yield p
    yield nullspaces.group_inverse(np.eye(3) - a, 3, right, left, p)
    yield p


# -- losses, maps, noise ---------------------------------------------------------------------------------------


def curved() -> md.Loss:
    return md.Loss((1 + x**2) * y**2 / 2 + sp.log(sp.cosh(x - y)) / 8, [x, y])


def regression(samples: int = 11) -> md.Loss:
    rng = np.random.default_rng(samples)
    u = rng.normal(size=samples)
    return md.Loss.regression(x * sp.tanh(z * y), [x, y], {z: u}, np.sin(u) + 0.1 * rng.normal(size=samples))


@case
def losses():
    w, v = np.array(START), np.array([0.3, -2.0])
    rough = md.Loss(sp.Piecewise((sp.exp(x) * sp.Abs(y), x > 0), (sp.Max(x, y) ** 3, True)) + x**2.5, [x, y])
    for loss in (curved(), regression(11), regression(24), rough):
        yield from (loss.value(w), loss.grad(w), loss.hessian(w), loss.hvp(w, v), loss.third(w, v, w))
        yield loss.grad(np.stack([w + 0.1 * i for i in range(5)]))


@case
def tables():
    """Matrices and what is made of whole ones; samples that were written out, which lie in a table of their own."""
    A, B, S = (
        md.matrix("A", 5, 3),
        md.matrix("B", 3, 5),
        sp.Matrix([[2, 1, 0, 1], [0, 3, 1, 0], [1, 0, 2, 1], [0, 1, 1, 4]]),
    )
    square = (A * B)[:4, :4] + sp.ImmutableMatrix(S)
    loss = md.Loss(
        sp.Trace((B * A).applyfunc(sp.tanh)) + sp.Trace(square.inverse()) + sp.Determinant(square) / 9, [A, B]
    )
    yield from jets(loss, np.random.default_rng(4).normal(size=loss.dim))
    through = md.Loss((sp.Determinant(md.matrix("C", 4, 4)) - 1) ** 2, [md.matrix("C", 4, 4)])
    singular = np.diag([1.0, 2.0, 1.0, 0.0]).ravel()
    yield from jets(through, singular)
    for k in (2, 3):
        cofactors(np.cos(np.arange(16.0 * (1 + k))), k, out := np.empty(16), 0, 4, 1, 4)
        yield out
    yield md.simulate(md.Map(through, md.SGD(0.05), md.GaussianNoise(0.1)), singular, 5, paths=5, rng=0).w
    u = np.random.default_rng(5).normal(size=(43, 2)).round(3)
    fits = [sp.log(1 + sp.exp(x * a + y * b)) * z + (z - a * sp.tanh(x * b)) ** 2 for a, b in u]
    written = md.Loss(sp.Add(*fits) / 43, [x, y, z])
    yield from jets(written, np.array([*START, 0.4]))
    yield md.simulate(md.Map(written, md.SGD(0.1), md.GaussianNoise(0.1)), [*START, 0.4], 5, paths=5, rng=0).w


def jets(loss, w):
    """Value, gradient, and its change along one direction."""
    return loss.value(w), loss.grad(w), loss.hvp(w, np.cos(np.arange(loss.dim)))


@case
def special_functions():
    forms = [
        sp.gamma(x), sp.log(sp.gamma(x)), sp.beta(x, 2 - y), sp.erfinv(x), sp.erfcinv(x), sp.LambertW(x),
        sp.LambertW(y / 9, -1), sp.besselj(2, 4 * x), sp.besseli(1, y), sp.polygamma(1, y),
    ]  # fmt: skip
    loss = md.Loss(sum(forms), [x, y])
    yield from (loss.value(START), loss.grad(START))


RULES = [
    md.SGD(0.05),
    md.SGD(0.05, momentum=0.9, nesterov=True),
    md.SignGD(0.01),
    md.Lion(0.01),
    md.RMSProp(0.02),
    md.Adam(0.02),
    md.AdamW(0.02),
]


@case
def rules():
    for rule in RULES:
        system = md.Map(curved(), rule, md.GaussianNoise(0.2))
        yield md.simulate(system, START, 30, paths=3, save_every=10, rng=0).w
    decaying = md.Map(curved(), md.SGD(sp.Symbol("k") ** -sp.Rational(1, 2) / 10))
    yield md.simulate(decaying, START, 300, save_every=100).w


NOISES = [
    md.Minibatch(4),
    md.Minibatch(8, replace=True),
    md.Reshuffle(3),
    md.LabelNoise(0.3),
    md.LabelNoise(0.3, batch=2, kind="rademacher"),
    md.GaussianNoise(0.1 + x**2),
    *(md.GaussianNoise.like(md.Minibatch(2), shape) for shape in ("full", "diagonal", "isotropic")),
]


@case
def noises():
    for noise in NOISES:
        system = md.Map(regression(), md.SGD(0.1, momentum=0.5), noise)
        yield md.simulate(system, START, 13, paths=5, save_every=6, rng=1).w
    wide = md.vector("wide", 30)
    j = sp.Symbol("j", integer=True)
    many = md.Loss(sp.Sum(sp.cos(wide[j]) * (1 + wide[j] ** 2), (j, 0, 29)), [wide])
    yield md.simulate(md.Map(many, md.Adam(0.1), md.GaussianNoise(0.1)), np.linspace(-1, 1, 30), 7, paths=2, rng=0).w


# -- flows --------------------------------------------------------------------------------------------------------


def flows(system: md.Map) -> list[md.Flow]:
    return [
        md.GradientFlow(system),
        md.ModifiedFlow(system),
        md.ModifiedFlow(system, order=4),
        md.StochasticModifiedFlow(system),
        md.StochasticModifiedFlow(system, order=2),
        md.RodFlow(system),
    ]


@case
def fields():
    system = md.Map(curved(), md.SGD(0.05), md.GaussianNoise(0.2))
    for flow in flows(system):
        w = flow.start(START)
        yield from (flow.drift(w), flow.diffusion(w))
    adam = md.StochasticModifiedFlow(md.Map(curved(), md.Adam(0.05), md.GaussianNoise(0.2)))
    yield from (adam.drift(adam.start(START), 3), adam.diffusion(adam.start(START), 3))
    valley = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05), md.GaussianNoise(0.3))
    for slow in (md.QuasistaticFlow(valley), md.SubquadraticFlow(valley)):
        yield from (slow.drift(slow.start([2.0, 0.0])), slow.diffusion(slow.start([2.0, 0.0])))


@case
def equations():
    system = md.Map(curved(), md.GD(0.05))
    yield md.simulate(md.GradientFlow(system), START, 40, paths=5, save_every=7).w
    yield md.simulate(md.GradientFlow(system), START, 40, method="radau").w


@case
def stochastic_equations():
    system = md.Map(curved(), md.SGD(0.05), md.GaussianNoise(0.2))
    flow = md.StochasticModifiedFlow(system)
    yield md.simulate(flow, START, 20, paths=5, save_every=3, rng=0).w
    yield md.simulate(flow, START, 4, paths=2, rng=0, method="weak2", substeps=0.5).w


# -- made and compared --------------------------------------------------------------------------------------------


def make(target: str, *names: str) -> None:
    """Write what this process's back end makes of some cases."""
    found = {f"{name}/{k}": np.asarray(a) for name in names for k, a in enumerate(CASES[name]())}
    np.savez(target, **found)


def made_by(compiler: str, folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """What a back end makes of some cases, in a process of its own where warnings are errors."""
    target = folder / f"{compiler} {names[0]}.npz"
    subprocess.run(
        [sys.executable, "-W", "error", __file__, "make", str(target), *names],
        check=True,
        env={**os.environ, "MINIDYN_COMPILER": compiler},
    )
    with np.load(target) as arrays:
        return dict(arrays)


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """The arrays that differ in type, shape or one bit; one NaN is as good as another."""
    assert list(one) == list(other)
    out = []
    for name, a in one.items():
        b = other[name]
        alike = a.dtype == b.dtype and a.shape == b.shape
        if alike and a.dtype == np.float64:
            a, b = (np.where(np.isnan(v), math.nan, v).view(np.int64) for v in (a, b))
        if not alike or not np.array_equal(a, b):
            out.append(name)
    return out


def main() -> int:
    numba = [("numba", [name]) for name in CASES]  # which takes minutes: case by case, on two cores
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two:
        jobs = [("own", list(CASES)), ("python", list(CASES)), *numba]
        own, python, *parts = two.map(lambda job: made_by(job[0], Path(folder), job[1]), jobs)
    others = python, {name: array for part in parts for name, array in part.items()}
    wrong = {name for other in others for name in differences(own, other)}
    print(f"{len(own)} arrays by three back ends, {len(wrong)} differ{': ' if wrong else ''}{', '.join(sorted(wrong))}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(make(*sys.argv[2:]) if len(sys.argv) > 1 else main())
