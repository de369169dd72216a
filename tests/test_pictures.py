"""Every picture of every model: no legend names what is not drawn, nothing hides or is cut.

The artists of the figures say so: models run for a few steps with all their flows, and each kind of result is drawn.
"""

import re
import sys
import types
from dataclasses import replace
from functools import cache
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sympy as sp
from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text

import minidyn as md
from minidyn import figures
from minidyn.figures import moving, panels, scales, style
from minidyn.flows import FLOWS

MODELS = md.list_models()
EDGE = [n for n in MODELS if "rod" in md.load_model(n).spec.experiment.flows and md.load_model(n).map.noise is None]
x, y, c = sp.symbols("x y c")
WELLS = md.Loss(sp.Min(x**2, c * (x - 1) ** 2), [x], data={c: [0.1, 1.9]})
JUMPY = md.Map(WELLS, md.SGD(0.7), md.Minibatch(1))


@cache
def model(name):
    known = md.load_model(name)
    return known.with_overrides(steps=16, paths=1 if known.map.noise is None else 8, save_every=1)


@cache
def ran(name):
    """The model's comparison, or where it has no flow the run of its map."""
    m = model(name)
    if m.spec.experiment.flows:
        return m.run(progress=False, rtol=1e-4)
    run = md.simulate(m.map, m.w0, m.steps, paths=m.paths, save_every=1, observe=m.observe, rng=0)
    run.meta |= {"model": m.name}  # as the shell does
    return run


@cache
def picture(name, kind):
    m = model(name)
    if kind == "run":
        return ran(name).plot()
    if kind == "map":  # the run of the map alone
        return next(iter(ran(name).runs.values())).plot() if hasattr(ran(name), "runs") else ran(name).plot()
    if kind == "scale":
        lr = m.map.lr()
        return m.scale([lr, lr / 2], time=4 * lr, paths=8, progress=False, rtol=1e-4).plot()
    if kind == "stability":
        return replace(md.stability_diagram(m.map, m.minima(2)), model=name).plot()
    if kind == "loss":
        names = m.loss.param_names[:2]
        return m.loss.plot(panels=names, at=m.w0)
    flows = [f for f in m.flows() if hasattr(f, "amplitude")]
    return md.edge(m.map, *flows, w0=m.w0, steps=16, save_every=1, rtol=1e-4).plot()


def all_of(ax):
    return [ax, *ax.child_axes]


def drawn_points(artist):
    """What an artist draws, (N, 2) in pixels of the figure, finite, and inside its axes."""
    if isinstance(artist, Line2D):
        points = artist.get_transform().transform(np.column_stack(artist.get_data(orig=False)).astype(float))
    elif isinstance(artist, PathCollection):
        points = artist.get_offset_transform().transform(np.ma.getdata(artist.get_offsets()))
    else:
        points = np.concatenate(
            [artist.get_transform().transform(p.vertices) for p in artist.get_paths()] or [[[0, 0]]]
        )
    points = points[np.isfinite(points).all(axis=1)]
    box = artist.axes.get_window_extent()
    low, high = np.array([box.p0, box.p1]) + np.array([[-2, -2], [2, 2]])
    if isinstance(artist, PolyCollection) and height(artist) < 2.0:
        return points[:0]  # hidden by the line on it
    if isinstance(artist, Line2D) and len(points) > 1:  # a line that crosses the axes is in them
        points = np.concatenate([points[:-1] + (points[1:] - points[:-1]) * t for t in np.linspace(0, 1, 21)])
    return points[((points >= low) & (points <= high)).all(axis=1)]


def height(area):
    """How tall an area is where it is tallest, in points, counted in a picture of it alone."""
    box = area.axes.get_window_extent()
    x = np.linspace(box.x0, box.x1, 200)
    y = np.linspace(box.y0, box.y1, 400)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    tall = [p.contains_points(grid, area.get_transform()).reshape(400, 200).sum(axis=0).max() for p in area.get_paths()]
    return max(tall) * (y[1] - y[0]) * 72 / area.figure.dpi


def artists(ax):
    return [a for a in ax.get_children() if isinstance(a, (Line2D, PathCollection, PolyCollection))]


def shape_of(artist):
    """The corners of an artist's marker, whatever its size; None where it has none."""
    if isinstance(artist, PathCollection):
        path = artist.get_paths()[0]
    elif isinstance(artist, Line2D) and artist.get_marker() not in ("None", "", None):
        marker = MarkerStyle(artist.get_marker())
        path = marker.get_path().transformed(marker.get_transform())
    else:
        return None
    return tuple(np.round(path.vertices / np.abs(path.vertices).max(), 6).ravel())


