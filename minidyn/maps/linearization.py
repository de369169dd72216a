"""The averaged map near its fixed points: A, B, the noise it feels, and its second derivatives.

The state is ordered `z = (theta, first aux, second aux, ...)`. Output `a` of coordinate `i` depends on
the inputs `x = (theta_i, g_i, q_i, states_i)`, with `g` the gradient and `q` the diagonal of the noise
covariance, both functions of theta. So everything about the map's linearization follows from a few
numbers per coordinate: values `R`, slopes `J`, second derivatives `K` of the averaged rule. Values
and slopes are those of the displacement `z' - z`, and `gap = I - A` is put together of them: at a small learning rate
a difference `1 - (1 - lr h)` would have no digits left.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minidyn.common.byvalue import ByValue
from minidyn.kernels import Source, pointer
from minidyn.kernels.linalg import inner, jit, multiply, solve, symmetric_eigen
from minidyn.maps.averaging import averaged, check_noise
from minidyn.maps.jets import add_bends as add_bend_kernel
from minidyn.maps.jets import add_jets
from minidyn.maps.jets import add_tilts as add_tilt_kernel
from minidyn.maps.kicks import add_bends, add_remembered, lean, noise_covariance

if TYPE_CHECKING:
    from minidyn.maps.discrete import Map

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Floats = NDArray[np.float64]
_SILENT, _INFINITE = 1e-200, 1e60  # a variance that stands for none, and slopes that only such a variance makes
NEEDS = ("grad", "hessian", "third_trace", "sigma", "noise_factor", "noise_q", "noise_dq", "noise_ddq", "jets",
         "noise_bend", "bends", "tilts", "noise_moments")  # fmt: skip


class AveragedMap(ByValue):
    """A map averaged over its noise, near the fixed points that it has on the minima manifold."""

    def __init__(self, system: Map, accumulators: str = "full"):
        self.map, self.accumulators = system, accumulators
        self.rule = averaged(system.rule, accumulators)
        check_noise(self.rule, system.bound)

    @property
    def feels_skew(self) -> bool:
        """Whether skewed noise makes a force: a choice of samples under accumulators that move."""
        return feels_skew(self.map, self.accumulators)

    def add_kernels(self, src: Source) -> None:
        """Add the kernels that `expand` and `analyse` need to a module: `jets` and the noise covariance."""
        self.map.bound.add_covariance(src)
        self.map.bound.add_moments(src, self.feels_skew)
        add_jets(src, self.rule)
        add_bend_kernel(src, self.rule)
        add_tilt_kernel(src, self.rule)

    def pointers(self, module: ModuleType) -> tuple[Any, ...]:
        """The kernels of `NEEDS` from the averaged map's module and the loss's, as function pointers."""
        loss = self.map.loss.kernels
        return tuple(pointer(module if n in vars(module) and n != "grad" else loss, n) for n in NEEDS)

    def linearize(self, w: Floats) -> tuple[int, Floats, Floats, Floats]:
        """Status code, fixed point z*, A = dF/dz and B = dF/dg at a point w of the manifold."""
        src = Source(f"linearization of {self.map.rule.name} on {self.map.loss}")
        self.add_kernels(src)
        fns = self.pointers(src.load())
        m, dim, states = self.map, self.map.dim, len(self.map.rule.states)
        size, width = dim * (1 + states), 3 + states
        gap, gain, X = np.empty((size, size)), np.zeros((dim, 1 + states)), np.empty((dim, width))
        fp = np.array([0.0, 1e-7, *flags(m, self.accumulators, False)])
        code = linear_part(fns, w, 1.0, m.hyper_at(), m.loss.c, m.loss.rows, m.bound.numbers, fp, X, gain, gap)
        B = np.concatenate([np.diag(gain[:, a]) for a in range(1 + states)])
        return code, np.concatenate([w, X[:, 3:].T.ravel()]), np.eye(size) - gap, B


def feels_skew(system: Map, accumulators: str) -> bool:
    """Whether skewed noise makes a force: a choice of samples under accumulators that move."""
    moved = any(averaged(system.rule, accumulators).accumulators) and accumulators != "frozen"
    return moved and system.bound.kappa > 0.0


def flags(system: Map, accumulators: str, coupled: bool) -> list[float]:
    """What compiled functions read as `fp[2:]`: number of states, whether the noise varies along w,
    whether the rule takes signs, has accumulators, shares the map's normals, which states are frozen, what the
    sign remembers of the noise, whether accumulators see the oscillation too, which states they are, whether the
    rule bends over the width of the noise, whether accumulators feel its skewness, whether they square memories, and
    what share of all that they hear they miss."""
    rule = averaged(system.rule, accumulators)
    frozen = [float(accumulators == "frozen" and a) for a in rule.accumulators]
    answers = float(accumulators == "self-consistent" and rule.answers)
    known = (len(frozen), system.bound.varies, rule.sign_gain is not None, any(rule.accumulators), coupled)
    tail = (answers, *rule.accumulators, rule.wide, feels_skew(system, accumulators), bool(rule.hears), 0.0)
    return [*map(float, known), *frozen, *map(float, rule.memory), *map(float, tail)]


# -- compiled once per machine -----------------------------------------------------------------------


@inner
def noise_slopes(fns, w, c, d, nz, fp, q, dq):
    """q = diag Sigma and its derivative dq[i, j] = d q_i / d theta_j."""
    noise_q, noise_dq = fns[5], fns[6]
    dim = w.shape[0]
    noise_q(w, c, d, nz, q)
    if fp[3] != 0.0:
        unit = np.zeros(dim)
        column = np.empty(dim)
        for j in range(dim):
            unit[j] = 1.0
            noise_dq(w, unit, c, d, nz, column)
            unit[j] = 0.0
            for i in range(dim):
                dq[i, j] = column[i]
    else:
        for i in range(dim):
            for j in range(dim):
                dq[i, j] = 0.0


@inner
def fixed_state(jets, states, x, hp, kk, R, J, K, gain, sign_gain):
    """Newton's method for the states that the averaged rule leaves in place; False if it fails."""
    if states == 0:
        jets(x, hp, kk, R, J, K, gain, sign_gain)
        return True
    width = 3 + states
    block = np.empty((states, states))
    step = np.empty((states, 1))
    for _ in range(50):
        jets(x, hp, kk, R, J, K, gain, sign_gain)
        largest = 0.0
        for a in range(states):
            step[a, 0] = R[1 + a]
            for b in range(states):
                block[a, b] = -J[(1 + a) * width + 3 + b]
        if not solve(block, step):
            return False
        for a in range(states):
            if not abs(step[a, 0]) < np.inf:
                return False
            largest = max(largest, abs(step[a, 0]) / (1e-300 + abs(x[3 + a]) + abs(step[a, 0])))
            x[3 + a] += step[a, 0]
        if largest < 1e-15:
            jets(x, hp, kk, R, J, K, gain, sign_gain)
            return True
    jets(x, hp, kk, R, J, K, gain, sign_gain)
    return largest < 1e-10


@inner
def expand(fns, w, k, hp, c, d, nz, fp, q, X, R, J, K, gain, sign_gain):
    """Fixed state and jets of every coordinate at a point of M; a status code, 0 if all is well.

    R[:, 0] is then the weak force `p = theta' - theta` where the gradient is zero (theory 2.2c), its slopes taken out.
    Where a coordinate has no noise its accumulators stay at zero, and the rule must divide by something else (eps).
    """
    jets = fns[8]
    dim = w.shape[0]
    states = np.int64(fp[2])
    width = 3 + states
    kk = np.empty(1)
    kk[0] = k
    for i in range(dim):
        silent = (fp[5] != 0.0 or fp[4] != 0.0) and not q[i] > 0.0
        lost = 6 if silent else 10
        for b in range(width):
            X[i, b] = 0.0
        X[i, 0] = w[i]
        X[i, 2] = _SILENT if silent else q[i]
        if not fixed_state(jets, states, X[i], hp, kk, R[i], J[i], K[i], gain[i], sign_gain[i]):
            return lost
        J[i, 0] = 0.0
        K[i, 0] = 0.0
        for a in range(states):
            if fp[7 + a] != 0.0 or (silent and fp[12 + states + a] != 0.0):
                for b in range(width):
                    J[i, (1 + a) * width + b] = 0.0
                    for e in range(width):
                        K[i, ((1 + a) * width + b) * width + e] = 0.0
                for out in range(1 + states):
                    J[i, out * width + 3 + a] = 0.0
                    for b in range(width):
                        K[i, (out * width + 3 + a) * width + b] = 0.0
                        K[i, (out * width + b) * width + 3 + a] = 0.0
                J[i, (1 + a) * width + 3 + a] = -1.0
        for b in range((1 + states) * width):
            if not abs(J[i, b]) < _INFINITE:
                return lost
    return 0


