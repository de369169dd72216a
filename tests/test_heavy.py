"""Noise with heavy tails: the laws themselves, and that nothing takes a variance which they do not have."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
import sympy as sp
from conformance import check_noise, losses

import minidyn as md

x, y, u = sp.symbols("x y u")
BOWL = md.Loss((x**2 + y**2) / 2, [x, y])
SAMPLES = md.Loss(u * (x**2 + y**2) / 2, [x, y], data={u: [1.0, 1.0]})
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
PATHS = 50_000


def numbers(noise: md.Noise, loss: md.Loss = BOWL) -> np.ndarray:
    """What a step draws, (2, PATHS)."""
    return -md.Map(loss, md.GD(1.0), noise).step(np.zeros((PATHS, 2)), rng=1).T


@pytest.mark.parametrize("df", [0.1, 0.5, 1, 2, 2.5, 4, 30, 1e8])
def test_student(df):
    """Numbers of Student's law are scipy's, by Kolmogorov and Smirnov's test, each coordinate for itself."""
    z = numbers(md.StudentNoise(df, [1.0, 0.2]))
    for row, scale in zip(z, (1.0, 0.2), strict=True):
        assert np.isfinite(row).all() and st.kstest(row, st.t(df, scale=scale).cdf).pvalue > 1e-3
    assert abs(np.mean(np.sign(z[0] * z[1]))) < 4 / np.sqrt(PATHS)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1, 1.5, 1.99, 2])
def test_stable(alpha):
    """Numbers of a stable law have its characteristic function, within four standard errors, and its tail."""
    for z in numbers(md.StableNoise(alpha, 1.0)):
        assert np.isfinite(z).all()
        at = np.array([[0.1], [0.5], [1.0], [2.0]])
        for wave, expected in ((np.cos(at * z), np.exp(-(at[:, 0] ** alpha))), (np.sin(at * z), np.zeros(4))):
            assert (abs(wave.mean(1) - expected) <= 4 * wave.std(1) / np.sqrt(PATHS)).all()
    if alpha == 1:
        assert st.kstest(z, st.cauchy.cdf).pvalue > 1e-3
    if alpha < 1.99:  # P(|z| > q) -> 2 Gamma(alpha) sin(pi alpha / 2) / (pi q^alpha), at one in 500
        share = 0.002
        tail = (2 * sp.gamma(alpha) * sp.sin(sp.pi * alpha / 2) / sp.pi / share).evalf() ** (1 / alpha)
        beyond = np.mean(abs(z) > float(tail))
        assert abs(beyond - share) < 5 * np.sqrt(share / PATHS) + 0.03 * share


@pytest.mark.parametrize("noise", [md.StudentNoise(3, 0.3), md.StableNoise(1.2, 0.3)])
def test_a_loop_in_registers_draws_what_a_loop_in_memory_does(noise):
    """The same numbers come in the same order, alone and beside normal ones; along a direction they are one number."""
    for one in (noise, noise + md.GaussianNoise([[0.3, 0.0, 0.1], [0.1, 0.2, 0.0]])):
        runs = [
            md.simulate(md.Map(loss, md.SGD(0.1, 0.5), one), [0.7, 0.3], 5, paths=66, rng=3, save_every=1).w
            for loss in (BOWL, SAMPLES)
        ]
        np.testing.assert_allclose(*runs, rtol=1e-12, atol=1e-14)
    along = numbers(type(noise)(next(iter(vars(noise).values())), [[1.0], [-0.5]]))
    np.testing.assert_allclose(along[1], -0.5 * along[0], rtol=1e-14)


@pytest.mark.parametrize("sigma", [0.3, [[0.3, 0.0, 0.1], [0.1, 0.2, 0.0]], [0.2 + x**2 / 9, x * y]], ids=str)
def test_where_there_are_moments_they_are_those_of_what_is_drawn(sigma):
    """Student's law with twelve degrees of freedom satisfies all that a noise must; so does the normal stable law."""
    check_noise(md.StudentNoise(12, sigma), losses()[""])
    check_noise(md.StableNoise(2, sigma), losses()[""])


def test_flows_see_its_variance():
    """The drift of Student noise is that of Gaussian noise of the same variance, sigma^2 df/(df - 2), also where it has
    no fourth moment."""
    for df in (2.5, 5):
        for rule in (md.SGD(0.05), md.Adam(0.01)):
            heavy, normal = (
                md.QuasistaticFlow(md.Map(VALLEY, rule, noise))
                for noise in (md.StudentNoise(df, 0.3), md.GaussianNoise(0.3 * np.sqrt(df / (df - 2))))
            )
            np.testing.assert_allclose(heavy.drift([0.7, 0.0]), normal.drift([0.7, 0.0]), rtol=1e-9)
            assert normal.couples and not heavy.couples


@pytest.mark.parametrize("noise", [md.StudentNoise(2, 0.3), md.StudentNoise(0.5, 1e-9), md.StableNoise(1.7, 0.3),
                                   md.StableNoise(1.7, 0.3) + md.GaussianNoise(0.1)], ids=str)  # fmt: skip
def test_what_needs_a_variance_refuses_its_lack(noise):
    """Flows with noise and linear stability say that there is none; flows without noise and the map itself run."""
    system = md.Map(VALLEY, md.SGD(0.05), noise)
    for make in (md.QuasistaticFlow, md.StochasticModifiedFlow):
        with pytest.raises(md.FlowError, match=r"has no variance, which is needed here; simulate the map"):
            make(system)
    with pytest.raises(md.FlowError, match=r"has no variance, .* linear stability"):
        md.stability(system, [0.5, 0.0])
    run = md.simulate(system, [0.5, 0.1], 20, paths=3, rng=0)
    assert np.isfinite(run.w).all()
    assert md.compare(system, md.GradientFlow(system), w0=[0.5, 0.1], steps=20, paths=8, rng=0).summary()


def test_the_fourth_moment_is_asked_for_where_a_rule_squares_the_noise():
    """A second-order equation of Adam needs `E z^4`: four degrees of freedom have none."""
    with pytest.raises(md.FlowError, match=r"StudentNoise\(4, 0.3\) has no fourth moment"):
        md.StochasticModifiedFlow(md.Map(VALLEY, md.Adam(0.01), md.StudentNoise(4, 0.3)), order=2).drift([0.5, 0.1])
    md.StochasticModifiedFlow(md.Map(VALLEY, md.SGD(0.01), md.StudentNoise(4, 0.3)), order=2)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: md.StableNoise(2.1, 0.3), "alpha must be from 0.1 to 2, not 2.1."),
        (lambda: md.StableNoise(0, 0.3), "alpha must be a positive number, not 0."),
        (lambda: md.StableNoise(1.5, -1), "sigma is a standard deviation and must not be negative."),
        (lambda: md.StudentNoise(0.01, 0.3), "the degrees of freedom must be at least 0.1, not 0.01."),
        (lambda: md.StudentNoise("3", 0.3), "the degrees of freedom must be a number, not '3'."),
        (lambda: md.StudentNoise(np.nan, 0.3), "the degrees of freedom must be a positive number, not nan."),
    ],
)
def test_error_is_a_sentence(make, sentence):
    """A law that cannot be is one sentence."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence
