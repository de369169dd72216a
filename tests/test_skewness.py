"""Skewed noise under accumulators: third moments of batches, and the force that they make."""

from itertools import combinations, product

import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y, u, v = sp.symbols("x y u v")
NORMAL, TANGENT = np.array([1.0, -2.0]) / np.sqrt(5), np.array([2.0, 1.0]) / np.sqrt(5)
ALONG, ACROSS = (2 * x + y) / sp.sqrt(5), (x - 2 * y) / sp.sqrt(5)
SPREAD = np.array([1.0, -1.0, 0.5, -0.5])
SKEWS = {"strong": [2.0, -1.0, -1.0, 0.0], "weak": [1.2, 0.3, -0.4, -1.1], "lonely": [3.0, -1.0, -1.0, -1.0]}


def tilted(tilts):
    """A straight valley askew to both coordinates, flatter ahead, whose samples are tilted on its floor: (S, 2)."""
    return md.Loss((1 + ALONG**2 / 4) * ACROSS**2 / 2 + u * x + v * y, [x, y], data={u: tilts[:, 0], v: tilts[:, 1]})


def literal(rule, tilts, batches, weights, s, seed):
    """Mean step along the floor of literal runs at a place s of it, summed over all batches at every step: its mean and
    standard error. What is linear in the noise, and so zero on average, is taken out."""
    lr, beta1, beta2 = rule.hyper["lr"], rule.hyper.get("beta1", 0.0), rule.hyper["beta2"]
    h, slope, paths, steps = 1 + s**2 / 4, s / 2, 1000, 1500
    noise = np.array([tilts[list(b)].mean(axis=0) for b in batches])
    q = weights @ noise**2
    left = TANGENT * np.sqrt(q) / ((TANGENT * np.sqrt(q)) @ TANGENT)
    rng, r, m, w = np.random.default_rng(seed), np.zeros(paths), np.zeros((paths, 2)), np.tile(q, (paths, 1))
    kept = np.zeros(paths)
    for k in range(steps):
        pull = slope * r[:, None] ** 2 / 2 * TANGENT
        g = h * r[:, None] * NORMAL + pull
        if k >= 500:
            plain = beta1 * (m - pull) + (1 - beta1) * (g - pull)  # m remembers pulls
            step = -(plain / np.sqrt(q)) @ left
            for share, xi in zip(weights, noise, strict=True):
                new = beta1 * m + (1 - beta1) * (g + xi)
                step += share * (new / np.sqrt(beta2 * w + (1 - beta2) * (g + xi) ** 2)) @ left
            kept -= lr * step / (steps - 500)
        g = g + noise[rng.choice(len(noise), p=weights, size=paths)]
        m, w = beta1 * m + (1 - beta1) * g, beta2 * w + (1 - beta2) * g**2
        r = r - lr * (m / np.sqrt(w)) @ NORMAL
    return kept.mean(), kept.std() / np.sqrt(paths)


@pytest.mark.parametrize("rule", [md.RMSProp(0.02, beta2=0.995, eps=0.0), md.Adam(0.02, 0.8, 0.995, 0.0)], ids=str)
def test_skewed_batches_push_accumulators_as_literal_runs(rule):
    """RMSProp and Adam on tilted samples, three skews of both signs, also where the force is ten times the rest: the
    drift is that of literal runs within 3 standard errors and the 1 - beta2 of the averages."""
    times = []
    for name, sign, batch in [*product(SKEWS, (1, -1), (1,)), ("strong", 1, 3), ("lonely", -1, 2)]:
        first = sign * np.array(SKEWS[name])
        tilts = np.stack([3 * first, 0.2 * first + 0.3 * SPREAD], axis=1)
        batches = list(combinations(range(4), batch))
        weights = np.full(len(batches), 1 / len(batches))
        system = md.Map(tilted(tilts), rule, md.Minibatch(batch))
        at = 0.8 * TANGENT
        drift = md.QuasistaticFlow(system, accumulators="self-consistent").drift(at) @ TANGENT * rule.hyper["lr"]
        rest = md.QuasistaticFlow(system, accumulators="frozen").drift(at) @ TANGENT * rule.hyper["lr"]
        mean, error = literal(rule, tilts, batches, weights, 0.8, seed=len(times))
        force = abs(drift - rest)
        averages = (1 - rule.hyper["beta2"]) * max(abs(rest), force)
        assert abs(drift - mean) < 3 * error + averages, (name, sign, batch)
        times.append(force / abs(rest))
    assert max(times) > 10
    assert times[-1] < 0.1  # half the samples: no skewness


