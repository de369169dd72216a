"""The averaged map near its fixed points: A, B, the noise it feels, and its second derivatives.

The state is ordered `z = (theta, first aux, second aux, ...)`. Output `a` of coordinate `i` depends on
the inputs `x = (theta_i, g_i, q_i, states_i)`, with `g` the gradient and `q` the diagonal of the noise
covariance, both functions of theta. So everything about the map's linearization follows from a few
numbers per coordinate: values `R`, slopes `J`, second derivatives `K` of the averaged rule.
"""

from __future__ import annotations

import sympy as sp

from minidyn.derivatives import reverse
from minidyn.graph import Graph, Node
from minidyn.kernels import Emitter, Source, store
from minidyn.maps import Map
from minidyn.rules import averaged

# mypy: disable-error-code="name-defined, no-untyped-def, no-untyped-call"
# ruff: noqa: F821


def add_averaged_map(src: Source, system: Map, accumulators: str) -> None:
    """Add `jets`, the loss's derivatives, the noise covariance and `expand` to a module."""
    rule = averaged(system.rule, accumulators)
    names = "value grad hessian hvp third third_trace sample_grad"
    if system.loss.model is not None:
        names += " model_grad"
    src.line(f"from {system.loss.kernels.__name__} import {', '.join(names.split())}")
    src.line("from minidyn.kernels.linalg import *")
    states = len(system.rule.states)
    frozen = [int(accumulators == "frozen" and a) for a in rule.accumulators]
    varies = not _constant_diagonal(system)
    src.line(
        f"D = {system.dim}\nSTATES = {states}\nFROZEN = np.array({frozen or [0]})\nVARIES = {varies}\n"
        f"SIGNS = {rule.sign_gain is not None}\nADAPTIVE = {any(rule.accumulators)}"
    )
    system.bound.add_covariance(src)
    _add_jets(src, rule, states)
    src.quote(noise_slopes, fixed_state, expand, correlated_sign_noise, noise_covariance, inner=True)


def _constant_diagonal(system: Map) -> bool:
    noise = system.bound.noise
    if noise.batch is not None or noise.label_std is not None:
        return False
    return not any(isinstance(v, sp.Expr) and not v.is_number for v in _entries(noise.sigma))


def _entries(sigma: object) -> list[object]:
    import numpy as np

    return list(np.asarray(sigma, dtype=object).flat)


def _add_jets(src: Source, rule, states: int) -> None:
    """`jets(x, hp, kk, R, J, K, gain, sign_gain)` for one coordinate."""
    g = Graph()
    outputs = rule.nodes(g, rule.outputs)
    width = 3 + states
    stores = []

    def slopes(node: Node) -> dict[int, Node]:
        return {e.data[1]: d for e, d in reverse(node, "x")}

    for a, node in enumerate(outputs):
        stores.append(store(g, node, "R", a))
        first = slopes(node)
        for p in range(width):
            d = first.get(p, g.const(0.0))
            stores.append(store(g, d, "J", a * width + p))
            second = slopes(d)
            for r in range(width):
                stores.append(store(g, second.get(r, g.const(0.0)), "K", (a * width + p) * width + r))
    for a, node in enumerate(rule.nodes(g, rule.gain)):
        stores.append(store(g, node, "gain", a))
    for a, node in enumerate(rule.nodes(g, rule.sign_gain) if rule.sign_gain else []):
        stores.append(store(g, node, "sign_gain", a))
    src.add("jets", "x, hp, kk, R, J, K, gain, sign_gain", Emitter(stores).lines(), "averaged rule, one coordinate", inner=True)


# -- quoted into modules ----------------------------------------------------------------------------


def noise_slopes(w, c, d, nz, q, dq):
    """q = diag Sigma and its derivative dq[i, j] = d q_i / d theta_j."""
    noise_q(w, c, d, nz, q)
    if VARIES:
        unit = np.zeros(D)
        column = np.empty(D)
        for j in range(D):
            unit[j] = 1.0
            noise_dq(w, unit, c, d, nz, column)
            unit[j] = 0.0
            for i in range(D):
                dq[i, j] = column[i]
    else:
        for i in range(D):
            for j in range(D):
                dq[i, j] = 0.0


def fixed_state(x, hp, kk, R, J, K, gain, sign_gain):
    """Newton's method for the states that the averaged rule leaves in place; False if it fails."""
    width = 3 + STATES
    block = np.empty((STATES, STATES))
    step = np.empty((STATES, 1))
    for _ in range(50):
        jets(x, hp, kk, R, J, K, gain, sign_gain)
        largest = 0.0
        for a in range(STATES):
            step[a, 0] = R[1 + a] - x[3 + a]
            for b in range(STATES):
                block[a, b] = (1.0 if a == b else 0.0) - J[(1 + a) * width + 3 + b]
        if not solve(block, step):
            return False
        for a in range(STATES):
            if not abs(step[a, 0]) < np.inf:
                return False
            largest = max(largest, abs(step[a, 0]) / (1e-300 + abs(x[3 + a]) + abs(step[a, 0])))
            x[3 + a] += step[a, 0]
        if largest < 1e-15:
            jets(x, hp, kk, R, J, K, gain, sign_gain)
            return True
        if largest == 1.0 and STATES == 0:
            return True
    jets(x, hp, kk, R, J, K, gain, sign_gain)
    return largest < 1e-10


def expand(w, k, hp, c, d, nz, q, X, R, J, K, gain, sign_gain):
    """Fixed state and jets of every coordinate at a point of M; a status code, 0 if all is well.

    Also takes out the weak force `p = R_theta(g=0) - theta` (theory 2.2c): it is returned in R[:, 0].
    """
    width = 3 + STATES
    kk = np.empty(1)
    kk[0] = k
    for i in range(D):
        if (ADAPTIVE or SIGNS) and not q[i] > 0.0:
            return 6
        for b in range(width):
            X[i, b] = 0.0
        X[i, 0] = w[i]
        X[i, 2] = q[i]
        if not fixed_state(X[i], hp, kk, R[i], J[i], K[i], gain[i], sign_gain[i]):
            return 6
        R[i, 0] -= w[i]
        J[i, 0] = 1.0
        K[i, 0] = 0.0
        for a in range(STATES):
            if FROZEN[a]:
                for b in range(width):
                    J[i, (1 + a) * width + b] = 0.0
                    for e in range(width):
                        K[i, ((1 + a) * width + b) * width + e] = 0.0
                for out in range(1 + STATES):
                    J[i, out * width + 3 + a] = 0.0
                    for b in range(width):
                        K[i, (out * width + 3 + a) * width + b] = 0.0
                        K[i, (out * width + b) * width + 3 + a] = 0.0
        for b in range((1 + STATES) * width):
            if not abs(J[i, b]) < np.inf:
                return 6
    return 0


def correlated_sign_noise(S, i, j):
    """Covariances (xi_i, sign xi_j) and (sign xi_i, sign xi_j) of Gaussian noise."""
    si = np.sqrt(S[i, i])
    sj = np.sqrt(S[j, j])
    rho = min(1.0, max(-1.0, S[i, j] / (si * sj)))
    return np.sqrt(2.0 / np.pi) * S[i, j] / sj, 2.0 / np.pi * np.arcsin(rho)


def noise_covariance(S, gain, sign_gain, Q):
    """Q = B Sigma B^T, one number per pair of state components."""
    for a in range(1 + STATES):
        for b in range(1 + STATES):
            for i in range(D):
                for j in range(D):
                    total = gain[i, a] * gain[j, b] * S[i, j]
                    if SIGNS:
                        cross, both = correlated_sign_noise(S, i, j)
                        back, _ = correlated_sign_noise(S, j, i)
                        total += (
                            gain[i, a] * sign_gain[j, b] * cross
                            + sign_gain[i, a] * gain[j, b] * back
                            + sign_gain[i, a] * sign_gain[j, b] * both
                        )
                    Q[a * D + i, b * D + j] = total