def legend_texts(fig):
    return [text.get_text() for legend in fig.legends for text in legend.get_texts()]


def written(fig):
    """Every visible text with its box in pixels."""
    fig.draw_without_rendering()
    renderer, found = fig.canvas.get_renderer(), []
    for root in (a for ax in fig.axes for a in all_of(ax)):
        ticks = []
        for axis in (root.xaxis, root.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_visible()]
            ticks += [axis.label]
        own = [root.title, root._left_title, root._right_title, *[a for a in root.get_children() if type(a) is Text]]
        own += root.get_legend().get_texts() if root.get_legend() else []
        found += [t for t in dict.fromkeys([*ticks, *own]) if t.get_text() and t.get_visible()]
    found += [*fig.texts, *(text for legend in fig.legends for text in legend.get_texts())]
    return [(text, text.get_window_extent(renderer)) for text in dict.fromkeys(found)]


def check(fig):
    """The laws of every figure."""
    texts = written(fig)
    for text, box in texts:  # nothing is cut by the edge of the figure
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1, text.get_text()
    for (a, one), (b, other) in combinations(texts, 2):  # nothing lies on its neighbour
        over = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(over) <= 1.5, (a.get_text(), b.get_text())
    in_sight = {a.get_label() for ax in fig.axes for a in artists(ax) if len(drawn_points(a))}
    bars = {container.get_label() for ax in fig.axes for container in ax.containers}
    labels = legend_texts(fig)
    assert set(labels) <= in_sight | bars and len(labels) == len(set(labels))  # no entry without data, none twice
    drawn = {a.get_label() for ax in fig.axes for a in artists(ax) if not isinstance(a, PolyCollection)} & in_sight
    assert {label for label in drawn if label[0] != "_"} <= set(labels)  # nor a line or a point without its entry
    for legend in fig.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(ax.get_window_extent()) for ax in fig.axes)  # no legend on data
    for ax in fig.axes:
        legend = ax.get_legend()
        assert legend is None or legend.get_window_extent().y0 >= ax.get_window_extent().y1


KINDS = [(name, kind) for name in MODELS for kind in ("run", "map", "stability", "loss")]
KINDS += [(name, "scale") for name in MODELS if md.load_model(name).spec.experiment.flows]
KINDS += [(name, "edge") for name in EDGE]
NO_MINIMUM = {
    "relu_net",
    "tanh_net",
    "quartic",
    "softmax_net",
    "deep_linear_net",
}  # none is soon found, from two starts


@pytest.mark.parametrize(("name", "kind"), [k for k in KINDS if k[1] != "stability" or k[0] not in NO_MINIMUM])
def test_every_picture_of_every_model(name, kind):
    """No legend entry without data, no line or point without its entry; no legend on data, no text cut by the edge or
    lying on another one."""
    check(picture(name, kind))


def test_titles_name_the_model_and_what_ran():
    """The head of a run says the model and its rule, that of a flow's run the flow and the rule, never "Map"."""
    for name in MODELS:
        rule = model(name).map.rule.name
        for kind in ("run", "map", "stability"):
            if kind == "stability" and name in NO_MINIMUM:
                continue
            title = picture(name, kind).texts[0].get_text()
            assert rule in title and "Map" not in title
            assert title.startswith(f"{name}: ")
    flows = {run.meta["flow"]: run for run in list(ran("quartic").runs.values())[1:]}
    assert flows["rod"].plot().texts[0].get_text() == "quartic: rod flow of GD"