@inner
def second_derivative(fns, w, c, d, nz, fp, H, dq, J, K, W, out):
    """F2[W] for a symmetric W on the full state."""
    third_trace, noise_ddq = fns[2], fns[7]
    dim = w.shape[0]
    states = np.int64(fp[2])
    width = 3 + states
    top = W
    if states > 0:
        top = np.empty((dim, dim))
        for i in range(dim):
            for j in range(dim):
                top[i, j] = W[i, j]
    room = np.zeros((2, dim))
    bend, curve = room[0], room[1]
    third_trace(w, top, c, d, bend)
    if fp[3] != 0.0:
        unit = np.zeros(dim)
        part = np.empty(dim)
        for j in range(dim):
            unit[j] = 1.0
            noise_ddq(w, unit, top[j], c, d, nz, part)
            unit[j] = 0.0
            for i in range(dim):
                curve[i] += part[i]
    for i in range(dim):
        curved = False
        for a in range(1 + states):
            out[a * dim + i] = J[i, a * width + 1] * bend[i] + J[i, a * width + 2] * curve[i]
            for p in range(width * width):
                curved = curved or K[i, a * width * width + p] != 0.0
        if curved:
            add_curvature(i, H, dq, K, W, out)


@inner
def add_curvature(i, H, dq, K, W, out):
    """Add to out what the second derivatives K of coordinate i make of the covariance of its inputs under W."""
    dim = H.shape[0]
    size = W.shape[0]
    states = size // dim - 1
    width = 3 + states
    inputs = np.zeros((width, size))
    half = np.empty((width, size))
    inputs[0, i] = 1.0
    for j in range(dim):
        inputs[1, j] = H[i, j]
        inputs[2, j] = dq[i, j]
    for b in range(states):
        inputs[3 + b, (1 + b) * dim + i] = 1.0
    multiply(inputs, W, half)
    for p in range(width):
        for r in range(width):
            used = False
            for a in range(1 + states):
                used = used or K[i, (a * width + p) * width + r] != 0.0
            if used:
                covariance = 0.0
                for j in range(size):
                    covariance += half[p, j] * inputs[r, j]
                for a in range(1 + states):
                    out[a * dim + i] += K[i, (a * width + p) * width + r] * covariance


@inner
def normal_step(hessian, w, c, d, fp, values, vectors, H):
    """Eigen-decomposition of the Hessian at w; code 3 if its rank is not that of M."""
    dim = w.shape[0]
    hessian(w, c, d, H)
    work = H.copy()
    symmetric_eigen(work, values, vectors)
    for a in range(dim):
        if not abs(values[a]) < np.inf:
            return 2
    tangent = np.int64(fp[0])
    # the eigenvalues nearest zero belong to the tangent space: move them to the front
    for a in range(tangent):
        best = a
        for b in range(a + 1, dim):
            if abs(values[b]) < abs(values[best]):
                best = b
        if best != a:
            x = values[a]
            values[a] = values[best]
            values[best] = x
            for i in range(dim):
                x = vectors[i, a]
                vectors[i, a] = vectors[i, best]
                vectors[i, best] = x
    return rank(values, fp)