@pytest.mark.parametrize("noise", [
    md.Minibatch(1), md.Minibatch(2), md.Minibatch(3), md.Minibatch(2, replace=True), md.LabelNoise(0.7, batch=1),
    md.LabelNoise(0.7, batch=2, kind="rademacher"), md.LabelNoise(0.7), md.GaussianNoise(0.4) + md.Minibatch(1),
], ids=str)  # fmt: skip
def test_third_moments_are_those_of_all_batches(noise):
    """`E xi_i xi_j^2` by the sum over every batch and every sign of its labels, at a place where samples disagree."""
    inputs, target = np.array([0.5, 1.0, 2.0, -1.0, 1.5]), np.array([0.2, 1.0, 1.0, 0.3, -0.5])
    loss = md.Loss.regression(sp.sin(x * u) + y * x * u**2, [x, y], inputs={u: inputs}, target=target)
    bound, w = md.Map(loss, md.RMSProp(0.01), noise).bound, np.array([0.7, -0.4])
    model = np.stack([inputs * np.cos(w[0] * inputs) + w[1] * inputs**2, w[0] * inputs**2], axis=1)
    rest = np.sin(w[0] * inputs) + w[0] * w[1] * inputs**2 - target
    apart = rest[:, None] * model - (rest[:, None] * model).mean(axis=0)
    std, size = noise.label_std or 0.0, noise.batch or len(inputs)
    batches = list(product(range(5), repeat=size) if noise.sampling == "with" else combinations(range(5), size))
    expected = np.zeros((2, 2))
    for batch in batches:
        for signs in product((-1, 1), repeat=size if std else 0):
            shift = -std * np.array(signs or [0.0])[:, None] * (model[list(batch)] if std else 0.0)
            xi = (apart[list(batch)] + shift).mean(axis=0)
            expected += np.outer(xi, xi**2) / len(batches) / 2 ** len(signs)
    flow = md.StochasticModifiedFlow(md.Map(loss, md.RMSProp(0.01), noise), order=2)
    found = np.zeros((2, 2, 2))
    flow.kernels.noise_moments(w, loss.c, loss.rows, bound.numbers, *found)
    np.testing.assert_allclose(found[0], expected, rtol=1e-10, atol=1e-14)


def test_what_accumulates_memories_and_closed_forms_do_not_know_the_force():
    """AdaBelief under skewed batches, and a closed form of RMSProp, say so; half the samples and SGD are all right."""

    @md.rule
    def belief(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g - m) ** 2
        return theta - lr * m / sp.sqrt(v), m, v

    first = np.array(SKEWS["strong"])
    loss = tilted(np.stack([3 * first, 0.2 * first + 0.3 * SPREAD], axis=1))
    with pytest.raises(md.FlowError, match=r"is skewed here, .* squares of what is remembered"):
        md.QuasistaticFlow(md.Map(loss, belief(0.001), md.Minibatch(1))).drift(0.8 * TANGENT)
    for rule, noise in ((belief(0.001), md.Minibatch(2)), (md.SGD(0.01), md.Minibatch(1))):
        assert np.isfinite(md.QuasistaticFlow(md.Map(loss, rule, noise)).drift(0.8 * TANGENT)).all()
