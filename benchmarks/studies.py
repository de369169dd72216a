"""What comparisons and long studies promise, measured: coupling, coverage, hashes, kills, memory.

    python -m benchmarks coupling  # how much variance of a difference the common noise removes
    python -m benchmarks coverage  # how often 95 % intervals hold the truth, in 400 small studies of each kind
    python -m benchmarks hashes    # same bits for threads, numbers of paths, chunks, saves
    python -m benchmarks kills     # runs killed at 100 random instants, resumed, compared bit for bit
    python -m benchmarks million   # peak memory of a million paths, 10^11 path-steps; with --quick two short runs

Each prints what it measured.
"""

from __future__ import annotations

import importlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sympy as sp

import minidyn as md
from minidyn.compare.order import fit_order

x, y, a, b, u = sp.symbols("x y a b u")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])


def systems() -> dict[str, md.Map | md.Flow]:
    """One of each engine, and of each kind of randomness."""
    data = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))
    sgd = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))
    return {
        "SGD": sgd,
        "Adam": md.Map(VALLEY, md.Adam(0.01), md.GaussianNoise([0.3, 0.1])),
        "reshuffling": md.Map(data, md.SGD(0.1), md.Reshuffle(2)),
        "label noise": md.Map(data, md.SGD(0.1), md.LabelNoise(0.3) + md.Minibatch(2, replace=True)),
        "quasistatic flow": md.QuasistaticFlow(sgd),
        "gradient flow": md.GradientFlow(sgd),
        "modified equation": md.StochasticModifiedFlow(sgd, order=2),
        "three noises": md.SymbolicFlow(sgd, [-x, -y], [[0.3, 0.1, 0.0], [0.0, 0.1 * x, 0.2]]),
    }


START = [1.0, 0.02]


