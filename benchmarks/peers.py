"""Other people's tools on the same work, in the same run, where they are installed (all optional).

Each function returns `{name: callable}`, empty where the tool is missing; tools are imported when first needed. Their
figures are processor time, too: of all their threads together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.harness import Row, installed, interleaved
from benchmarks.problems import samples

Cases = dict[str, Callable[[], Any]]
wanted = True  # `--no-peers` turns them off


def noisy_sgd(work: str, ours: float, start: np.ndarray, lr: float, sigma: float, quick: bool) -> Iterator[Row]:
    """W2 in numpy, JAX and torch as their users write it: all paths at once, step by step."""
    paths, steps = 10_240, 50 if quick else 200
    cases: Cases = {"numpy": lambda: _numpy_sgd(paths, steps, start, lr, sigma)}
    if wanted and installed("jax"):
        cases["JAX"] = _jax_sgd(paths, steps, start, lr, sigma)
    if wanted and installed("torch"):
        cases["torch"] = _torch_sgd(paths, steps, start, lr, sigma)
    seconds = interleaved(cases, 3, least=0)
    for name, taken in seconds.items():
        yield Row(f"{work}, one core", "ns/path-step", ours * 1e9, name, taken / paths / steps * 1e9)


def _numpy_sgd(paths: int, steps: int, start: np.ndarray, lr: float, sigma: float) -> np.ndarray:
    rng = np.random.Generator(np.random.SFC64(1))
    x, y = np.full(paths, start[0]), np.full(paths, start[1])
    for _ in range(steps):
        gx, gy = x * y * y, (1 + x * x) * y
        x = x - lr * (gx + sigma * rng.standard_normal(paths))
        y = y - lr * (gy + sigma * rng.standard_normal(paths))
    return np.stack([x, y])


def _jax() -> tuple[Any, Any]:
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax, jax.numpy


def _jax_sgd(paths: int, steps: int, start: np.ndarray, lr: float, sigma: float) -> Callable[[], Any]:
    jax, jnp = _jax()

    def step(s: Any, key: Any) -> tuple[Any, None]:
        x, y = s
        g = jnp.stack((x * y * y, (1 + x * x) * y))
        return s - lr * (g + sigma * jax.random.normal(key, s.shape)), None

    run = jax.jit(lambda s, keys: jax.lax.scan(step, s, keys)[0])
    s, keys = jnp.stack([jnp.full(paths, v) for v in start]), jax.random.split(jax.random.key(5), steps)
    return lambda: run(s, keys).block_until_ready()


def _torch_sgd(paths: int, steps: int, start: np.ndarray, lr: float, sigma: float) -> Callable[[], Any]:
    import torch

    def run() -> Any:
        x, y = (torch.full((paths,), float(v), dtype=torch.float64) for v in start)
        for _ in range(steps):
            gx, gy = x * y * y, (1 + x * x) * y
            x = x - lr * (gx + sigma * torch.randn(paths, dtype=torch.float64))
            y = y - lr * (gy + sigma * torch.randn(paths, dtype=torch.float64))
        return x, y

    return run


def gradients(units: int, count: int, points: np.ndarray) -> Cases:
    """The gradient of a net at many points in JAX: `vmap` of `grad`."""
    if not (wanted and installed("jax")):
        return {}
    jax, jnp = _jax()
    t, y = (jnp.array(v) for v in samples(count))

    def loss(p: Any) -> Any:
        hidden = jnp.tanh(jnp.outer(t, p[units : 2 * units]) + p[2 * units :])
        return 0.5 * jnp.mean((hidden @ p[:units] - y) ** 2)

    run, given = jax.jit(jax.vmap(jax.grad(loss))), jnp.array(points)
    return {"JAX": lambda: run(given).block_until_ready()}


def flow_starts(starts: np.ndarray, time: float, tol: float) -> Cases:
    """W4: many starts of L2 with heyoka's batch mode, diffrax and numbalsoda."""
    cases: Cases = {}
    if wanted and installed("heyoka"):
        cases["heyoka batch"] = _heyoka(starts, time, tol)
    if wanted and installed("diffrax"):
        cases["diffrax Dopri8"] = _diffrax(starts, time, tol)
    if wanted and installed("numbalsoda"):
        cases["numbalsoda dop853"] = _numbalsoda(starts, time, tol)
    return cases


def _heyoka(starts: np.ndarray, time: float, tol: float) -> Callable[[], np.ndarray]:
    import heyoka as hy

    x, y = hy.make_vars("x", "y")
    q = (1.0 - x * x * y * y) * x * y
    lanes = 8
    solver = hy.taylor_adaptive_batch([(x, q * y), (y, q * x)], state=np.repeat(starts[:1].T, lanes, 1), tol=tol)

    def run() -> np.ndarray:
        out = np.empty_like(starts)
        for i in range(0, len(starts), lanes):
            solver.set_time(0.0)
            solver.state[:] = starts[i : i + lanes].T
            solver.propagate_until(time)
            out[i : i + lanes] = solver.state.T
        return out

    return run


def _diffrax(starts: np.ndarray, time: float, tol: float) -> Callable[[], np.ndarray]:
    jax, jnp = _jax()
    import diffrax

    def field(t: Any, p: Any, args: Any) -> Any:
        q = (1 - p[0] ** 2 * p[1] ** 2) * p[0] * p[1]
        return jnp.stack([q * p[1], q * p[0]])

    def solve(p: Any) -> Any:
        control = diffrax.PIDController(rtol=tol, atol=tol / 100)
        saves = diffrax.SaveAt(t1=True)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Dopri8(), 0.0, time, None, p, stepsize_controller=control, saveat=saves,
            max_steps=100_000,
        ).ys[0]  # fmt: skip

    run, given = jax.jit(jax.vmap(solve)), jnp.array(starts)
    return lambda: np.asarray(run(given))


def _numbalsoda(starts: np.ndarray, time: float, tol: float) -> Callable[[], np.ndarray]:
    import numba
    import numbalsoda

    @numba.cfunc(numbalsoda.lsoda_sig)
    def field(t: Any, u: Any, du: Any, p: Any) -> None:
        q = (1 - u[0] * u[0] * u[1] * u[1]) * u[0] * u[1]
        du[0] = q * u[1]
        du[1] = q * u[0]

    times = np.array([0.0, time])
    solve = numbalsoda.dop853
    return lambda: np.stack([solve(field.address, w, times, rtol=tol, atol=tol / 100)[0][-1] for w in starts])
