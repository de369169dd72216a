"""Losses with closed-form answers, as sympy expressions and numpy callables, and those answers as numbers.

Drifts and covariances are **per unit of flow time** `t = η k`; multiply by η for one step of the map.
`P_T`, `P_N` project on the kernel and the range of the Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import sympy as sp


@dataclass(frozen=True)
class Problem:
    """A loss, its parameters, a point of its minima manifold, and callables that take (…, D) arrays.

    `model` is f where the loss is ½ (f − target)² of one datum without inputs; label noise of deviation s
    then has the covariance Σ = s² ∇f ∇fᵀ, which is s² H on the manifold.
    """

    name: str
    expr: sp.Expr
    params: tuple[sp.Symbol, ...]
    on_manifold: tuple[float, ...]
    dim: int  # dimension of the minima manifold
    model: sp.Expr | None = None
    target: float | None = None
    notes: str = field(default="", compare=False)

    def _compile(self, table) -> Callable[[np.ndarray], np.ndarray]:
        """A numpy function of (…, D) whose values have the shape of the nested list `table` appended."""
        table = np.array(table, dtype=object)
        f = sp.lambdify([self.params], list(table.ravel()), modules=["scipy", "numpy"], cse=True)

        def values(w):
            w = np.asarray(w, float)
            entries = f(np.moveaxis(w, -1, 0))
            out = np.stack([np.broadcast_to(np.asarray(e, float), w.shape[:-1]) for e in entries], axis=-1)
            return out.reshape(w.shape[:-1] + table.shape)

        return values

    @cached_property
    def loss(self) -> Callable:
        """L, shape (…,)."""
        f = self._compile([self.expr])
        return lambda w: f(w)[..., 0]

    @cached_property
    def grad(self) -> Callable:
        """∇L, shape (…, D)."""
        return self._compile([sp.diff(self.expr, p) for p in self.params])

    @cached_property
    def hessian(self) -> Callable:
        """∇²L, shape (…, D, D)."""
        return self._compile([[sp.diff(self.expr, p, q) for q in self.params] for p in self.params])

    @cached_property
    def third(self) -> Callable:
        """∇³L, shape (…, D, D, D)."""
        P = self.params
        return self._compile([[[sp.diff(self.expr, p, q, r) for r in P] for q in P] for p in P])

    @cached_property
    def model_grad(self) -> Callable:
        """∇f, shape (…, D)."""
        return self._compile([sp.diff(self.model, p) for p in self.params])

    def label_sigma(self, std: float) -> sp.ImmutableMatrix:
        """Σ = s² ∇f ∇fᵀ of label noise on the one datum."""
        J = sp.Matrix([[sp.diff(self.model, p)] for p in self.params])
        return sp.ImmutableMatrix(std**2 * J * J.T)

    def isotropic_sigma(self, std: float) -> sp.ImmutableMatrix:
        """Σ = σ² I."""
        return sp.ImmutableMatrix(std**2 * sp.eye(len(self.params)))


# ----------------------------------------------------------------------------------------------------
# The losses
# ----------------------------------------------------------------------------------------------------

x, y = sp.symbols("x y", real=True)
a, b, c, d = sp.symbols("a b c d", real=True)


def valley(h: sp.Expr = 1 + x**2, at: float = 1.3) -> Problem:
    """½ h(x) y², h > 0: M = {y = 0}."""
    return Problem("valley", h * y**2 / 2, (x, y), (at, 0.0), 1)


def circle(angle: float = 0.4) -> Problem:
    """¼ (x² + y² − 1)²: M is the unit circle, sharpness 2 everywhere."""
    at = (float(np.cos(angle)), float(np.sin(angle)))
    return Problem("circle", (x**2 + y**2 - 1) ** 2 / 4, (x, y), at, 1)


def product(at: float = 2.0) -> Problem:
    """½ (ab − 1)²: M = {ab = 1}, tr H = a² + b², flattest at a = b = ±1."""
    return Problem("product", (a * b - 1) ** 2 / 2, (a, b), (at, 1 / at), 1, model=a * b, target=1.0)


def two_products() -> Problem:
    """½ (ab + 2cd − 1)²: M is a 3-dimensional quadric, nowhere singular; the origin is a saddle off M."""
    f = a * b + 2 * c * d
    at = (2.0, 0.3, 0.8, 0.25)
    return Problem("two_products", (f - 1) ** 2 / 2, (a, b, c, d), at, 3, model=f, target=1.0)


def ellipse(angle: float = 0.7) -> Problem:
    """½ (1 + x/3) (x²/4 + y² − 1)²: M is an ellipse whose shape and curvature both vary along it."""
    at = (2 * float(np.cos(angle)), float(np.sin(angle)))
    return Problem("ellipse", (1 + x / 3) * (x**2 / 4 + y**2 - 1) ** 2 / 2, (x, y), at, 1)


def curved_valley(at: float = 0.5) -> Problem:
    """½ (2 + cos x) (y − sin x)²: M = {y = sin x}."""
    expr = (2 + sp.cos(x)) * (y - sp.sin(x)) ** 2 / 2
    return Problem("curved_valley", expr, (x, y), (at, float(np.sin(at))), 1)


PLANAR: tuple[Callable[[], Problem], ...] = (valley, circle, product, ellipse, curved_valley)
SMALL: tuple[Callable[[], Problem], ...] = (*PLANAR, two_products)


class TanhNet:
    """L = (1/n) Σ_i ½ (f(x_i) − y_i)², f(x) = Σ_j a_j tanh(w_j x + b_j): 10 units, 30 parameters, n = 8 data.

    θ = (a_0 … a_9, w_0 … w_9, b_0 … b_9). Labels come from the point `on_manifold`, so the minimum is 0
    and the manifold has dimension 30 − 8 = 22. `expr` is one sample's loss in the symbols `params`, `X`, `Y`;
    `data` maps X and Y to arrays; `model` is f. Callables are written by hand and take one w of shape (30,).
    """

    units = 10
    dim = 22

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        m = self.units
        self.inputs = np.linspace(-2.0, 2.0, 8)
        self.on_manifold = np.concatenate([rng.normal(0, scale, m) for scale in (0.7, 1.2, 1.0)])
        self.labels = self.output(self.on_manifold)
        A, W, B = (sp.symbols(f"{s}0:{m}", real=True) for s in "awb")
        self.params = (*A, *W, *B)
        self.X, self.Y = sp.symbols("X Y", real=True)
        self.model = sum(A[j] * sp.tanh(W[j] * self.X + B[j]) for j in range(m))
        self.expr = (self.model - self.Y) ** 2 / 2
        self.data = {self.X: self.inputs, self.Y: self.labels}

    def _split(self, w):
        return np.split(np.asarray(w, float), 3)

    def output(self, w, inputs=None) -> np.ndarray:
        """f at every input, shape (n,)."""
        A, W, B = self._split(w)
        X = self.inputs if inputs is None else np.asarray(inputs, float)
        return np.tanh(np.outer(X, W) + B) @ A

    def loss(self, w) -> float:
        return float(np.mean((self.output(w) - self.labels) ** 2) / 2)

    def model_grad(self, w) -> np.ndarray:
        """∂f(x_i)/∂θ, shape (n, 30)."""
        A, W, B = self._split(w)
        T = np.tanh(np.outer(self.inputs, W) + B)
        first = A * (1 - T**2)
        return np.concatenate([T, first * self.inputs[:, None], first], axis=1)

    def model_hessian(self, w) -> np.ndarray:
        """∂²f(x_i)/∂θ∂θ, shape (n, 30, 30): only parameters of one unit meet."""
        A, W, B = self._split(w)
        m, X = self.units, self.inputs[:, None]
        T = np.tanh(np.outer(self.inputs, W) + B)
        first, second = 1 - T**2, -2 * T * (1 - T**2)
        out = np.zeros((len(self.inputs), 3 * m, 3 * m))
        ia, iw, ib = np.arange(m), m + np.arange(m), 2 * m + np.arange(m)
        for p, q, value in (
            (ia, iw, first * X),
            (ia, ib, first),
            (iw, iw, A * second * X**2),
            (iw, ib, A * second * X),
            (ib, ib, A * second),
        ):
            out[:, p, q] = value
            out[:, q, p] = value
        return out

    def sample_grads(self, w) -> np.ndarray:
        """∇ of each sample's loss, shape (n, 30)."""
        return (self.output(w) - self.labels)[:, None] * self.model_grad(w)

    def grad(self, w) -> np.ndarray:
        return self.sample_grads(w).mean(0)

    def hessian(self, w) -> np.ndarray:
        J, r = self.model_grad(w), self.output(w) - self.labels
        return (J.T @ J + np.einsum("i,ijk->jk", r, self.model_hessian(w))) / len(r)

    def grad_trace(self, w) -> np.ndarray:
        """∇ tr H on the manifold, (2/n) Σ_i ∇²f_i ∇f_i (residuals are zero there)."""
        return 2 * np.einsum("ijk,ik->j", self.model_hessian(w), self.model_grad(w)) / len(self.inputs)


