"""One of each thing that is shown at the keyboard: losses, rules, noises, maps, flows, models, results, rows."""

import functools

import sympy as sp

import minidyn as md

x, y, s, c, k = sp.symbols("x y s c k")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
LOGCOSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
WELLS = md.Loss(sp.Min(x**2, c * (x - 1) ** 2), [x], data={c: [0.1, 1.9]})
CHART = {"chart": {x: s, y: 0}, "coordinates": [s]}
MAP = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
EDGE = md.Map(LOGCOSH, md.GD(0.1))
SAMPLED = md.Map(WELLS, md.SGD(0.7), md.Minibatch(1))
LEAVING = md.Map(md.Loss(x**4 / 4, [x]), md.GD(1.0), md.GaussianNoise(0.5))
WILD = md.Map(md.Loss(x**2 * (x - 1) ** 2 / 4 + y**2 / 2, [x, y]), md.GD(0.5))
LOGISTIC = md.Map(md.Loss(-2.9 * x**2 / 2 + 3.9 * x**3 / 3, [x]), md.GD(1.0))


@functools.cache
def results():
    """One result of each kind, some with paths that stopped, remarks and notes."""
    stopped = md.compare(LEAVING, md.GradientFlow(LEAVING), w0=[1.35], steps=12, paths=64, rng=1)
    model = md.load_model("valley")
    regression = md.Loss.regression(c * sp.tanh(y * x), [c, y], {x: [1.0, 2.0]}, [0.5, 1.0])
    return {
        "comparison": model.run(steps=40, paths=50),
        "stopped": stopped,
        "stopped run": stopped.runs["GD"],
        "scaling": model.scale([0.1, 0.05], slow_time=0.1, paths=32),
        "sweep": md.sweep(
            MAP, over={"lr": [0.05, 0.1, 1.5], "sigma": [0.1, 0.3]}, w0=[2, 0], steps=40, paths=20, rng=0
        ),
        "sweep of flows": md.sweep(
            MAP, md.QuasistaticFlow, md.GradientFlow, over={"lr": [0.02, 0.05]}, w0=[2, 0], steps=20, paths=20, rng=0
        ),
        "stability": md.stability(SAMPLED, [1.0]),
        "diagram": md.stability_diagram(SAMPLED, [[0.0], [1.0]], batches=[1, None]),
        "flatness": md.flatness(VALLEY, [1.0, 0.0], method="matrix-free", probes=4),
        "escape": md.escape(SAMPLED, [1.0], paths=64, steps=20, rng=0),
        "edge": md.edge(EDGE, md.RodFlow(EDGE), w0=[4.5, 0.1], steps=20),
        "erratic edge": md.edge(LOGISTIC, md.RodFlow(LOGISTIC), w0=[0.3], steps=600, save_every=300),
        "regime": md.regime(LOGISTIC, [0.3], 600),
        "regimes": md.regime(LOGISTIC, [[0.3], [0.4], [1.5]], 600),
        "bifurcation": md.bifurcation(LOGISTIC, "lr", [0.8, 0.9, 1.0, 1.2], w0=[0.3], steps=400),
        "doublings": md.doublings(LOGISTIC, "lr", (0.6, 0.95), w0=[0.3], count=3),
        "basins": md.basin(WILD, {x: [-3.0, 0.3, 2.0], y: [0.0, 1.0]}, 200),
        "smoothness": md.smoothness(regression, [1.0, 0.5]),
    }


@functools.cache
def shown_objects():
    """Losses, rules, maps, flows and a model."""
    held_out = md.load_model("tanh_net").loss
    quasistatic = md.QuasistaticFlow(MAP, manifold=md.Manifold(VALLEY, **CHART))
    edges = [md.RodFlow(EDGE), md.RodFlow(EDGE, order=2), md.CentralFlow(EDGE)]
    edges.append(md.SubquadraticFlow(EDGE, manifold=md.Manifold(LOGCOSH, **CHART)))
    adam = md.Map(VALLEY, md.Adam(0.1), md.GaussianNoise(0.3))
    own = md.SymbolicFlow(MAP, [-x, -y], [x, 1])
    return [
        VALLEY, WELLS, held_out, md.SGD(0.1), md.AdamW(0.1 / k), MAP, SAMPLED, EDGE, quasistatic,
        quasistatic.closed_form(), *edges, md.GradientFlow(MAP), *(md.ModifiedFlow(EDGE, n) for n in (1, 2, 3, 4)),
        md.ModifiedFlow(adam), md.QuasistaticFlow(adam), *(md.StochasticModifiedFlow(adam, n) for n in (1, 2)), own,
        md.StochasticModifiedFlow(MAP, 2), md.NoisyRodFlow(MAP), md.NoisyRodFlow(adam, slow=1),
        md.load_model("double_valley"),
    ]  # fmt: skip


@functools.cache
def noises():
    """Noises of every kind, and sums."""
    sums = [md.LabelNoise(0.1, 2), md.Minibatch(2, replace=True) + md.GaussianNoise(x) + md.LabelNoise(0.2)]
    sigmas = [0.3, 1e-5, [0.1, 0.2], [[0.1, y], [x**2, 1]], x * sp.exp(-y), sp.eye(30)]
    alone = [md.Minibatch(1), md.Minibatch(4000), md.Reshuffle(1), md.Reshuffle(8), md.LabelNoise(0.1)]
    heavy = [md.StudentNoise(3, 0.1), md.StudentNoise(0.5, [0.1, y]), md.StableNoise(1.5, 0.1), md.StableNoise(2, x)]
    signs = md.LabelNoise(0.5, kind="rademacher")
    alike = [md.GaussianNoise.like(md.Minibatch(2), s) for s in ("full", "diagonal", "isotropic")]
    alike.append(md.GaussianNoise.like(md.StudentNoise(3, [0.1, y]) + md.Minibatch(3, replace=True), "isotropic"))
    return [*map(md.GaussianNoise, sigmas), *alone, *sums, signs, *heavy, *alike, md.Noise()]


@functools.cache
def study():
    """A study that is under way; of its claims one holds, fails, is undecided, and one a paper has otherwise."""
    made = md.study("exhibit", folder="nowhere")
    made.claim("holds", 1.0, 0.01, 1, "minidyn", within=0.1)
    made.claim("fails", float("nan"), 0, (None, 2), "minidyn")
    made.claim("is undecided", 1.0, 0.1, (1, None), "minidyn")
    made.claim("is otherwise there", 1.0, 0.01, (0.9, 1.15), "Wu, Ma, E 2018, table 1", published=1.2)
    return made


@functools.cache
def rows():
    """What results consist of, an ending, and what the cache says of itself."""
    found = results()
    first, fit, law = found["comparison"].errors[0], found["scaling"].fits[0], found["comparison"].laws()[0]
    return [first, law, found["scaling"].rows[0], fit, found["stability"].conditions[0], md.Status.DIVERGED,
            md.cache.info(), found["basins"].dimension(boxes=20_000, rng=0), *study().claims]  # fmt: skip


@functools.cache
def everything():
    """All of them."""
    manifolds = [md.Manifold(VALLEY), md.Manifold(VALLEY, **CHART), md.Manifold(VALLEY, **CHART).chart]
    return [*shown_objects(), *noises(), *manifolds, *results().values(), *rows(), study()]


@functools.cache
def pages():
    """The HTML of each of them, empty where it has none."""
    return [getattr(thing, "_repr_html_", str)() for thing in everything()]