def test_without_a_model_titles_name_the_loss(tmp_path):
    """Every kind of picture says what its loss is where no model has a name: the loss itself, or its parameters where
    it is long; and the line below does not say it again."""
    a, b = sp.symbols("a b")
    short, long = (a * b - 1) ** 2 / 2, sum((a * n - b**2) ** 2 for n in range(1, 9))
    for loss, subject in ((short, "(a·b − 1)²/2"), (long, "a loss of a, b")):
        noisy = md.Map(md.Loss(loss, [a, b]), md.SGD(0.01), md.GaussianNoise(0.1))
        gd = md.Map(noisy.loss, md.GD(0.01))
        result = md.compare(noisy, md.GradientFlow(noisy), w0=[1.1, 1.0], steps=4, paths=5, rng=0, progress=False)
        heads = [
            md.simulate(noisy, [1.1, 1.0], 4, rng=0).plot(),
            result.plot(),
            result.runs["gradient flow"].plot(),
            md.stability_diagram(noisy, [[1.0, 1.0]] if loss is short else [[0.0, 0.0]]).plot(),
            md.scaling_study(gd, md.GradientFlow, lrs=[0.01, 0.005], w0=[1.1, 1.0], time=0.02).plot(),
            md.edge(gd, md.RodFlow(gd), w0=[1.1, 1.0], steps=4).plot(),
            md.escape(noisy, [1.0, 1.0] if loss is short else [0.0, 0.0], paths=5, steps=8, rng=0).plot(),
        ]
        for fig in heads:
            title, below = fig.texts[0].get_text(), fig.texts[1].get_text()
            assert " ".join(title.split()).startswith(f"{subject}: ") and subject not in below
        result.save(tmp_path / "kept.h5")
        assert md.load(tmp_path / "kept.h5").plot().texts[0].get_text() == heads[1].texts[0].get_text()


def test_a_flow_looks_the_same_everywhere():
    """In comparisons, runs, scaling studies and at the edge each flow of each model has the colour and marker that it
    declares, and the map its own; what the legend shows is what is drawn."""
    seen = set()
    for name in MODELS:
        for kind in ("run", "scale", "edge"):
            if (name, kind) not in KINDS or not hasattr(ran(name), "runs"):
                continue
            fig = picture(name, kind)
            for label, run in ran(name).runs.items():
                key = run.meta.get("flow", "map")
                mine = [a for ax in fig.axes for a in artists(ax) if a.get_label() == label]
                legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
                handles = [h for legend in legends for h in legend.legend_handles]
                mine += [h for h in handles if re.sub(r": (order|no order) .*", "", h.get_label()) == label]
                look = FLOWS[key].look if key in FLOWS else style.MAP
                colours = {to_hex(a.get_color() if isinstance(a, Line2D) else a.get_facecolor()[0]) for a in mine}
                assert colours <= {look.colour}, (name, kind, label)
                shapes = {shape_of(a) for a in mine} - {None}
                assert shapes <= {shape_of(Line2D([], [], marker=look.marker))}, (name, kind, label)
                seen |= {(kind, key)} if shapes else set()
    assert {("run", "map"), ("run", "rod"), ("scale", "rod"), ("edge", "rod"), ("run", "quasistatic")} <= seen


def test_what_has_no_noise_has_no_bands():
    """A comparison without noise shows no bands and no errors, in its panels and in its legend; one with noise does."""
    for name in MODELS:
        if not hasattr(ran(name), "runs"):
            continue
        words, quiet = legend_texts(picture(name, "run")), model(name).map.noise is None
        assert any("5–95 %" in word for word in words) != quiet
        assert any("standard errors" in word for word in words) != quiet


# -- where something happens ---------------------------------------------------------------------------


def test_an_oscillation_shows_both_phases():
    """Default saves of a map without noise are an odd number of steps apart; values that alternate are drawn as two
    smooth lines, along even and along odd steps, and the legend says so."""
    gd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.05))
    for steps in (7, 400, 800, 1000, 1234):
        result = md.compare(gd, md.GradientFlow(gd), w0=[7.6, 1.0], steps=steps, paths=1, progress=False)
        assert {int(k) % 2 for k in result.steps[:-1]} == {0, 1}
        assert {int(k) % 2 for k in md.simulate(gd, [7.6, 1.0], steps).steps[:-1]} == {0, 1}
    fig = ran("scalar_deep").plot(panels="d")
    assert "GD between even and odd steps" in legend_texts(fig)
    d = ran("scalar_deep").quantities["d"]["GD, iterates"][0]
    lines = [line.get_ydata() for line in fig.axes[0].lines]
    for phase in (d[::2], d[1::2]):
        assert any(len(line) == len(phase) and np.array_equal(line, phase) for line in lines)


@pytest.mark.parametrize("seed", range(8))
def test_only_what_alternates_is_drawn_in_two(seed):
    """Of random smooth curves none is taken apart; with jumps between even and odd steps each is; noise is not."""
    rng = np.random.default_rng(seed)
    k = np.arange(int(rng.integers(20, 130))) * int(rng.choice([1, 3, 5]))
    smooth = np.polyval(rng.standard_normal(4), k / k[-1])
    jumps = np.ptp(smooth) * rng.uniform(0.5, 2) * (1 + k / k[-1]) * (-1.0) ** k
    assert not panels.alternates(k, smooth) and panels.alternates(k, smooth + jumps)
    assert not panels.alternates(k, rng.standard_normal(len(k)))
    assert not panels.alternates(k, smooth + 1e-3 * jumps, least=0.05 * np.ptp(smooth))