# ----------------------------------------------------------------------------------------------------
# Closed-form answers (drift and covariance per unit of t = η k)
# ----------------------------------------------------------------------------------------------------


def tangent_projector(H: np.ndarray) -> np.ndarray:
    """P_T, on the kernel of H."""
    lam, U = np.linalg.eigh(H)
    flat = U[:, lam < 1e-7 * lam[-1]]
    return flat @ flat.T


def valley_sgd(h: sp.Expr, at: float, lr: float, std: float, finite: bool = True) -> tuple[float, float]:
    """½ h(x) y², Σ = σ² I, SGD: dx = −(σ²η/2) h'/(h (2 − η h)) dt + √η σ dW; to leading order −(η σ²/4) h'/h.

    Returns (drift of x, variance of x per unit of t).
    """
    h0, h1 = (float(e.subs(x, at)) for e in (sp.sympify(h), sp.diff(h, x)))
    two = 2 - lr * h0 if finite else 2.0
    return -0.5 * std**2 * lr * h1 / (h0 * two), lr * std**2


def valley_heavy_ball(h: sp.Expr, at: float, lr: float, std: float, beta: float) -> tuple[float, float]:
    """½ h(x) y², Σ = σ² I, heavy ball, exact in η: with Var y the stationary variance of the AR(2) process
    y'' = (1 + β − ηh) y' − β y − η ξ,  dx = −½ h' Var y/(1−β) dt + √η σ/(1−β) dW.
    """
    h0, h1 = (float(e.subs(x, at)) for e in (sp.sympify(h), sp.diff(h, x)))
    var_y = lr * std**2 * (1 + beta) / ((1 - beta) * h0 * (2 * (1 + beta) - lr * h0))
    return -0.5 * h1 * var_y / (1 - beta), lr * std**2 / (1 - beta) ** 2


