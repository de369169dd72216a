"""What a rule remembers of the noise: covariances of its memories, and their shares in what is squared or bent."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import sympy as sp

from minidyn.common.errors import FlowError, said
from minidyn.maps import rule_symbols
from minidyn.maps.rule_symbols import THETA, G
from minidyn.maps.rules import Rule


def carried_states(plain: list[sp.Expr], names: list[sp.Symbol], squares: tuple[bool, ...]) -> dict[sp.Symbol, list]:
    """Memories: states that noise reaches, except accumulators; each with its row of the covariance P for unit noise,
    `P = A P A^T + b b^T`."""
    rows = [(s, e) for s, e, a in zip(names, plain[1:], squares, strict=True) if not a]
    reached = {s for s, e in rows if e.has(G)}
    for _ in rows:
        reached |= {s for s, e in rows if e.free_symbols & reached}
    rows = [(s, e) for s, e in rows if s in reached]
    return {s: [e, [t for t, _ in rows]] for s, e in rows}


def memory_covariance(rule: Rule, carried: dict[sp.Symbol, list]) -> dict[tuple[sp.Symbol, sp.Symbol], sp.Expr]:
    """`P = A P A^T + b b^T`, the covariance of the memories for unit noise in the gradient."""
    names = list(carried)
    A = sp.Matrix([[sp.diff(carried[s][0], t) for t in names] for s in names])
    b = sp.Matrix([sp.diff(carried[s][0], G) for s in names])
    moving = {THETA, G, *rule.letters}
    if any(e.free_symbols & moving for e in (*A, *b)):
        raise FlowError(
            f"{rule.name} accumulates squares of a memory that is no fixed mean of the gradient: its stationary law is "
            f"not known; follow the map itself with {said('md.simulate')}."
        )
    size = len(names)
    pairs = [(i, j) for i in range(size) for j in range(i + 1)]
    unknown = {p: sp.Symbol(f"_p{p[0]}_{p[1]}") for p in pairs}
    P = sp.Matrix(size, size, lambda i, j: unknown[max(i, j), min(i, j)])
    rest = P - A * P * A.T - b * b.T
    found = sp.solve([rest[p] for p in pairs], list(unknown.values()), dict=True)
    if len(found) != 1:
        raise FlowError(f"{rule.name} remembers gradients without end: the squares that it accumulates have no mean.")
    return {(names[i], names[j]): P[i, j].xreplace(found[0]) for i in range(size) for j in range(size)}


def shares_of_square(
    names: list[sp.Symbol], plain: list[sp.Expr], squares: tuple[bool, ...], carried: dict[sp.Symbol, list], rule: Rule
) -> tuple[sp.Expr, ...]:
    """`AveragedRule.shares` of the first accumulator."""
    e = next(e for e, a in zip(plain[1:], squares, strict=True) if a)
    P = memory_covariance(rule, carried)
    second = {(s, t): sp.diff(e, s, t) for s in (G, *carried) for t in (G, *carried)}
    whole = second[G, G] + sp.Add(*(second[s, t] * P[s, t] for s in carried for t in carried))
    once = [2 * second.get((G, s), sp.S.Zero) for s in names]
    twice = [second.get((s, t), sp.S.Zero) for s in names for t in names]
    return tuple(p / whole for p in (second[G, G], *once, *twice))


def squared_memories(
    rule: Rule, plain: list[sp.Expr], squares: tuple[bool, ...], carried: dict[sp.Symbol, list]
) -> tuple[sp.Matrix, ...]:
    """`M, F, C_0` of `steps_alike`, in the letters of hyperparameters."""
    e = next(e for e, a in zip(plain[1:], squares, strict=True) if a)
    noisy, P = [G, *carried], memory_covariance(rule, carried)
    M = sp.ImmutableMatrix([[sp.diff(e, s, t) for t in noisy] for s in noisy])
    F = [[sp.S.Zero] * len(noisy), *([sp.diff(carried[s][0], t) for t in noisy] for s in carried)]
    C = sp.diag(1, sp.Matrix([[P[s, t] for t in carried] for s in carried]))
    return M, sp.ImmutableMatrix(F), sp.ImmutableMatrix(C)


def steps_alike(rule: Rule, parts: tuple[sp.Matrix, ...]) -> float:
    """`sum_l tr(M C_l M C_l^T) / tr(M C_0 M C_0)`: the squares `z^T M z` of noise and memories, Gaussian, with
    `z' = F z + fresh noise`, `C_l = F^l C_0`."""
    M, F, C = (np.array([number(rule, e) for e in part]).reshape(part.shape) for part in parts)
    total, first = 1.0, np.trace(M @ C @ M @ C)
    for _ in range(100_000):
        C = F @ C
        part = 2.0 * np.trace(M @ C @ M @ C.T) / first
        total += part
        if abs(part) <= 1e-6 * total:
            break
    return float(total)


def shares_of_mean(names: list[sp.Symbol], e: sp.Expr, breadth: sp.Expr) -> tuple[sp.Expr, ...]:
    """`AveragedRule.shares` of a curve of `c = g + sum_s ratio_s s`, of standard deviation `breadth` for unit noise."""
    ratios = [sp.simplify(sp.diff(e, s) / sp.diff(e, G)) for s in names]
    shares = [sp.S.One, *(2 * r for r in ratios), *(r * t for r in ratios for t in ratios)]
    return tuple(x / breadth**2 for x in shares)


def noise_of_mean(
    rule: Rule, inner: sp.Expr, updates: list[sp.Expr]
) -> tuple[sp.Expr, tuple[sp.Expr, sp.Expr, sp.Expr, int]]:
    """The standard deviation of the noise in what a sign or a curve is taken of, for unit noise, and its `remembered`.

    With `c = alpha m + gamma g` and `m' = pole m + feed g` the noise of c has the autocovariance
    `alpha^2 feed^2 pole^l / (1 - pole^2) + alpha gamma feed pole^(l-1)` at lags l = 1, 2, ...
    """
    states = rule.letters
    moving = {THETA, G, *states}
    gamma, alphas = sp.diff(inner, G), [sp.diff(inner, s) for s in states]
    linear = not any(e.free_symbols & moving for e in (gamma, *alphas)) and sp.diff(inner, THETA) == 0
    places = [a for a, e in enumerate(alphas) if e != 0]
    if linear and not places:
        return sp.Abs(gamma), (sp.Piecewise((1, gamma > 0), (-1, True)), sp.S.Zero, sp.S.Zero, -1)
    place = places[0] if len(places) == 1 else 0
    pole, feed = sp.diff(updates[place], states[place]), sp.diff(updates[place], G)
    mean = sp.expand(updates[place] - pole * states[place] - feed * G) == 0
    if not linear or len(places) > 1 or not mean or (pole.free_symbols | feed.free_symbols) & moving:
        raise FlowError(
            f"{rule.name} takes a sign or a curve of {rule.show(inner)}; averaging knows those of the gradient "
            "(SignGD) and of one running mean of it (Lion)."
        )
    used = inner.free_symbols | updates[place].free_symbols
    moving_hyper = [h for h, v in rule.hyper.items() if isinstance(v, sp.Expr) and rule_symbols.hyper(h) in used]
    if moving_hyper:
        what = f"the average of {rule.name} over its noise"
        raise FlowError(f"{what} needs a constant {moving_hyper[0]}, not a schedule.")
    kept = alphas[place] ** 2 * feed**2 / (1 - pole**2)
    variance = gamma**2 + kept
    next_step = (kept * pole + alphas[place] * gamma * feed) / variance
    return sp.sqrt(variance), (gamma / sp.sqrt(variance), next_step, pole, place)


def number(rule: Rule, e: sp.Expr) -> float:
    """An expression in the hyperparameters as a number; schedules stand at 1."""
    letters, inside = {rule_symbols.hyper(h): v for h, v in rule.hyper.items()}, _letters_in(e)
    return _number(e, tuple((s, 1 if isinstance(v, sp.Expr) else v) for s, v in letters.items() if s in inside))


@lru_cache(maxsize=4096)
def _letters_in(e: sp.Expr) -> frozenset[sp.Symbol]:
    return frozenset(e.free_symbols)


@lru_cache(maxsize=4096)
def _number(e: sp.Expr, given: tuple[tuple[sp.Symbol, float], ...]) -> float:
    return float(e.subs(dict(given)))
