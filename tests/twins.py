"""Slow, literal twins: numpy and sympy that anyone can check against the paper.

Nothing here uses the package. Four independent roads to the same numbers:

* the update rules, one numpy line per line of the paper, and an ensemble simulator built on them;
* `quasistatic`: the one formula for the slow motion, by `sympy.diff` and dense linear algebra;
* `reduced_sgd`: the same for plain SGD, from derivatives of the loss alone;
* `drift_by_iteration`: no formula, the map is iterated to its limit and that limit differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sympy as sp

# ----------------------------------------------------------------------------------------------------
# Update rules: step(theta, state, g, k, **hyper) -> (theta', state').  Elementwise, any batch shape.
# ----------------------------------------------------------------------------------------------------


def gd(theta, state, g, k, *, lr):
    """θ' = θ − η g."""
    return theta - lr * g, ()


def heavy_ball(theta, state, g, k, *, lr, beta=0.9):
    """m' = β m + g,  θ' = θ − η m'."""
    (m,) = state
    m = beta * m + g
    return theta - lr * m, (m,)


def nesterov(theta, state, g, k, *, lr, beta=0.9):
    """m' = β m + g,  θ' = θ − η (g + β m')."""
    (m,) = state
    m = beta * m + g
    return theta - lr * (g + beta * m), (m,)


def sign_gd(theta, state, g, k, *, lr):
    """θ' = θ − η sign(g)."""
    return theta - lr * np.sign(g), ()


def lion(theta, state, g, k, *, lr, beta1=0.9, beta2=0.99):
    """θ' = θ − η sign(β1 m + (1−β1) g),  m' = β2 m + (1−β2) g."""
    (m,) = state
    theta = theta - lr * np.sign(beta1 * m + (1 - beta1) * g)
    return theta, (beta2 * m + (1 - beta2) * g,)


def rmsprop(theta, state, g, k, *, lr, beta2=0.99, eps=1e-8):
    """v' = β2 v + (1−β2) g²,  θ' = θ − η g / (√v' + ε); v starts at 0 and is not bias-corrected."""
    (v,) = state
    v = beta2 * v + (1 - beta2) * g**2
    return theta - lr * g / (np.sqrt(v) + eps), (v,)


def adam(theta, state, g, k, *, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """m' = β1 m + (1−β1) g,  v' = β2 v + (1−β2) g²,  θ' = θ − η m̂ / (√v̂ + ε);  k = 1, 2, …"""
    m, v = state
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**k)
    v_hat = v / (1 - beta2**k)
    return theta - lr * m_hat / (np.sqrt(v_hat) + eps), (m, v)