def label_noise_sgd(problem, w: Sequence[float], lr: float, scale: float) -> np.ndarray:
    """−(η c/4) P_T ∇ tr H, where Σ = c H on the manifold."""
    w = np.asarray(w, float)
    H = problem.hessian(w)
    if isinstance(problem, TanhNet):
        grad_trace = problem.grad_trace(w)
    else:
        grad_trace = np.einsum("ijj->i", problem.third(w))
    return -0.25 * lr * scale * tangent_projector(H) @ grad_trace


def label_noise_heavy_ball(problem, w: Sequence[float], lr: float, scale: float, beta: float) -> np.ndarray:
    """Per step, SGD with learning rate η/(1−β), to leading order; per unit of t that is divided by η."""
    fast = lr / (1 - beta)
    return label_noise_sgd(problem, w, fast, scale) * fast / lr


def label_noise_adam_frozen(problem: Problem, w: Sequence[float], lr: float) -> np.ndarray:
    """−(η/2) Π_P P̂ ∇ tr(diag(H)^{1/2}), P̂ = diag(H)^{-1/2}, Π_P on ker H along P̂ range H. Free of c.

    Also RMSProp's. Leading order in η, with ε → 0 and 1 − β2 ≪ η λ.
    """
    w = np.asarray(w, float)
    H, T = problem.hessian(w), problem.third(w)
    root = np.sqrt(np.diag(H))
    P = np.diag(1 / root)
    gradient = 0.5 * np.einsum("jji,j->i", T, 1 / root)  # ∇ Σ_j √H_jj
    lam, U = np.linalg.eigh(H)
    N = U[:, lam > 1e-7 * lam[-1]]
    oblique = np.eye(len(w)) - P @ N @ np.linalg.solve(N.T @ P @ N, N.T)
    return -0.5 * lr * oblique @ P @ gradient