@inner
def rank(values, fp):
    """0 where eigenvalues of a Hessian, the tangent ones first, have the rank that M has; else a status code."""
    largest = 0.0
    for a in range(values.shape[0]):
        largest = max(largest, abs(values[a]))
    for a in range(np.int64(fp[0]), values.shape[0]):
        if values[a] < -fp[1] * largest:
            return 5
        if values[a] <= fp[1] * largest:
            return 3
    return 0


@jit
def linear_part(fns, w, k, hp, c, d, nz, fp, X, gain, gap):
    """States X[:, 3:] that the averaged rule leaves in place, gains and gap = I - dF/dz at w; a status code."""
    hessian = fns[1]
    dim = w.shape[0]
    width = X.shape[1]
    H = np.empty((dim, dim))
    dq = np.empty((dim, dim))
    q = np.empty(dim)
    J = np.empty((dim, (width - 2) * width))
    K = np.empty((dim, (width - 2) * width * width))
    R = np.empty((dim, width - 2))
    sign_gain = np.zeros((dim, width - 2))
    hessian(w, c, d, H)
    noise_slopes(fns, w, c, d, nz, fp, q, dq)
    code = expand(fns, w, k, hp, c, d, nz, fp, q, X, R, J, K, gain, sign_gain)
    if code == 0:
        assemble(H, dq, J, gap)
    return code


@inner
def assemble(H, dq, J, gap):
    """gap = I - dF/dz from the slopes J of the rule's displacement and the derivatives H, dq of its inputs g, q."""
    dim = H.shape[0]
    size = gap.shape[0]
    states = size // dim - 1
    width = 3 + states
    for a in range(1 + states):
        for i in range(dim):
            row = gap[a * dim + i]
            for j in range(size):
                row[j] = 0.0
            for j in range(dim):
                row[j] = -(J[i, a * width + 1] * H[i, j] + J[i, a * width + 2] * dq[i, j])
            row[i] -= J[i, a * width]
            for b in range(states):
                row[(1 + b) * dim + i] -= J[i, a * width + 3 + b]


@inner
def analyse(fns, w, k, hp, c, d, nz, fp, q, S, H, dq, J, K, weak, gain, gap, Q, X, extra):
    """The averaged map at a point of M with the Hessian H: its slopes and curvatures J, K, weak force, gap = I - dF/dz
    and Q.

    q is what accumulators see by coordinate, S and dq the covariance of the noise and the slopes of its diagonal;
    X the inputs of the rule by coordinate, with the states that it leaves in place."""
    dim = w.shape[0]
    states = np.int64(fp[2])
    R = np.empty((dim, 1 + states))
    sign_gain = np.zeros((dim, 1 + states))
    code = expand(fns, w, k, hp, c, d, nz, fp, q, X, R, J, K, gain, sign_gain)
    if code != 0:
        return code
    assemble(H, dq, J, gap)
    for i in range(dim):
        weak[i] = R[i, 0]
    noise_covariance(S, gain, sign_gain, fp[4] != 0.0, fp[7 + states], Q)
    for i in range(dim):
        for j in range(dim):
            extra[i, j] = 0.0
    if fp[12 + 2 * states] != 0.0 and not add_bends(fns, S, X, hp, k, fp[8 + states], fp[9 + states], gap, Q):
        return 19
    if fp[10 + states] >= 0.0:
        if fp[4] != 0.0:
            add_remembered(S, sign_gain, fp[8 + states], fp[9 + states], gap, Q)
        if fp[3] != 0.0:
            lean(S, gain, fp, gap, extra)
    return 0
