"""First and second moments of a noisy map near a minimum, step by step: what the quasistatic flow must equal.

With `z = z* + e`, `g` the gradient of one draw and `W = E e e^T`, to second order in e

    E z' = F(z*) + A E e + F2[W]/2         W' = A W A^T + B S(W) B^T         S(W) = Cov g, draw by draw, at the moment W

iterated until the mean moves by the same amount in each step. No projector, no Lyapunov equation, no gradient flow.
Every draw of a batch is written out; labels and normals enter by their first two moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import sympy as sp

THETA, G, Q, LR = sp.symbols("theta g q lr")


@dataclass
class Model:
    """Squared loss `mean s_i |f_i - y_i|^2 / 2` with `f_i - y_i` given by sample, for several outputs as a list, and
    shares s_i of the samples; or plain sample losses."""

    params: list[sp.Symbol]
    residuals: list[Any] | None = None
    losses: list[sp.Expr] | None = None
    shares: Any = None

    @property
    def samples(self) -> list[sp.Expr]:
        if self.losses is not None:
            return self.losses
        return [s * sum(r**2 for r in rs) / 2 for s, rs in zip(self.share, self.outputs, strict=True)]

    @property
    def share(self) -> list[float]:
        return [1] * len(self.residuals) if self.shares is None else self.shares

    @property
    def outputs(self) -> list[list[sp.Expr]]:
        return [r if isinstance(r, list) else [r] for r in self.residuals]


@cache
def _tower(e: sp.Expr, *x: sp.Symbol) -> list[Any]:
    """Gradient, Hessian, third derivatives as functions."""
    g = [sp.diff(e, a) for a in x]
    h = [[sp.diff(a, b) for b in x] for a in g]
    t = [[[sp.diff(a, b) for b in x] for a in row] for row in h]
    return [sp.lambdify(x, v) for v in (g, h, t)]


def _derivatives(e: sp.Expr, x: list[sp.Symbol], w) -> tuple[np.ndarray, ...]:
    """Gradient, Hessian, third derivatives at w."""
    return tuple(np.array(f(*w), float) for f in _tower(e, *x))


@cache
def _jets(rule: Any, states: int) -> tuple[list[bool], Any, Any, Any, Any]:
    """The rule of one coordinate, averaged over noise of variance q in what is quadratic in g: which states are
    squares; its value, its first and second derivatives, and how it answers to the noise, as functions."""
    m = sp.symbols(f"m0:{states}")
    out = [sp.sympify(e) for e in rule(LR)(THETA, G, *m)]
    inputs = [THETA, G, Q, *m]
    squares = [sp.diff(e, G, 2) for e in out[1:]]
    updates = [e + Q * s / 2 for e, s in zip(out[1:], squares, strict=True)]
    back = {e: sp.Symbol(f"new{a}") for a, e in enumerate(out[1:]) if squares[a] != 0}
    final = {v: updates[out[1:].index(k)] for k, v in back.items()}
    first = out[0].xreplace(back)
    gains = [sp.diff(first, G).xreplace(final)]
    gains += [sp.S.Zero if squares[a] != 0 else sp.diff(e, G) for a, e in enumerate(out[1:])]
    f = [first.xreplace(final), *updates]
    slope = [[sp.diff(e, a) for a in inputs] for e in f]
    curve = [[[sp.diff(e, b) for b in inputs] for e in row] for row in slope]
    return [s != 0 for s in squares], *(sp.lambdify([LR, *inputs], e) for e in (f, slope, curve, gains))


class Moments:
    """The moments of one map: `rule(lr)(theta, g, *states)` returns `(theta', *states')` in sympy.

    batch : samples per step, without replacement (`replace`: with).  label : standard deviation of a target.
    sigma : (D, r) sympy matrix, Gaussian noise.
    """

    def __init__(self, model: Model, rule: Any, lr: float, states: int, w, *, batch: int | None = None,
                 replace: bool = False, label: float = 0.0, sigma: sp.Matrix | None = None):  # fmt: skip
        x, n = model.params, len(model.samples)
        self.dim, self.states, self.w = len(x), states, np.asarray(w, float)
        self.losses = [_derivatives(e, x, w) for e in model.samples]
        self.models = (
            [[_derivatives(s * e, x, w) for e in es] for s, es in zip(model.share, model.outputs, strict=True)]
            if label
            else []
        )
        sigma = sp.Matrix(sigma) if sigma is not None else sp.zeros(self.dim, 0)
        self.sigma = [[(float(e.subs(dict(zip(x, w, strict=True)))), *_derivatives(e, x, w)[:2])
                       for e in sigma.row(i)] for i in range(self.dim)] if sigma.cols else None  # fmt: skip
        size = batch or n
        self.batches = (
            list(combinations(range(n), size))
            if not replace
            else [tuple(np.unravel_index(k, (n,) * size)) for k in range(n**size)]
        )
        self.label, self.lr = label, lr
        self.squares, self.value, self.slope, self.curve, self.gain = _jets(rule, states)

    def noise(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Covariance (D, D) of a draw's gradient where theta has the second moment W; its slope at the minimum."""
        D = self.dim
        S, slope = np.zeros((D, D)), np.zeros((D, D, D))
        mean = np.mean([g for g, _, _ in self.losses], axis=0)
        H = np.mean([h for _, h, _ in self.losses], axis=0)
        T = np.mean([t for _, _, t in self.losses], axis=0)

        def add(share: float, g, h, t) -> None:
            bent = np.einsum("ijk,jk->i", t, W)
            S[...] += share * (np.outer(g, g) + h @ W @ h.T + (np.outer(bent, g) + np.outer(g, bent)) / 2)
            slope[...] += share * (np.einsum("ik,j->ijk", h, g) + np.einsum("i,jk->ijk", g, h))

        for batch in self.batches:
            add(1 / len(self.batches), *(np.mean([self.losses[i][q] for i in batch], axis=0) for q in range(3)))
            for i in batch if self.label else ():  # every label of every output its own normal
                for output in self.models[i]:
                    add((self.label / len(batch)) ** 2 / len(self.batches), *output)
        add(-1.0, mean, H, T)
        for r in range(len(self.sigma[0]) if self.sigma else 0):
            s = [self.sigma[i][r] for i in range(D)]
            f, df, ddf = (np.array([e[q] for e in s]) for q in range(3))
            bent = np.einsum("ijk,jk->i", ddf, W)
            S += np.outer(f, f) + df @ W @ df.T + (np.outer(bent, f) + np.outer(f, bent)) / 2
            slope += np.einsum("ik,j->ijk", df, f) + np.einsum("i,jk->ijk", f, df)
        return S, np.einsum("iik->ik", slope)

    def run(self, steps: int = 20_000, *, frozen: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Move of the mean of theta in the last step (D,), and W of the whole state, once the move repeats."""
        D, p = self.dim, 1 + self.states
        Z = p * D
        H = np.mean([h for _, h, _ in self.losses], axis=0)
        T = np.mean([t for _, _, t in self.losses], axis=0)
        W, mean, move = np.zeros((Z, Z)), np.zeros(Z), np.zeros(Z)
        quiet, dq = self.noise(np.zeros((D, D)))  # the covariance is linear in W beside this, its slope knows no W
        hears = np.array([[self.noise(np.outer(u, v))[0] - quiet for v in np.eye(D)] for u in np.eye(D)])
        A, B, bend = np.zeros((Z, Z)), np.zeros((Z, D)), np.zeros(Z)
        before, jets = {}, {}
        states = np.zeros((self.states, D))
        seen = move
        for k in range(steps):
            S = quiet + np.einsum("kl,klij->ij", W[:D, :D], hears)
            ddq = np.diag(S)
            heard = np.einsum("ij,jk,ik->i", H, W[:D, :D], H)
            if k == 0:
                states[:, :] = np.array([ddq if s else 0 * ddq for s in self.squares]).reshape(self.states, D)
            for i in range(D):
                x = [self.lr, self.w[i], 0.0, ddq[i] + heard[i] if any(self.squares) else 0.0, *states[:, i]]
                if before.get(i) != x:
                    jets[i] = [np.array(f(*x), float) for f in (self.slope, self.curve, self.gain)]
                before[i], (J, K, b) = x, jets[i]
                rows = np.zeros((3 + self.states, Z))
                rows[0, i] = 1.0
                rows[1, :D], rows[2, :D] = H[i], dq[i]
                for a in range(self.states):
                    rows[3 + a, (1 + a) * D + i] = 1.0
                if frozen:
                    rows[3:][self.squares] = 0.0
                    rows[2] = 0.0
                A[i::D] = J @ rows
                B[i::D, i] = b
                bend[i::D] = np.einsum("apr,pr->a", K, rows @ W @ rows.T) + J[:, 1] * np.sum(T[i] * W[:D, :D])
                for a, s in enumerate(self.squares):
                    if s:  # the accumulator is where it is on average, not beside it
                        states[a, i] = self.value(*x)[1 + a]
                        bend[(1 + a) * D + i] = 0.0
            new = A @ mean + bend / 2
            move, mean = new - mean, new
            W = A @ W @ A.T + B @ S @ B.T
            if k % 50 == 0:
                if k and np.abs(move - seen)[:D].max() <= 1e-10 * np.abs(move[:D]).max():
                    break
                seen = move
        self.steps = k + 1
        return move[:D], W


def sgd(lr):
    return lambda theta, g: (theta - lr * g,)


def heavy_ball(lr, beta):
    return lambda theta, g, m: (theta - lr * (beta * m + g), beta * m + g)


def nesterov(lr, beta):
    return lambda theta, g, m: (theta - lr * (g + beta * (beta * m + g)), beta * m + g)


def rmsprop(lr, beta2, eps):
    def step(theta, g, v):
        v = beta2 * v + (1 - beta2) * g**2
        return theta - lr * g / (sp.sqrt(v) + eps), v

    return step


def adam(lr, beta1, beta2, eps):
    def step(theta, g, m, v):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        return theta - lr * m / (sp.sqrt(v) + eps), m, v

    return step