def circle_sgd(w: Sequence[float], lr: float, std: float) -> tuple[np.ndarray, np.ndarray]:
    """Σ = σ² I on the unit circle: Brownian motion, dθ = −(ησ²/2) θ dt + √η σ τ dW, τ the tangent."""
    w = np.asarray(w, float)
    tau = np.array([-w[1], w[0]])
    return -0.5 * lr * std**2 * w, lr * std**2 * np.outer(tau, tau)


def product_label_noise_path(w0: Sequence[float], t: float, lr: float, scale: float) -> np.ndarray:
    """½ (ab − 1)², label noise, SGD, leading order: a² − b² = (a0² − b0²) e^{−η c t} on ab = 1."""
    u = (w0[0] ** 2 - w0[1] ** 2) * np.exp(-lr * scale * t)
    first = np.sqrt((u + np.hypot(u, 2.0)) / 2) * np.sign(w0[0])
    return np.array([first, 1 / first])


def two_products_label_noise_decay(t: float, lr: float, scale: float) -> tuple[float, float]:
    """½ (ab + 2cd − 1)², label noise, SGD, leading order: the factors by which a² − b² and c² − d² shrink."""
    return float(np.exp(-lr * scale * t)), float(np.exp(-4 * lr * scale * t))


def codimension_one_sgd(
    h: sp.Expr,
    q: sp.Expr,
    sigma: np.ndarray,
    w: Sequence[float],
    lr: float,
) -> tuple[np.ndarray, np.ndarray]:
    """½ h(x,y) q(x,y)² in the plane, any constant Σ, SGD, exact in η. With n = ∇q/|∇q|, τ ⟂ n, λ = h |∇q|²:

    b·τ = −½ S T_nnτ − η (σ_nτ/λ) T_nττ,  b·n = −½ η σ_ττ T_nττ / λ,  S = η σ_nn / (λ (2 − η λ)),
    T_nnτ = h_τ |∇q|² + 2 h |∇q| q_nτ,  T_nττ = h |∇q| q_ττ;  covariance η σ_ττ τ τᵀ.
    """
    at = dict(zip((x, y), map(float, w), strict=True))

    def number(e):
        return float(sp.sympify(e).subs(at))

    h0, dh = number(h), np.array([number(sp.diff(h, s)) for s in (x, y)])
    dq = np.array([number(sp.diff(q, s)) for s in (x, y)])
    ddq = np.array([[number(sp.diff(q, s, r)) for r in (x, y)] for s in (x, y)])
    size = np.linalg.norm(dq)
    n = dq / size
    tau = np.array([-n[1], n[0]])
    lam = h0 * size**2
    s_nn, s_nt, s_tt = n @ sigma @ n, n @ sigma @ tau, tau @ sigma @ tau
    S = lr * s_nn / (lam * (2 - lr * lam))
    T_nnt = dh @ tau * size**2 + 2 * h0 * size * (n @ ddq @ tau)
    T_ntt = h0 * size * (tau @ ddq @ tau)
    along = -0.5 * S * T_nnt - lr * s_nt / lam * T_ntt
    across = -0.5 * lr * s_tt * T_ntt / lam
    return along * tau + across * n, lr * s_tt * np.outer(tau, tau)