def hashes() -> None:
    """Hashes of one ensemble, computed in many ways."""
    engines = importlib.import_module("minidyn.simulate.engines")
    importlib.import_module("minidyn.simulate.threads").cores = lambda: 8  # more threads than processors, on purpose
    print("\nhashes of results (bar: one per system)")
    for name, system in systems().items():
        flow = isinstance(system, md.Flow)
        many, steps = (2_000, 300) if flow else (100_000, 300)
        starts = np.tile(START, (many, 1)) + (1e-3 * np.arange(many)[:, None] / many if name == "gradient flow" else 0)

        def run(paths: int, system=system, steps=steps, starts=starts, **options) -> md.Run:
            given = {"save_every": 100, "threads": 1} | options
            return md.simulate(system, starts[:paths], steps, paths=paths, rng=6, **given)

        whole = run(many)
        found = {f"{n} threads": run(many, threads=n).digest() == whole.digest() for n in (2, 8)}
        for paths in (1, 10, 1000, 65, many // 2 + 7):
            found[f"{paths:,} paths"] = np.array_equal(run(paths).w, whole.w[:paths])
        often = run(min(many, 1000), save_every=1)
        for every in (1, 7, 1000):
            rare = run(min(many, 1000), save_every=every)
            found[f"saved every {every}"] = np.array_equal(rare.w, often.w[:, rare.steps])
        original = engines._Threaded.slice
        for length in (1, 13):
            engines._Threaded.slice = lambda self, wanted, n=length: min(wanted, n)
            found[f"chunks of {length} steps"] = np.array_equal(run(1000, save_every=1).w, often.w)
        engines._Threaded.slice = original
        with tempfile.TemporaryDirectory() as folder:
            found["streamed to disk"] = run(many, checkpoint=Path(folder) / "c").digest() == whole.digest()
        same = [what for what, equal in found.items() if equal]
        differ = [what for what, equal in found.items() if not equal]
        print(
            f"  {name:17s} {whole.digest()}: {len(same)} of {len(found)} ways agree"
            + f"; DIFFERENT: {', '.join(differ)}" * bool(differ)
        )


def kills(wanted: int = 100, seed: int = 0) -> None:
    """Runs killed (SIGKILL) at random instants until `wanted` kills have hit, each resumed until it is finished."""
    state = importlib.import_module("minidyn.simulate.checkpoint")
    rng = np.random.default_rng(seed)
    sizes = {"quasistatic flow": (150, 400), "gradient flow": (30, 4000)}
    cases = [(name, keep) for name in systems() for keep in ("paths", "moments")]
    hit, turn, equal, finished, late = 0, 0, 0, 0, []
    print(f"\n{wanted} kills at random instants (bar: every run ends with the bits of one that was never stopped)")
    with tempfile.TemporaryDirectory() as folder:
        while hit < wanted:
            name, keep = cases[turn % len(cases)]
            system = systems()[name]
            paths, steps = sizes.get(name, (3000, 4000))
            starts = np.tile(START, (paths, 1)) + 1e-3 * np.arange(paths)[:, None] / paths
            place = Path(folder) / f"run-{turn}"
            state.SECONDS, state.SPARE = [(0.0, 0.0), (0.02, 1.0)][turn % 2]
            turn += 1

            def job(
                checkpoint: Path | None, file: Path, system=system, starts=starts, steps=steps, paths=paths, keep=keep
            ) -> None:
                run = md.simulate(system, starts, steps, paths=paths, rng=3, save_every=steps // 50, keep=keep,
                                  observe="loss", threads=1, checkpoint=checkpoint)  # fmt: skip
                run.save(file)

            job(None, place.with_suffix(".whole.h5"))
            began = time.perf_counter()
            timed = place.with_suffix(".timed")
            _in_child(lambda job=job, at=timed: job(at, at.with_suffix(".h5")), None)
            length = time.perf_counter() - began
            while True:
                lifetime = rng.uniform(0, length) if hit < wanted else None  # the last one is left in peace
                done = _in_child(lambda job=job, place=place: job(place, place.with_suffix(".h5")), lifetime)
                hit += not done
                late.append(_progress(place))
                if done:
                    break
            finished += 1
            equal += _same_data(place.with_suffix(".h5"), place.with_suffix(".whole.h5"))
    late = [n for n in late if n > 0]
    print(
        f"  {hit} kills in {finished} runs of {len(cases)} kinds; {equal} of {finished} final files hold the same "
        f"data bit for bit; {len(late)} attempts found or left a state"
    )


def _in_child(job: Callable[[], None], lifetime: float | None) -> bool:
    """Do a job in a child process that is killed after so many seconds; whether it got done."""
    child = os.fork()
    if child == 0:
        try:
            job()
        except BaseException as error:
            print(f"  {type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    if lifetime is not None:
        time.sleep(lifetime)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code > 0:
        sys.exit("a run failed")
    return code == 0


def _progress(folder: Path) -> int:
    """Bytes of the state that a checkpoint holds."""
    return (folder / "state").stat().st_size if (folder / "state").exists() else 0


def _same_data(one: Path, other: Path) -> bool:
    """Whether two result files hold the same data: every dataset, byte for byte."""
    import h5py

    def data(file: Path) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with h5py.File(file) as root:
            root.visititems(lambda n, d: found.update({n: _bytes(d[()])}) if isinstance(d, h5py.Dataset) else None)
        return found

    return data(one) == data(other) and md.load(one).digest() == md.load(other).digest()


def _bytes(values: np.ndarray) -> bytes:
    return repr(values.tolist()).encode() if values.dtype == object else values.tobytes()


def million(quick: bool = False) -> None:
    """Peak memory of 10^6 paths of a planar map with moments every 1000 steps, as whole processes."""
    lengths = [2_000, 8_000] if quick else [100_000]
    print("\npeak memory of 10^6 paths, moments every 1000 steps (bar: 1 GiB at 10^5 steps)")
    for steps in lengths:
        began = time.perf_counter()
        command = [sys.executable, "-c", "from benchmarks.studies import _million; _million()", str(steps)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        taken = time.perf_counter() - began
        print(f"  {steps:7,} steps: {peak / 2**20:.3f} GiB, {taken:.0f} s, {taken / steps * 1e3:.2f} ns per path-step")


def _million() -> None:
    system = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
    run = md.simulate(system, START, int(sys.argv[-1]), paths=10**6, save_every=1000, keep="moments", rng=0)
    assert run.finished.all()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def coupling() -> None:
    """Variance of the estimated difference of means with independent noise, in units of that with common noise."""
    model = md.load_model("valley")
    print("\ncoupling on the valley (bars: 100 for the order-1 modified equation, 5 for the quasistatic flow)")
    flows = {"quasistatic flow": (md.QuasistaticFlow(model.map), {})}
    modified = md.StochasticModifiedFlow(model.map, order=1)
    flows |= {f"modified equation, steps of {s} lr": (modified, {"substeps": s}) for s in (1, 1 / 16)}
    for name, (flow, options) in flows.items():
        common = {"w0": model.w0, "steps": 400, "paths": 2000, "save_every": 40, "rng": 0, **options}
        together, apart = (md.compare(model.map, flow, coupled=c, **common) for c in (True, False))
        for row, other in zip(together.errors, apart.errors, strict=True):
            if row.step == 400:
                measured = (other.standard_error / row.standard_error) ** 2 if row.standard_error else np.inf
                print(
                    f"  {name}, {row.quantity}: {row.variance_ratio:.3g} as the summary says, {measured:.3g} against "
                    "an uncoupled run"
                )
    for name, ratio in zip("xy", _literal_modified_equation(), strict=True):
        print(f"  the same in numpy, steps of 0.0625 lr, {name}: {ratio:.3g}")


def _literal_modified_equation(
    lr: float = 0.05, sigma: float = 0.25, steps: int = 400, paths: int = 2000, fine: int = 16
) -> np.ndarray:
    """SGD and `dw = -g dt + (lr)^(1/2) sigma dW` on one Brownian path, in numpy: variance ratios of x and y."""
    rng = np.random.default_rng(0)
    w = np.tile([2.0, 0.0], (paths, 1)).T
    v, h = w.copy(), lr / fine

    def g(w: np.ndarray) -> np.ndarray:
        return np.stack([w[0] * w[1] ** 2, (1 + w[0] ** 2) * w[1]])

    for _ in range(steps):
        dW = rng.normal(size=(fine, 2, paths)) * np.sqrt(h)
        w = w - lr * g(w) + np.sqrt(lr) * sigma * dW.sum(0)  # sqrt(lr) dW = lr times a standard normal
        for part in dW:
            v = v - h * g(v) + np.sqrt(lr) * sigma * part
    return (w.var(axis=1) + v.var(axis=1)) / (w - v).var(axis=1)


def coverage(studies: int = 400) -> None:
    """How often 95 % intervals hold the truth."""
    error = 100 * np.sqrt(0.95 * 0.05 / studies)
    print(
        f"\n95 % intervals that hold the truth, of {studies} studies "
        f"(bar: 93 to 97 %; a standard error is {error:.1f} %)"
    )
    for name, part in (("compare", _covers_exact), ("compare", _covers_paired), ("study", _covers_order)):
        for what, hits in part(studies).items():
            print(f"  {name + ': ' + what:60s} {100 * np.mean(hits):.1f} %")


_OU = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(0.3))


def _exact(lr: float, steps: int, start: float = 1.0, sigma: float = 0.3) -> dict[str, float]:
    """Mean of x and of the loss under gradient flow less those under SGD on x^2/2, in closed form."""
    shrink = 1 - lr
    mean, flow = start * shrink**steps, start * np.exp(-lr * steps)
    variance = lr**2 * sigma**2 * (1 - shrink ** (2 * steps)) / (1 - shrink**2)
    return {"x": flow - mean, "loss": (flow**2 - mean**2 - variance) / 2}


def _covers_exact(studies: int) -> dict[str, list[bool]]:
    truth = _exact(0.1, 20)
    hits: dict[str, list[bool]] = {f"SGD - gradient flow, {name}": [] for name in truth}
    for seed in range(studies):
        result = md.compare(_OU, md.GradientFlow(_OU), w0=[1.0], steps=20, paths=100, save_every=20, observe="loss",
                            rng=[1, seed], rows=1)  # fmt: skip
        for row in result.errors:
            low, high = row.interval()
            hits[f"SGD - gradient flow, {row.quantity}"].append(low <= truth[row.quantity] <= high)
    return hits


def _covers_paired(studies: int) -> dict[str, list[bool]]:
    system = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.5))
    flow = md.QuasistaticFlow(system)
    common = {"w0": [1.0, 0.0], "steps": 40, "save_every": 40, "rows": 1, "observe": "norm", "substeps": 10}
    large = md.compare(system, flow, paths=100_000, rng=2, **common)
    truth = {row.quantity: row.difference for row in large.errors}
    hits: dict[str, list[bool]] = {f"SGD - quasistatic flow, {name}": [] for name in truth}
    hits |= {f"{name}, independent noise": [] for name in hits}
    for seed, coupled in itertools.product(range(studies), (True, False)):
        for row in md.compare(system, flow, paths=100, rng=[3, seed], coupled=coupled, **common).errors:
            low, high = row.interval()
            name = f"SGD - quasistatic flow, {row.quantity}" + ", independent noise" * (not coupled)
            hits[name].append(low <= truth[row.quantity] <= high)
    return hits


def _covers_order(studies: int) -> dict[str, list[bool]]:
    rates = [0.2, 0.1, 0.05, 0.025]
    names = {"x": "x", "loss": "loss"}
    hits: dict[str, list[bool]] = {f"fitted order, {name}": [] for name in names}
    for seed in range(studies):
        study = md.scaling_study(
            _OU, md.GradientFlow, lrs=rates, w0=[1.0], time=1.0, paths=400, observe="loss", rng=[4, seed]
        )
        for name in names:
            rows = [r for r in study.rows if r.quantity == name]
            exact = [_exact(r.lr, r.steps)[name] for r in rows]
            weights = [r.standard_error for r in rows]
            truth = fit_order([r.lr for r in rows], exact, weights)[0]
            fit = study.fit("gradient flow", name)
            hits[f"fitted order, {name}"].append(fit.low <= truth <= fit.high)
    return hits
