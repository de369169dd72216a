"""The averaged map near its fixed points: A, B, the noise it feels, and its second derivatives.

The state is ordered `z = (theta, first aux, second aux, ...)`. Output `a` of coordinate `i` depends on
the inputs `x = (theta_i, g_i, q_i, states_i)`, with `g` the gradient and `q` the diagonal of the noise
covariance, both functions of theta. So everything about the map's linearization follows from a few
numbers per coordinate: values `R`, slopes `J`, second derivatives `K` of the averaged rule.
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from minidyn.derivatives import reverse
from minidyn.graph import Graph, Node
from minidyn.kernels import Emitter, Source, store
from minidyn.maps import Map
from minidyn.rules import AveragedRule, averaged

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
    curved = _add_jets(src, rule, states)
    if states:
        src.quote(fixed_state, inner=True)
    else:
        src.quote(no_state, inner=True, name="fixed_state")
    if rule.sign_gain is not None:
        src.quote(correlated_sign_noise, noise_covariance, inner=True)
    else:
        src.quote(linear_noise_covariance, inner=True, name="noise_covariance")
    src.quote(noise_slopes, expand, inner=True)
    if curved:
        src.quote(second_derivative, inner=True)
    else:
        src.quote(linear_second_derivative, inner=True, name="second_derivative")


def _constant_diagonal(system: Map) -> bool:
    noise = system.bound.noise
    if noise.batch is not None or noise.label_std is not None:
        return False
    return not any(isinstance(v, sp.Expr) and not v.is_number for v in _entries(noise.sigma))


def _entries(sigma: object) -> list[object]:
    return list(np.asarray(sigma, dtype=object).flat)


def _add_jets(src: Source, rule: AveragedRule, states: int) -> bool:
    """`jets(x, hp, kk, R, J, K, gain, sign_gain)` for one coordinate; whether the rule is not linear."""
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
    curved = any(n.data[0] == "K" and not (n.args[0].is_const and n.args[0].data == 0.0) for n in stores)
    src.add("jets", "x, hp, kk, R, J, K, gain, sign_gain", Emitter(stores).lines(), "averaged rule, one coordinate", inner=True)
    return curved


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


def no_state(x, hp, kk, R, J, K, gain, sign_gain):
    """A rule without states: its jets, as they are."""
    jets(x, hp, kk, R, J, K, gain, sign_gain)
    return True


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


def linear_noise_covariance(S, gain, sign_gain, Q):
    """Q = B Sigma B^T for a rule that is smooth in the gradient."""
    for a in range(1 + STATES):
        for b in range(1 + STATES):
            for i in range(D):
                for j in range(D):
                    Q[a * D + i, b * D + j] = gain[i, a] * gain[j, b] * S[i, j]


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


def linear_second_derivative(w, c, d, nz, H, dq, J, K, W, out):
    """F2[W] where the rule is linear in its inputs: curvature comes from the gradient alone."""
    width = 3 + STATES
    top = np.empty((D, D))
    for i in range(D):
        for j in range(D):
            top[i, j] = W[i, j]
    bend = np.empty(D)
    third_trace(w, top, c, d, bend)
    for i in range(D):
        for a in range(1 + STATES):
            out[a * D + i] = J[i, a * width + 1] * bend[i]


def second_derivative(w, c, d, nz, H, dq, J, K, W, out):
    """F2[W] for a symmetric W on the full state."""
    width = 3 + STATES
    top = np.empty((D, D))
    for i in range(D):
        for j in range(D):
            top[i, j] = W[i, j]
    bend = np.empty(D)
    third_trace(w, top, c, d, bend)
    curve = np.zeros(D)
    if VARIES:
        unit = np.zeros(D)
        part = np.empty(D)
        for j in range(D):
            unit[j] = 1.0
            noise_ddq(w, unit, top[j], c, d, nz, part)
            unit[j] = 0.0
            for i in range(D):
                curve[i] += part[i]
    inputs = np.zeros((width, (1 + STATES) * D))
    half = np.empty((width, (1 + STATES) * D))
    for i in range(D):
        for p in range(width):
            for j in range((1 + STATES) * D):
                inputs[p, j] = 0.0
        inputs[0, i] = 1.0
        for j in range(D):
            inputs[1, j] = H[i, j]
            inputs[2, j] = dq[i, j]
        for b in range(STATES):
            inputs[3 + b, (1 + b) * D + i] = 1.0
        multiply(inputs, W, half)
        for a in range(1 + STATES):
            out[a * D + i] = J[i, a * width + 1] * bend[i] + J[i, a * width + 2] * curve[i]
        for p in range(width):
            for r in range(width):
                used = False
                for a in range(1 + STATES):
                    used = used or K[i, (a * width + p) * width + r] != 0.0
                if used:
                    covariance = 0.0
                    for j in range((1 + STATES) * D):
                        covariance += half[p, j] * inputs[r, j]
                    for a in range(1 + STATES):
                        out[a * D + i] += K[i, (a * width + p) * width + r] * covariance