def adamw(theta, state, g, k, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    """Adam after θ ← (1 − ηλ) θ."""
    return adam((1 - lr * weight_decay) * theta, state, g, k, lr=lr, beta1=beta1, beta2=beta2, eps=eps)


RULES: dict[str, Callable] = {
    "gd": gd,
    "heavy_ball": heavy_ball,
    "nesterov": nesterov,
    "sign_gd": sign_gd,
    "lion": lion,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}
STATE: dict[str, tuple[str, ...]] = {
    "gd": (),
    "heavy_ball": ("m",),
    "nesterov": ("m",),
    "sign_gd": (),
    "lion": ("m",),
    "rmsprop": ("v",),
    "adam": ("m", "v"),
    "adamw": ("m", "v"),
}
DEFAULTS: dict[str, dict[str, float]] = {name: dict(step.__kwdefaults__ or {}) for name, step in RULES.items()}


def zero_state(rule: str, theta: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every accumulator starts at zero, one entry per coordinate."""
    return tuple(np.zeros_like(theta) for _ in STATE[rule])


def simulate(
    rule: str,
    grad: Callable[[np.ndarray], np.ndarray],
    theta0: np.ndarray,
    steps: int,
    *,
    noise: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    rng: np.random.Generator | int = 0,
    state: tuple[np.ndarray, ...] | None = None,
    first_step: int = 1,
    save_every: int | None = None,
    **hyper: float,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
    """z_{k+1} = F(z_k; ∇L(θ_k) + ξ_k) for a whole ensemble at once.

    `theta0` is (N, D); `grad` maps (N, D) to (N, D); `noise(theta, rng)` draws ξ of that shape. Adam's bias
    corrections count from `first_step`; a large one switches them off. Returns the last θ, the last state,
    and the saved θ, shape (saves, N, D): step 0, then every `save_every` steps (default: only the ends).
    """
    rng = np.random.default_rng(rng)
    theta = np.array(theta0, float)
    state = zero_state(rule, theta) if state is None else state
    every = save_every or max(steps, 1)
    saved = [theta]
    for k in range(steps):
        g = grad(theta)
        if noise is not None:
            g = g + noise(theta, rng)
        theta, state = RULES[rule](theta, state, g, first_step + k, **hyper)
        if (k + 1) % every == 0:
            saved.append(theta)
    return theta, state, np.array(saved)


def gaussian_noise(sigma: np.ndarray, antithetic: bool = False) -> Callable:
    """ξ = σ ζ with a constant (D, D) matrix σ; `antithetic` gives the second half of the paths −ξ."""
    sigma = np.asarray(sigma, float)

    def draw(theta, rng):
        n = len(theta) // 2 if antithetic else len(theta)
        xi = rng.standard_normal((n, theta.shape[1])) @ sigma.T
        return np.concatenate([xi, -xi]) if antithetic else xi

    return draw


def label_noise(model_grad: Callable, std: float, antithetic: bool = False) -> Callable:
    """ξ = −s ε ∇f for one datum, ε standard normal; `model_grad` maps (N, D) to (N, D)."""

    def draw(theta, rng):
        n = len(theta) // 2 if antithetic else len(theta)
        e = rng.standard_normal((n, 1))
        e = np.concatenate([e, -e]) if antithetic else e
        return -std * e * model_grad(theta)

    return draw


# ----------------------------------------------------------------------------------------------------
# The one formula of the quasistatic flow
# ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quasistatic:
    """Drift and diffusion **per step** at one point of the manifold, with everything they were made of."""

    drift: np.ndarray  # b, shape (Z,), in the full state z = (θ, aux)
    diffusion: np.ndarray  # Π Q Πᵀ, shape (Z, Z), covariance per step
    drift_theta: np.ndarray  # the θ-part of b, shape (D,)
    diffusion_theta: np.ndarray  # the θ-part of Π Q Πᵀ, shape (D, D)
    terms: dict[str, np.ndarray]  # θ-parts of the pieces of b: "normal", "coupling", "curvature", "force"
    A: np.ndarray
    B: np.ndarray
    F2: np.ndarray
    Q: np.ndarray
    Pi: np.ndarray
    W_SS: np.ndarray
    W_SN: np.ndarray


def _averaged_update(rule: str, theta, g, aux, second, sigma2, h):
    """(θ', aux') with squared gradients averaged over the noise; bias corrections are 1, no weight decay.

    `second(v, i)` is the updated second-moment accumulator of coordinate i; it is a constant when frozen.
    """
    n = range(len(theta))
    lr = h["lr"]
    if rule == "gd":
        return [theta[i] - lr * g[i] for i in n], {}
    if rule == "sign_gd":  # E sign(g + ξ) = erf(g / (σ √2)) for Gaussian ξ
        return [theta[i] - lr * sp.erf(g[i] / sp.sqrt(2 * sigma2[i])) for i in n], {}
    if rule == "lion":  # what the sign sees is the running mean of the noise: its deviation is `spread` · σ
        spread = sp.sqrt(lion_correlation(h["beta1"], h["beta2"], 0)[0])
        return [theta[i] - lr * sp.erf(g[i] / (spread * sp.sqrt(2 * sigma2[i]))) for i in n], {}
    if rule == "rmsprop":
        v = [second(i) for i in n]
        return [theta[i] - lr * g[i] / (sp.sqrt(v[i]) + h["eps"]) for i in n], {"v": v}
    if rule in ("heavy_ball", "nesterov"):
        m = [h["beta"] * aux["m"][i] + g[i] for i in n]
        push = m if rule == "heavy_ball" else [g[i] + h["beta"] * m[i] for i in n]
        return [theta[i] - lr * push[i] for i in n], {"m": m}
    if rule in ("adam", "adamw"):
        m = [h["beta1"] * aux["m"][i] + (1 - h["beta1"]) * g[i] for i in n]
        v = [second(i) for i in n]
        return [theta[i] - lr * m[i] / (sp.sqrt(v[i]) + h["eps"]) for i in n], {"m": m, "v": v}
    raise ValueError(f"no averaged map for the rule {rule!r}")


@lru_cache(maxsize=64)
def averaged_map(
    L: sp.Expr,
    params: tuple[sp.Symbol, ...],
    rule: str,
    sigma_expr: sp.ImmutableMatrix,
    hyper: tuple[tuple[str, float], ...],
    accumulators: str,
) -> dict[str, Callable]:
    """Numpy callables of the averaged map: `F(z, c)`, `A`, `F2`, `B` and `gradient`, `hessian`, `sigma` of θ.

    `z = (θ, aux)` in the order of `STATE`; `c` holds v* where it is frozen (empty otherwise).
    """
    D, h = len(params), {**DEFAULTS[rule], **dict(hyper)}
    names = _slow_state(rule, accumulators)
    aux = {a: sp.symbols(f"{a}__0:{D}", positive=True) for a in names}
    frozen = sp.symbols(f"c__0:{D}", positive=True) if "v" in STATE[rule] and accumulators == "frozen" else ()
    gs = sp.symbols(f"g__0:{D}", real=True)
    sigma2 = [sigma_expr[i, i] for i in range(D)]

    def second(i):
        if frozen:
            return frozen[i]
        return h["beta2"] * aux["v"][i] + (1 - h["beta2"]) * (gs[i] ** 2 + sigma2[i])

    new_theta, new_aux = _averaged_update(rule, params, gs, aux, second, sigma2, h)
    z = [*params, *(s for a in names for s in aux[a])]
    U = sp.Matrix([*new_theta, *(e for a in names for e in new_aux[a])])
    gradient = [sp.diff(L, p) for p in params]
    here = dict(zip(gs, gradient, strict=True))
    F = U.subs(here)
    A = F.jacobian(z)
    F2 = [[[sp.diff(A[i, j], s) for s in z] for j in range(len(z))] for i in range(len(z))]
    B = U.jacobian(gs).subs(here)
    if rule in ("sign_gd", "lion"):  # the noise is that of the sign itself, see `_noise_covariance`
        B = -h["lr"] * sp.eye(D)

    def compile_(expr, args):
        return sp.lambdify(args, expr, modules=["scipy", "numpy"], cse=True)

    full = [[*z], [*frozen]]
    flat = [F2[i][j][k] for i in range(len(z)) for j in range(len(z)) for k in range(len(z))]
    return {
        "F": compile_(list(F), full),
        "A": compile_(A, full),
        "F2": compile_(flat, full),
        "B": compile_(B, full),
        "gradient": compile_(gradient, [[*params]]),
        "hessian": compile_(sp.hessian(L, params), [[*params]]),
        "sigma": compile_(sp.Matrix(sigma_expr), [[*params]]),
        "sigma_curves": compile_([sp.diff(e, a, b) for e in sigma_expr for a in params for b in params], [[*params]]),
    }


def _compiled(L, params, rule, sigma_expr, hyper, accumulators) -> dict[str, Callable]:
    """`averaged_map` with its arguments made hashable, so that all points of a flow share one derivation."""
    hashable = tuple(sorted((name, float(value)) for name, value in hyper.items()))
    sigma_expr = sp.ImmutableMatrix(sigma_expr)
    return averaged_map(sp.sympify(L), tuple(params), rule, sigma_expr, hashable, accumulators)


def _fixed_point(
    rule: str,
    accumulators: str,
    w: np.ndarray,
    Sigma: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """z* = (θ, m = 0, v = diag Σ) and the frozen constants c."""
    v = np.diag(Sigma)
    if "v" in STATE[rule] and np.any(v <= 0):
        raise ValueError("a component of diag Σ is zero: the preconditioner is singular here")
    aux = [v if a == "v" else np.zeros_like(w) for a in _slow_state(rule, accumulators)]
    return np.concatenate([w, *aux]), v if "v" in STATE[rule] and accumulators == "frozen" else np.array([])


def _slow_state(rule: str, accumulators: str) -> list[str]:
    """The accumulators that are part of z: all, less a frozen v, and not Lion's m, which is averaged over."""
    if accumulators not in ("full", "frozen"):
        raise ValueError(f"accumulators is 'full' or 'frozen', not {accumulators!r}")
    return [a for a in STATE[rule] if rule != "lion" and (a != "v" or accumulators == "full")]


def lion_correlation(beta1: float, beta2: float, lags: int) -> np.ndarray:
    """E c_k c_{k+l}, l = 0 … lags, of c = β1 m + (1−β1) ξ, m' = β2 m + (1−β2) ξ, for ξ of unit variance."""
    var_m = (1 - beta2) / (1 + beta2)
    lag = np.arange(1, lags + 1)
    later = beta1**2 * var_m * beta2**lag + beta1 * (1 - beta1) * (1 - beta2) * beta2 ** (lag - 1)
    return np.concatenate([[beta1**2 * var_m + (1 - beta1) ** 2], later])


def _noise_covariance(rule: str, Sigma: np.ndarray, h: dict[str, float]) -> np.ndarray:
    """Covariance of what enters through B: Σ; for the sign of a Gaussian (2/π) arcsin ρ, over all lags.

    Lion's signs are correlated in time through m. The sum is its long-run covariance, so its flow is the
    leading order for η λ ≪ 1−β2 and a Σ that hardly varies within 1/(1−β2) steps.
    """
    if rule not in ("sign_gd", "lion"):
        return Sigma
    s = np.sqrt(np.diag(Sigma))
    rho = np.clip(Sigma / np.outer(s, s), -1, 1)
    if rule == "sign_gd":
        return (2 / np.pi) * np.arcsin(rho)
    r = lion_correlation(h["beta1"], h["beta2"], int(40 / (1 - h["beta2"])))
    total = np.arcsin(rho) + 2 * np.arcsin(rho[:, :, None] * (r[1:] / r[0])).sum(-1)
    return (2 / np.pi) * total


def spectral_projector(A: np.ndarray, d: int) -> np.ndarray:
    """Π = R (Lᵀ R)⁻¹ Lᵀ with R, L the right and left null spaces of I − A, both of dimension d."""
    U, s, Vt = np.linalg.svd(np.eye(len(A)) - A)
    if d and (s[-d] > 1e-6 * s[0] or (len(s) > d and s[-d - 1] < 1e-12 * s[0])):
        raise ValueError(f"eigenvalue 1 does not have multiplicity {d}: singular values of I − A are {s}")
    R, Lf = Vt[len(A) - d :].T, U[:, len(A) - d :]
    return R @ np.linalg.solve(Lf.T @ R, Lf.T)


def quasistatic(
    L: sp.Expr,
    params: Sequence[sp.Symbol],
    rule: str,
    sigma_expr: sp.Matrix,
    w: Sequence[float],
    hyper: dict[str, float],
    accumulators: str = "full",
    met: bool = True,
) -> Quasistatic:
    """b = ½ Π F2[W_SS + W_SN + W_SNᵀ] + ½ (I−A)_S⁻¹ Π_S F2[Π Q Πᵀ],  covariance Π Q Πᵀ, **per step**.

    `w` must be on the minima manifold; `sigma_expr` is Σ(θ), a D×D sympy matrix in `params`. Slow and
    dense: meant for D ≤ 4. Without `met` the noise is Σ(w) alone, as closed forms of leading order have it, not what
    the oscillation meets. AdamW's decay enters as the weak extra force Π p, p = −ηλ θ.
    """
    w = np.asarray(w, float)
    D, h = len(w), {**DEFAULTS[rule], **hyper}
    f = _compiled(L, params, rule, sigma_expr, hyper, accumulators)
    Sigma = np.array(f["sigma"](w), float)
    z, c = _fixed_point(rule, accumulators, w, Sigma)
    Z = len(z)
    A = np.array(f["A"](z, c), float)
    B = np.array(f["B"](z, c), float)
    F2 = np.array(f["F2"](z, c), float).reshape(Z, Z, Z)
    hess = np.array(f["hessian"](w), float)
    if np.linalg.norm(f["gradient"](w)) > 1e-6 * np.linalg.norm(hess):
        raise ValueError("the point is not on the minima manifold: the gradient does not vanish there")

    eye = np.eye(Z)
    Pi = spectral_projector(A, D - np.linalg.matrix_rank(hess, tol=1e-7 * np.linalg.norm(hess)))
    Pi_S = eye - Pi
    A_S = A @ Pi_S
    if np.max(np.abs(np.linalg.eigvals(A_S))) >= 1:
        raise ValueError("the fixed point is not stable across the manifold: no stationary oscillation")
    inverse_S = np.linalg.inv(eye - A + Pi) - Pi  # group inverse of I − A

    def oscillation(right):
        right = Pi_S @ right @ Pi_S.T
        return np.linalg.solve(np.eye(Z * Z) - np.kron(A_S, A_S), right.ravel()).reshape(Z, Z)

    S = _noise_covariance(rule, Sigma, h)
    if met and rule not in ("sign_gd", "lion"):  # S = Σ + N(W), N(W) = ½ D²Σ[W_θθ], for every entry of S
        curves = np.array(f["sigma_curves"](w), float).reshape(D * D, D * D)
        unit = np.eye(D * D).reshape(-1, D, D)
        N = [curves @ oscillation(B @ e @ B.T)[:D, :D].ravel() / 2 for e in unit]
        S = np.linalg.solve(np.eye(D * D) - np.transpose(N), S.ravel()).reshape(D, D)
    Q = B @ S @ B.T

    W_SS = oscillation(Q)
    W_SN = inverse_S @ Pi_S @ Q @ Pi.T
    diffusion = Pi @ Q @ Pi.T

    def second(W):
        return np.einsum("ijk,jk->i", F2, W)

    force = np.zeros(Z)
    force[:D] = -h["lr"] * h.get("weight_decay", 0.0) * w
    terms = {
        "normal": 0.5 * Pi @ second(W_SS),
        "coupling": 0.5 * Pi @ second(W_SN + W_SN.T),
        "curvature": 0.5 * inverse_S @ Pi_S @ second(diffusion),
        "force": Pi @ force,
    }
    b = sum(terms.values())
    return Quasistatic(
        b,
        diffusion,
        b[:D],
        diffusion[:D, :D],
        {n: t[:D] for n, t in terms.items()},
        A,
        B,
        F2,
        Q,
        Pi,
        W_SS,
        W_SN,
    )


def reduced_sgd(
    L: sp.Expr,
    params: Sequence[sp.Symbol],
    sigma_expr: sp.Matrix,
    w: Sequence[float],
    lr: float,
    finite: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """b = −(η/2) P_T T[S] − η² P_T T[H⁺ Σ_NT] − (η²/2) H⁺ T[Σ_TT],  covariance η² Σ_TT, **per step**.

    H S + S H − η H S H = η Σ_NN on the range of H; `finite=False` drops the term η H S H.
    """
    H, T, Sigma = hessian_third_noise(L, params, sigma_expr, w)
    lam, U = np.linalg.eigh(H)
    normal = lam > 1e-7 * lam[-1]
    P_N = U[:, normal] @ U[:, normal].T
    P_T = np.eye(len(H)) - P_N
    i, j = lam[:, None], lam[None, :]
    both = np.outer(normal, normal)
    denominator = np.where(both, i + j - (lr * i * j if finite else 0.0), 1.0)
    S = U @ np.where(both, lr * (U.T @ Sigma @ U) / denominator, 0.0) @ U.T
    H_plus = np.linalg.pinv(H, rcond=1e-7, hermitian=True)

    def third(W):
        return np.einsum("ijk,jk->i", T, W)

    b = (
        -0.5 * lr * P_T @ third(S)
        - lr**2 * P_T @ third(H_plus @ P_N @ Sigma @ P_T)
        - 0.5 * lr**2 * H_plus @ third(P_T @ Sigma @ P_T)
    )
    return b, lr**2 * P_T @ Sigma @ P_T


def hessian_third_noise(L, params, sigma_expr, w) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H (D, D), third derivative (D, D, D) and Σ (D, D) at w, by `sympy.diff` and substitution."""
    at = dict(zip(params, map(float, w), strict=True))

    def number(e):
        return float(sp.sympify(e).subs(at))

    H = [[number(sp.diff(L, a, b)) for b in params] for a in params]
    T = [[[number(sp.diff(L, a, b, c)) for c in params] for b in params] for a in params]
    Sigma = [[number(sigma_expr[i, j]) for j in range(len(params))] for i in range(len(params))]
    return np.array(H), np.array(T), np.array(Sigma)


def drift_by_iteration(
    L: sp.Expr,
    params: Sequence[sp.Symbol],
    rule: str,
    sigma_expr: sp.Matrix,
    w: Sequence[float],
    hyper: dict[str, float],
    accumulators: str = "full",
    size: float = 2e-3,
    iterations: int = 2000,
) -> np.ndarray:
    """½ Σ_ij Q_ij ∂_i∂_j Φ̂(z*), Φ̂(z) = lim Fⁿ(z): the definition of the drift, θ-part, **per step**.

    Φ̂ is computed by iterating the map, its second derivative by central differences along the principal axes
    of Q, extrapolated once from `size` and `size/2`.
    """
    w, h = np.asarray(w, float), {**DEFAULTS[rule], **hyper}
    f = _compiled(L, params, rule, sigma_expr, hyper, accumulators)
    Sigma = np.array(f["sigma"](w), float)
    z, c = _fixed_point(rule, accumulators, w, Sigma)
    B = np.array(f["B"](z, c), float)
    q, V = np.linalg.eigh(B @ _noise_covariance(rule, Sigma, h) @ B.T)

    def limit(start):
        for _ in range(iterations):
            start = np.array(f["F"](start, c), float)
        return start

    centre = limit(z)

    def half_laplacian(e):
        return sum(
            0.5 * q[i] * (limit(z + e * V[:, i]) - 2 * centre + limit(z - e * V[:, i])) / e**2
            for i in range(len(z))
            if q[i] > 1e-14 * q[-1]
        )

    return ((4 * half_laplacian(size / 2) - half_laplacian(size)) / 3)[: len(w)]


# ----------------------------------------------------------------------------------------------------
# Moving along the manifold
# ----------------------------------------------------------------------------------------------------


def project(gradient: Callable, hessian: Callable, w: Sequence[float], iterations: int = 20) -> np.ndarray:
    """Newton steps w ← w − H⁺ g with the rank found at the first: a point of the manifold near w.

    Meant for points already close to the manifold; it is not the gradient-flow limit.
    """
    w = np.asarray(w, float)
    rank = np.linalg.matrix_rank(np.array(hessian(w), float), tol=1e-3 * np.linalg.norm(hessian(w)))
    for _ in range(iterations):
        lam, U = np.linalg.eigh(np.array(hessian(w), float))
        U, lam = U[:, -rank:], lam[-rank:]
        w = w - U @ ((U.T @ np.array(gradient(w), float)) / lam)
    return w


def quasistatic_path(
    L: sp.Expr,
    params: Sequence[sp.Symbol],
    rule: str,
    sigma_expr: sp.Matrix,
    w0: Sequence[float],
    hyper: dict[str, float],
    steps: float,
    accumulators: str = "full",
    rk_steps: int = 4,
) -> np.ndarray:
    """dθ/dk = b_θ(θ) for `steps` steps of the map, by classical Runge–Kutta; the last θ.

    For noise without a tangential part (label noise), where the quasistatic flow is an ODE.
    """
    f = _compiled(L, params, rule, sigma_expr, hyper, accumulators)

    def on_manifold(w):
        return project(f["gradient"], f["hessian"], w)

    def b(w):
        return quasistatic(L, params, rule, sigma_expr, on_manifold(w), hyper, accumulators).drift_theta

    w, dk = np.asarray(w0, float), steps / rk_steps
    for _ in range(rk_steps):
        k1 = b(w)
        k2 = b(w + dk / 2 * k1)
        k3 = b(w + dk / 2 * k2)
        k4 = b(w + dk * k3)
        w = on_manifold(w + dk / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return w