def test_the_clock_follows_the_change():
    """Steps are logarithmic where all that moves has moved in their first twentieth, and only there."""
    k = np.arange(0, 1001, 5)
    early, late = np.exp(-k / 8.0), np.exp(-k / 300.0)
    assert scales.Clock.of(k, k, [early, 2 * early]).log
    assert not scales.Clock.of(k, k, [early, late]).log and not scales.Clock.of(k, k, [late]).log
    assert not scales.Clock.of(k, k, [np.ones(len(k))]).log
    assert not scales.Clock.of(k, k, [late + 0.2 * (-1.0) ** np.arange(len(k))]).log  # what alternates is no change
    run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.2)), [1.0], 1000)
    assert run.plot().axes[0].get_xscale() == "symlog" and "logarithmic" in run.plot().axes[0].get_xlabel()


def test_the_clock_ends_with_the_paths():
    """Where all paths of all that is drawn have ended, the axis of steps ends, in runs, comparisons and at the edge;
    where one is left it goes to the last step."""
    noisy = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.1))
    for bound, end in ((0.5, None), (-9.0, 400)):
        run = md.simulate(noisy, [1.0, 1.0], 400, paths=9, rng=0, stop=lambda w, bound=bound: w[:, 1] < bound)
        end = end or run.ended.max()
        assert end < 40 or bound < 0
        for ax in run.plot().axes:
            assert ax.get_xlim() == (0, end)
            ticks = [t for t in ax.get_xticks() if 0 <= t <= end]
            assert len(ticks) > 2 and ax.get_xscale() == "linear"
    gd = md.Map(md.Loss(-(x**4) / 4, [x]), md.GD(0.1))
    both = md.compare(gd, md.GradientFlow(gd), w0=[0.5], steps=600, progress=False)
    last = max(int(run.ended.max()) for run in both.runs.values())
    assert last < 100 and all(ax.get_xlim() == (0, last) for ax in both.plot().axes)
    seen = md.edge(gd, md.RodFlow(gd), w0=[0.5], steps=400)
    assert all(ax.get_xlim()[1] < 100 for ax in seen.plot().axes)


@pytest.mark.parametrize("name", MODELS)
def test_default_experiments_move_within_their_picture(name):
    """The first twentieth of a default experiment does not hold all its change, and it saves every step at the edge."""
    own = md.load_model(name)
    e = own.spec.experiment
    assert e.observe
    if own.map.noise is None:
        assert e.save_every == 1
        run = md.simulate(own.map, own.w0, own.steps, save_every=1, observe=own.observe)
        clock = scales.Clock.of(run.steps, run.time, [run.quantity(q)[0] for q in [*run.names, *run.observables]])
        assert not clock.log and not run.meta.get("between_saves")


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_an_outlier_does_not_rule_the_axis(seed, log):
    """Limits hold the map and flows near it; a flow that goes far away leaves the picture, and a word says so."""
    rng = np.random.default_rng(seed)
    base = np.cumsum(rng.standard_normal(50))
    base = np.exp(base / 3) if log else base
    size = np.ptp(np.log10(base)) if log else np.ptp(base)
    away = base * 10 ** (20 * size * np.linspace(0, 1, 50)) if log else base + 20 * size * np.linspace(0, 1, 50)
    fig, ax = plt.subplots()
    words = scales.set_limits(ax, [base], {"near flow": [base * 1.01], "far flow": [away]}, log)
    plt.close(fig)
    low, high = ax.get_ylim()
    assert low < base.min() and base.max() < high < 3 * base.max() + size
    assert len(words) == 1 and words[0].startswith("far flow (to ")
    fig = ran_quartic().plot(panels=["x"])
    assert "gradient flow" in fig.axes[0].get_title(loc="right") and "leave" in fig.axes[0].get_title(loc="right")
    assert fig.axes[0].get_ylim()[1] < 10.5


@cache
def ran_quartic():
    """A model whose gradient flow leaves: for as long as its picture shows."""
    m = md.load_model("quartic")
    flows = [md.GradientFlow(m.map), md.RodFlow(m.map)]
    return md.compare(m.map, *flows, w0=m.w0, steps=600, paths=1, observe="sharpness", progress=False)