# Initial value problems ----------


@dataclass(frozen=True)
class Initial:
    """`dw/dt = field(w)`, `w(0) = start`, up to time `end`; the fields are lists of sympy expressions."""

    name: str
    unknowns: list
    field: list
    start: list
    end: float


def _orbit(e: float) -> Initial:
    """Two bodies at eccentricity e (DETEST, class D)."""
    x, y, u, v = sp.symbols("x y u v", real=True)
    r = (x**2 + y**2) ** sp.Rational(3, 2)
    speed = ((1 + e) / (1 - e)) ** 0.5
    return Initial(f"orbit {e}", [x, y, u, v], [u, v, -x / r, -y / r], [1 - e, 0, 0, speed], 20.0)


def non_stiff() -> list[Initial]:
    """Problems of every class of DETEST; a clock that runs along makes A3, A5 and E3 autonomous.

    Source: Hull, Enright, Fellen, Sedgwick, *Comparing numerical methods for ODEs* (1972).
    """
    x, y, z, u = sp.symbols("x y z u", real=True)
    chain = list(sp.symbols("c0:10", real=True))
    decay = [-chain[0], *(chain[i - 1] - chain[i] for i in range(1, 9)), chain[8]]
    r = sp.sqrt(x**2 + y**2)
    return [
        Initial("A1 decay", [x], [-x], [1], 20.0),
        Initial("A2 Riccati", [x], [-(x**3) / 2], [1], 20.0),
        Initial("A3 oscillation", [x, u], [x * sp.cos(u), 1], [1, 0], 20.0),
        Initial("A4 logistic", [x], [x / 4 * (1 - x / 20)], [1], 20.0),
        Initial("A5 spiral", [x, u], [(x - u) / (x + u), 1], [4, 0], 20.0),
        Initial("B1 two species", [x, y], [2 * (x - x * y), -(y - x * y)], [1, 3], 20.0),
        Initial("B2 reactions", [x, y, z], [-x + y, x - 2 * y + z, y - z], [2, 0, 1], 20.0),
        Initial("B3 nonlinear reactions", [x, y, z], [-x, x - y**2, y**2], [1, 0, 0], 20.0),
        Initial("B4 torus", [x, y, z], [-y - x * z / r, x - y * z / r, x / r], [3, 0, 0], 20.0),
        Initial("B5 rigid body", [x, y, z], [y * z, -x * z, -0.51 * x * y], [0, 1, 1], 20.0),
        Initial("C1 decay chain", chain, decay, [1, *[0] * 9], 20.0),
        *[_orbit(e) for e in (0.1, 0.5, 0.9)],
        Initial("E2 van der Pol", [x, y], [y, (1 - x**2) * y - x], [2, 0], 20.0),
        Initial("E3 Duffing", [x, y, u], [y, x**3 / 6 - x + 2 * sp.sin(2.78535 * u), 1], [0, 0, 0], 20.0),
    ]


def stiff() -> list[Initial]:
    """Van der Pol at 1e6, Robertson's reactions, and the fall into a valley 1e8 times steeper across than along.

    Source of the first two: Hairer, Wanner, *Solving ODEs II* (1996), section IV.10.
    """
    x, y, z = sp.symbols("x y z", real=True)
    valley = 1e8 * (y - x**2) ** 2 / 2 + (x - 1) ** 2 / 2
    fast, slow, back = 3e7 * y**2, 0.04 * x, 1e4 * y * z
    return [
        Initial("van der Pol 1e6", [x, y], [y, 1e6 * ((1 - x**2) * y - x)], [2, 0], 2.0),
        Initial("Robertson", [x, y, z], [back - slow, slow - back - fast, fast], [1, 0, 0], 400.0),
        Initial("valley 1e8", [x, y], [-sp.diff(valley, x), -sp.diff(valley, y)], [-1, 1.5], 4.0),
    ]