# -- one way to draw everything ------------------------------------------------------------------------


@cache
def thing(kind):
    gd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.GD(0.1))
    made = {
        "comparison": lambda: ran("valley"),
        "run": lambda: ran("valley").runs["SGD"],
        "study": lambda: md.scaling_study(gd, md.GradientFlow, lrs=[0.1, 0.05], w0=[1, 0.5], time=0.5, progress=False),
        "diagram": lambda: md.stability_diagram(JUMPY, [[0.0], [1.0]]),
        "edge": lambda: md.edge(gd, md.RodFlow(gd), w0=[4.5, 0.1], steps=20),
        "escape": lambda: md.escape(JUMPY, [1.0], paths=50, steps=40, rng=0),
        "bifurcation": lambda: md.bifurcation(gd, "lr", np.linspace(0.1, 1.5, 40), w0=[1.0, 0.5], steps=200),
        "basins": lambda: md.basin(gd, {x: np.linspace(-9, 9, 30), y: np.linspace(-2, 2, 30)}, 300),
        "loss": lambda: WELLS,
        "slice": lambda: gd.loss,
    }
    return made[kind]()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("comparison", "x"), ("run", "x"), ("study", "y"), ("diagram", "lr 0.7, batch 1"), ("edge", "amplitude"),
     ("escape", "distance"), ("bifurcation", "exponent"), ("basins", "basins"), ("loss", "x"), ("slice", "x y")],
)  # fmt: skip
def test_plot_takes_panels_size_and_axes(kind, name, tmp_path):
    """Every result draws the panels that are named, in the size that is wanted, or one panel in somebody's axes, with
    its legend off the data; and says what there is where a name is wrong."""
    result = thing(kind)
    check(result.plot())
    fig = result.plot(tmp_path / "a.pdf", panels=name, size=(6, 4))
    assert tuple(fig.get_size_inches()) == (6, 4) and (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    check(fig)
    fig, ax = plt.subplots(figsize=(5, 4))
    assert result.plot(panels=name, ax=ax) is fig and ax.has_data()
    fig.draw_without_rendering()
    if (legend := ax.get_legend()) is not None:
        box = legend.get_window_extent()
        on = [a for a in artists(ax) if any(box.contains(*p) for p in drawn_points(a))]
        assert not [a for a in on if not isinstance(a, PolyCollection) or a.get_alpha() is not None]
    plt.close(fig)
    with pytest.raises(md.InputError, match="nonsense"):
        result.plot(panels="nonsense")
    with pytest.raises(md.InputError, match=r"size= takes width and height in inches, such as \(8, 6\), not "):
        result.plot(size=7)
    with pytest.raises(md.InputError, match="too small for these panels; give a larger size="):
        result.plot(size=(1, 1))
    with pytest.raises(md.InputError, match="ax= takes matplotlib axes"):
        result.plot(panels=name, ax=3)


def test_help_names_the_options():
    """`help(result.plot)` says what path, panels, size and ax are."""
    for kind in (md.Comparison, md.Run, md.ScalingStudy, md.Loss):
        words = kind.plot.__doc__
        assert all(f"{option} : " in words for option in ("path", "panels", "size", "ax"))


def test_a_loss_of_many_parameters_is_a_slice():
    """Of more than two parameters two are named, and the slice goes through `at`; what is drawn is the loss there."""
    a = md.vector("a", 3)
    k = sp.Symbol("k", integer=True)
    loss = md.Loss(sp.Sum((k + 1) * a[k] ** 2, (k, 0, 2)), [a])
    with pytest.raises(
        md.InputError,
        match=r"a loss of 3 parameters is drawn as a slice: name two of them, such as "
        r"panels=\('a\[0\]', 'a\[1\]'\), and in at= the point",
    ):
        loss.plot()
    fig = loss.plot(panels="a[2]", at=[1.0, 2.0, 0.0], window=1)
    line = next(line for line in fig.axes[0].lines if len(line.get_xdata()) > 9)
    np.testing.assert_allclose(line.get_ydata(), 1 + 8 + 3 * line.get_xdata() ** 2)
    with pytest.raises(md.InputError, match="the loss has no parameter 'b'; it has"):
        loss.plot(panels=["a[0]", "b"])
    with pytest.raises(md.InputError, match="window= is how far"):
        loss.plot(panels="a[0]", window=-1)


def test_films(tmp_path, monkeypatch):
    """A run and a comparison move: as many frames as saves, on the landscape or over the steps; mp4 asks for ffmpeg."""
    from PIL import Image

    for name, made in (("a.gif", ran("valley")), ("b", ran("scalar_deep")), ("c.gif", ran("quartic").runs["GD"])):
        target = made.animate(tmp_path / name, seconds=2)
        with Image.open(target) as film:
            assert target.suffix == ".gif" and film.n_frames > 10 and film.info["duration"] > 0
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    with pytest.raises(
        md.InputError, match=r"an \.mp4 needs the program ffmpeg, which is not installed here; write a .gif"
    ):
        ran("valley").animate(tmp_path / "a.mp4")
    with pytest.raises(md.InputError, match=r"a film cannot be written as \.avi; use one of gif, mp4"):
        ran("valley").animate(tmp_path / "a.avi")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for ffmpeg is a shell's script")
def test_a_film_by_ffmpeg(tmp_path, monkeypatch):
    """An .mp4 is what the program ffmpeg makes of every frame; where it fails a sentence says so and nothing is left.
    A film of quantities has a legend that names each flow."""
    program, named = tmp_path / "ffmpeg", []
    compose = moving.compose
    monkeypatch.setattr(moving, "compose", lambda *a, **o: named.append(compose(*a, **o)) or named[-1])
    monkeypatch.setitem(matplotlib.rcParams, "animation.ffmpeg_path", str(program))
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\n')
    program.chmod(0o755)
    result = ran("scalar_deep")
    target = result.animate(tmp_path / "a.mp4", seconds=2)
    width, height = named[0].canvas.get_width_height()
    shown = min(120, len(result.runs[result.map_label].steps))
    assert int(target.read_text()) % shown == 0 and int(target.read_text()) // shown // 4 >= (width - 1) * (height - 1)
    legends = [
        text.get_text()
        for legend in [*named[0].legends, *(ax.get_legend() for ax in named[0].axes)]
        if legend
        for text in legend.get_texts()
    ]
    assert all(any(text.startswith(label) for text in legends) for label in result.runs)
    program.write_text("#!/bin/sh\ncat > /dev/null\nexit 3\n")
    with pytest.raises(
        md.ArchiveError, match=r"ffmpeg could not make the film `.*b\.mp4`; write a \.gif, or mend ffmpeg"
    ):
        result.animate(tmp_path / "b.mp4", seconds=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "ffmpeg"]


@pytest.fixture
def windows(monkeypatch):
    """A backend of windows that are closed at once; what was shown, and what was open while its loop ran."""
    seen = types.SimpleNamespace(shown=[], open=[])

    class Manager(FigureManagerBase):
        def show(self):
            seen.shown.append(self.canvas.figure)

        @classmethod
        def start_main_loop(cls):
            seen.open.append([manager.canvas.figure for manager in Gcf.get_all_fig_managers()])
            for number in plt.get_fignums():
                Gcf.destroy(number)

    class Canvas(FigureCanvasAgg):
        manager_class = Manager

    monkeypatch.setitem(sys.modules, "windows_of_a_test", types.SimpleNamespace(FigureCanvas=Canvas))
    before = plt.get_backend()
    plt.switch_backend("module://windows_of_a_test")
    yield seen
    plt.switch_backend(before)


def test_show_opens_a_window_and_waits(windows, tmp_path, capsys):
    """In a script `plot().show()` opens a window with the picture, waits until that is closed, leaves no figure of
    pyplot behind, and the picture can be saved and shown again; figures of somebody else's are shown beside it."""
    first, second = ran("valley").plot(), ran("valley").plot(panels="x")
    first.show()
    assert windows.shown == [first] and windows.open == [[first]] and plt.get_fignums() == []
    first.savefig(tmp_path / "a.png")
    theirs = plt.figure()
    second.show()
    assert windows.open[1:] == [[theirs, second]] and plt.get_fignums() == []
    first.show()
    assert windows.open[2:] == [[first]] and first._repr_png_().startswith(b"\x89PNG")
    assert capsys.readouterr() == ("", "")


def test_show_without_a_window_says_what_to_do(capsys):
    """In a script without a display `plot().show()` is one sentence; no figure of pyplot is left behind."""
    before = plt.get_fignums()
    ran("valley").plot().show()
    assert 'no window can be opened here (agg); save the picture: plot("name.png")' in capsys.readouterr().err.lower()
    assert plt.get_fignums() == before and figures.Picture.show.__doc__
