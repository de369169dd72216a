"""Figures: what is drawn is what was computed, whole files or none, and nothing fails on paths that ended."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import sympy as sp
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

import minidyn as md
from minidyn import figures
from minidyn.figures import canvas, landscape, panels, scales, style
from minidyn.flows import FLOWS
from minidyn.flows.look import PALETTE
from minidyn.simulate.run import Run


@pytest.fixture(scope="module")
def model():
    return md.load_model("valley")


@pytest.fixture(scope="module")
def result(model):
    return model.run(steps=40, paths=64, save_every=2)


def with_runs(result, **changes):
    """A copy of a comparison whose arrays can be changed."""
    runs = {label: replace(run, w=run.w.copy()) for label, run in result.runs.items()}
    quantities = {name: {k: v.copy() for k, v in by.items()} for name, by in result.quantities.items()}
    return replace(result, **({"runs": runs, "quantities": quantities, "loss": None} | changes))


def synthetic(values, time=None, **changes):
    """A run with one observable `q` of shape (paths, T)."""
    values = np.atleast_2d(values)
    paths, count = values.shape
    steps = np.arange(count)
    time = 0.1 * steps if time is None else time
    status = np.zeros(paths, np.int8)
    ended = np.full(paths, count - 1)
    return replace(Run(steps, time, None, {"q": values}, status, ended, ["x"], {"system": "Map(q)"}), **changes)


def titles(fig):
    return [ax.get_title(loc="left") for ax in fig.axes]


def drawn(ax, values):
    """Whether one of the lines of a panel has these ordinates."""
    lines = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == len(values)]
    return any(np.allclose(line, values, rtol=1e-12, atol=1e-14) for line in lines)


# -- comparisons ---------------------------------------------------------------------------------------


def test_landscape_shows_both_ensembles_where_they_ended(result, model):
    """The points on the landscape are the last iterates of the map and of the flow."""
    ax = figures.plot_comparison(result, loss=model.loss).axes[0]
    clouds = [np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
    for run in result.runs.values():
        assert any(c.shape == (64, 2) and np.array_equal(c, run.w[:, -1]) for c in clouds)


def test_every_moving_quantity_has_its_means_and_their_difference(result, model):
    """Each quantity has a panel with both means, and below it one with flow mean minus map mean."""
    fig = figures.plot_comparison(result, loss=model.loss)
    for name, title in (("x", "$x$"), ("log(1 + x**2)", "log(1 + x")):
        place = next(i for i, t in enumerate(titles(fig)) if t.startswith(title))
        a, b = result.quantities[name].values()
        assert drawn(fig.axes[place], a.mean(axis=0)) and drawn(fig.axes[place], b.mean(axis=0))
        assert drawn(fig.axes[place + 1], b.mean(axis=0) - a.mean(axis=0))
        low, high = np.quantile(b, [0.05, 0.95], axis=0)
        assert drawn(fig.axes[place], low) and drawn(fig.axes[place], high)


def test_difference_panel_agrees_with_the_table(result):
    """Difference and standard error in the picture are those of the table, for paired noise."""
    row = result.errors[-1]
    a, b = result.quantities[row.quantity].values()
    gap, error = panels.difference_of(a, b, coupled=True)
    at = list(result.steps).index(row.step)
    assert gap[at] == pytest.approx(row.difference) and error[at] == pytest.approx(row.standard_error)


def test_minima_are_traced_all_around_a_closed_valley():
    """The traced minima of a ring go once around it without a gap and lie on it."""
    x, y = sp.symbols("x y")
    ring = md.Loss((x**2 / 4 + y**2 - 1) ** 2, [x, y])
    (curve,) = landscape.minima_of(ring, np.array([-3.0, -3.0]), np.array([3.0, 3.0]))
    assert np.abs(curve[:, 0] ** 2 / 4 + curve[:, 1] ** 2 - 1).max() < 1e-8
    angles = np.sort(np.arctan2(2 * curve[:, 1], curve[:, 0]))
    assert np.diff([*angles, angles[0] + 2 * np.pi]).max() < 0.15


@pytest.mark.parametrize("waves", [1, 3, 12])
def test_minima_are_traced_through_every_bend(waves):
    """A graph of minima, however it bends, is one curve that goes through the window without a gap."""
    x, y = sp.symbols("x y")
    graph = md.Loss((y - sp.sin(waves * x)) ** 2 * (1 + x**2), [x, y])
    (curve,) = landscape.minima_of(graph, np.array([-2.0, -1.5]), np.array([3.0, 2.0]))
    assert np.abs(curve[:, 1] - np.sin(waves * curve[:, 0])).max() < 1e-8
    assert curve[:, 0].min() <= -2.0 and curve[:, 0].max() >= 3.0
    assert (np.linalg.norm(np.diff(curve, axis=0) / [5.0, 3.5], axis=1) < 0.012).all()


@pytest.mark.parametrize("seed", range(12))
def test_means_and_bands_are_of_the_paths_in_the_picture(seed):
    """Whatever paths have left at whatever times, a mean and a quantile are those of the others, to the last bit."""
    rng = np.random.default_rng(seed)
    paths, count = (int(n) for n in rng.integers(1, 130, 2))
    values = rng.standard_normal((paths, count)) * 10.0 ** rng.integers(-3, 12)
    values[rng.random(values.shape) < rng.choice([0.0, 0.01, 0.9])] = rng.choice([np.nan, np.inf, -1e20])
    left = [v[np.abs(v) < style.HUGE] for v in np.asfortranarray(values).T]
    run = md.Run(np.arange(count), np.arange(count), None, {"q": values}, None, None, [], {})
    mean, edges, _ = panels.spread_of(run, "q")
    np.testing.assert_array_equal(mean, [v.mean() if len(v) else np.nan for v in left])
    for q, edge in edges.items():
        np.testing.assert_array_equal(edge, [np.quantile(v, q) if len(v) else np.nan for v in left])


def test_without_a_loss_the_ensembles_are_still_drawn(result):
    """A comparison read from a file has no loss: no level sets, no minima, the same ensembles."""
    bare = figures.plot_comparison(with_runs(result))
    assert "minima" not in [t.get_text() for t in bare.legends[0].get_texts()]
    assert sum(isinstance(c, PathCollection) for c in bare.axes[0].collections) == 2


def test_title_says_the_map_and_the_paths(result, model):
    """The head of the figure names the model, the rule, its noise, the paths and the steps."""
    text = " ".join(t.get_text() for t in figures.plot_comparison(result, loss=model.loss).texts)
    for part in ("valley", "SGD(lr=0.05)", "GaussianNoise", "64 paths", "40 steps", "same noise for both"):
        assert part in text


def test_paths_that_ended_do_not_disturb_the_picture(result, model, tmp_path):
    """With paths that are NaN from some step on, even all of them, the figure is drawn and says how they ended."""
    broken = with_runs(result)
    label, run = list(broken.runs.items())[1]
    run.w[:10, 5:] = np.nan
    run.status = run.status.copy()
    run.status[:10] = md.Status.LEFT_MANIFOLD
    broken.quantities["x"][label][:10, 5:] = np.nan
    broken.quantities["log(1 + x**2)"][label][:, 5:] = np.nan
    fig = figures.plot_comparison(broken, loss=model.loss, path=tmp_path / "broken.png")
    panel = fig.axes[titles(fig).index("$x$")]
    assert drawn(panel, np.nanmean(broken.quantities["x"][label], axis=0))
    assert "10 left the manifold" in " ".join(t.get_text() for t in fig.texts)


def test_nothing_finite_is_drawn_as_an_empty_picture(result, model, tmp_path):
    """A comparison of which no path survived the first step gives a figure without a curve in its panels."""
    broken = with_runs(result)
    for run in broken.runs.values():
        run.w[:] = np.nan
    for by_label in broken.quantities.values():
        for values in by_label.values():
            values[:] = np.nan
    fig = figures.plot_comparison(broken, loss=model.loss, path=tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
    curves = [line.get_ydata() for ax in fig.axes[1:] for line in ax.lines if len(line.get_ydata()) > 2]
    assert not any(np.isfinite(curve).any() for curve in curves)


def test_diverging_values_are_left_out(result, model, tmp_path):
    """Values on their way to infinity neither raise nor stretch the axes."""
    broken = with_runs(result)
    run = broken.runs[broken.map_label]
    run.w[0, -3:] = 1e300
    broken.quantities["x"][broken.map_label][:, -3:] = 1e300
    fig = figures.plot_comparison(broken, loss=model.loss, path=tmp_path / "steep.png")
    assert all(abs(np.array(ax.get_ylim())).max() < 10 for ax in fig.axes)


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("plane", [True, False])
def test_any_number_of_quantities_finds_its_place(result, count, plane):
    """One to six quantities get two panels each, more than six are cut; with two parameters beside a landscape."""
    values = result.quantities["x"]
    few = with_runs(result)
    few.quantities = {f"q{i}": values for i in range(count)}
    if not plane:
        few.runs = {label: replace(run, w=None) for label, run in few.runs.items()}
    fig = figures.plot_comparison(few)
    assert len(fig.axes) == 2 * min(count, 6) + plane


# -- runs ----------------------------------------------------------------------------------------------


def test_run_shows_parameters_and_observables(model):
    """A run of a map shows each parameter and observable; kept as moments it shows the same means."""
    options = {"w0": [2.0, 0.0], "steps": 40, "paths": 64, "observe": "sharpness", "rng": 0}
    run = md.simulate(model.map, **options)
    fig = figures.plot_run(run)
    assert titles(fig) == ["$x$", "$y$", "sharpness"]
    assert drawn(fig.axes[2], run.observables["sharpness"].mean(axis=0))
    moments = figures.plot_run(md.simulate(model.map, keep="moments", **options))
    assert titles(moments) == titles(fig)
    assert drawn(moments.axes[2], run.observables["sharpness"].mean(axis=0))


def test_decay_over_decades_is_shown_on_a_logarithmic_scale():
    """A positive quantity that falls over decades gets a logarithmic axis, one with a zero or a sign does not."""
    fall = np.exp(-np.arange(20.0))
    assert figures.plot_run(synthetic(fall)).axes[0].get_yscale() == "log"
    assert figures.plot_run(synthetic(fall - 0.5)).axes[0].get_yscale() == "linear"
    assert figures.plot_run(synthetic(1 + fall)).axes[0].get_yscale() == "linear"


def test_time_of_a_schedule_has_its_own_axis():
    """Where t is a multiple of k the label says which; where it is not, a second axis shows t."""
    values = np.arange(30.0)
    assert "0.1" in figures.plot_run(synthetic(values)).axes[0].get_xlabel()
    fig = figures.plot_run(synthetic(values, time=np.sqrt(np.arange(30.0))))
    (above,) = [a for a in fig.axes[0].child_axes]
    fig.canvas.draw()
    assert above.get_xlabel() == "time $t$"
    assert above.get_xlim() == pytest.approx((0.0, np.sqrt(29.0)))


def test_unknown_quantity_is_refused():
    """Asking for a quantity that the run does not hold names what it holds."""
    with pytest.raises(md.InputError, match="the run holds no 'speed'"):
        figures.plot_run(synthetic([1.0, 2.0]), quantities=["speed"])
    with pytest.raises(md.InputError, match="nothing to draw"):
        figures.plot_run(synthetic([1.0, 2.0], observables={}))


# -- words and colours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x", "$x$"), ("a[3]", "$a_{3}$"), ("W[1,2]", "$W_{1,2}$"), ("x_{1}", "$x_{1}$"), ("theta", r"$\theta$"),
        ("a - b", "$a - b$"), ("Abs(a) + 2*b**2", "|a| + 2·b²"), ("$cost$", r"\$cost\$"),
        ("sharpness", "sharpness"),
    ],
)  # fmt: skip
def test_names_are_set_as_in_a_paper(name, shown):
    """Letters, indices and Greek become mathematics; what is not surely mathematics stays text."""
    assert style.pretty(name) == shown


def test_map_and_flows_differ_in_grey():
    """In a grey print the map's colour is far from each flow's (a quarter of lightness); no two flows look alike."""

    def lightness(look):
        return np.dot(to_rgb(look.colour), [0.299, 0.587, 0.114])

    assert all(abs(lightness(look) - lightness(style.MAP)) > 0.25 for look in PALETTE)
    for part in ("colour", "dash", "marker"):  # as many as there are flows in a model file
        assert len({getattr(look, part) for look in PALETTE}) == len(PALETTE) == 8


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    """CIELAB (D65) of linear rgb."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


SEEN_BY = {  # Machado, Oliveira, Fernandes (2009), full severity, on linear rgb
    "all": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def test_lines_stand_out_from_white():
    """Every colour in which a line is drawn has a contrast of 3:1 or more to white (WCAG 2.1, 1.4.11)."""
    colours = [look.colour for look in (*PALETTE, *(look for look, _ in style.READINGS.values()))] + [
        style.MINIMA,
        style.GREY,
    ]
    assert min(1.05 / (np.dot(linear(c), [0.2126, 0.7152, 0.0722]) + 0.05) for c in colours) >= 3


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_colours_are_told_apart(eyes):
    """Whoever looks: the map as each flow reads it and the flows of the library's models lie 13 or more apart in
    CIELAB, all that there are 5 or more, and whatever is closer than 20 has another dash and another marker; the map at
    mid-points and on the minima differ by their dashes."""
    readings = [look for look, _ in style.READINGS.values()]
    assert len({(look.colour, str(look.dash)) for look in readings}) == 3
    seen = {look: cielab(SEEN_BY[eyes] @ linear(look.colour)) for look in (*readings, *PALETTE)}
    library = ("gradient", "central", "subquadratic", "rod", "noisy-rod", "quasistatic")
    shipped = {*readings, *(FLOWS[key].look for key in library)}
    for a, b in combinations(seen, 2):
        if {a, b} <= {*readings}:
            continue
        apart = np.linalg.norm(seen[a] - seen[b])
        assert apart > (13 if {a, b} <= shipped else 5)
        assert apart > 20 or (a.dash != b.dash and a.marker != b.marker)


@pytest.mark.parametrize("seed", range(20))
def test_a_flow_has_the_look_it_declares_in_any_company(seed):
    """Beside whatever flows, in whatever order, a flow has its own look, and up to eight flows all look different."""
    rng = np.random.default_rng(seed)
    known = [*FLOWS, "", "", "", "a flow of somebody's own"]
    keys = {f"flow {i}": known[j] for i, j in enumerate(rng.permutation(len(known))[: rng.integers(1, 9)])}
    looks = style.looks_of(keys)
    assert list(looks) == list(keys) and len(set(looks.values())) == len(looks)
    assert all(looks[label] == FLOWS[key].look for label, key in keys.items() if key in FLOWS)
    again = style.looks_of({label: "rod" for label in map(str, range(5))})
    assert again["0"] == FLOWS["rod"].look and len(set(again.values())) == 5


def test_a_flow_is_drawn_alike_in_every_figure(tmp_path):
    """A comparison, a run and a scaling study draw a flow in the colour that it declares, from a file too."""
    x = sp.Symbol("x")
    gd = md.Map(md.Loss(x**4 / 4 + x**2 / 2, [x]), md.GD(0.1))
    result = md.compare(gd, md.ModifiedFlow(gd), md.GradientFlow(gd), w0=[1.0], steps=8, progress=False)
    study = md.scaling_study(gd, md.ModifiedFlow, md.GradientFlow, lrs=[0.1, 0.05], w0=[1.0], time=0.4, progress=False)
    for made in (result, result.runs["gradient flow"], study):
        made.save(tmp_path / "made.h5")
        for shown in (made, md.load(tmp_path / "made.h5")):
            colours = {line.get_color() for ax in shown.plot().axes for line in ax.lines}
            assert md.GradientFlow.look.colour in colours
            assert (md.ModifiedFlow.look.colour in colours) == (made is not result.runs["gradient flow"])


@pytest.mark.parametrize("seed", range(6))
def test_a_legend_stays_inside(seed):
    """Whatever the number and the length of its labels, no entry of a legend lies beyond the figure."""
    rng = np.random.default_rng(seed)
    text = "stochastic modified equation, order 1, in a WIDE hand"
    labels = [text[-int(n) :] for n in rng.integers(3, len(text), 9)]
    with rc_context(style.STYLE):
        fig = canvas.new_figure(float(rng.uniform(6.4, 12.0)), 6.0)
        style.draw_legend(fig, [Line2D([], [], label=label) for label in labels])
        FigureCanvasAgg(fig).draw()
    box = fig.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= fig.bbox.width


# -- files and notebooks -------------------------------------------------------------------------------


def test_figure_is_written_in_the_format_of_its_name(tmp_path):
    """The extension names the format, PNG where there is none; missing folders are made, nothing else is left."""
    run = synthetic([1.0, 2.0])
    for name, signature in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("lr0.05", b"\x89PNG")):
        figures.plot_run(run, path=tmp_path / "new" / name)
        written = tmp_path / "new" / (name if name != "lr0.05" else "lr0.05.png")
        assert written.read_bytes().startswith(signature)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.pdf", "a.png", "lr0.05.png"]


def test_unwritable_figure_is_one_sentence(tmp_path):
    """Where a figure cannot be written the error says so, and nothing is left behind."""
    (tmp_path / "file").write_text("")
    with pytest.raises(md.ArchiveError, match=r"^Cannot save `.*a\.png`: .*; choose another path\.$"):
        figures.plot_run(synthetic([1.0, 2.0]), path=tmp_path / "file" / "a.png")
    with pytest.raises(md.InputError, match=r"^a figure cannot be written as \.xyz; use one of .*png"):
        figures.plot_run(synthetic([1.0, 2.0]), path=tmp_path / "a.xyz")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_notebooks_show_figures():
    """A figure knows how to show itself in Jupyter, pyplot or not."""
    assert figures.plot_run(synthetic([1.0, 2.0]))._repr_png_().startswith(b"\x89PNG")


def test_figures_leave_no_global_state():
    """Drawing needs no pyplot, and leaves matplotlib's settings as they were."""
    program = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); import minidyn.figures as f, numpy as np;"
        "from minidyn.simulate.run import Run; z = np.zeros(1, int);"
        "f.plot_run(Run(np.arange(2), np.arange(2.), None, {'q': np.ones((1, 2))}, z, z, ['x'], {}));"
        "assert 'matplotlib.pyplot' not in sys.modules; assert dict(matplotlib.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("seed", range(40))
def test_logarithmic_ticks_are_different_numbers(seed):
    """Whatever the range, a logarithmic axis has two ticks at least, and each has a label of its own that is right."""
    rng = np.random.default_rng(seed)
    low = 10 ** rng.uniform(-9, 6)
    high = low * 10**10 ** rng.uniform(-2, 1)
    axis = figures.plot_run(synthetic(np.linspace(1, 2, 30))).axes[0].yaxis
    axis.axes.set_yscale("log")
    axis.axes.set_ylim(low, high)
    scales.tidy(axis)
    ticks = [t for t in axis.get_majorticklocs() if low <= t <= high]
    labels = [axis.get_major_formatter()(t) for t in ticks]
    assert len(ticks) >= 2 and len(set(labels)) == len(labels)
    assert [in_numbers(label) for label in labels] == pytest.approx(ticks, rel=1e-3)


def in_numbers(label):
    """The number that a label on a logarithmic axis writes."""
    power = "".join(c for c in label if c in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    if not power:
        return float(label.replace(",", ""))
    first = label.removesuffix("10" + power).rstrip("×") or "1"
    return float(first) * 10.0 ** int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))


def test_what_is_exact_is_said_once():
    """Differences that logarithmic axes cannot show are named by quantity, by flow where flows differ."""
    x, y = sp.symbols("x y")
    gd = md.Map(md.Loss(x**4 / 4 + 0 * y + y**2 / 2, [x, y]), md.GD(0.1))
    study = md.scaling_study(gd, md.GradientFlow, md.ModifiedFlow, lrs=[0.1, 0.05], w0=[1.0, 0.0], time=1.0)
    fig = study.plot()
    said = " ".join(" ".join(text.get_text() for text in fig.texts).split())
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["$x$"] and "y: exact" in said and said.count("exact") == 1
    fig = study.plot(panels=["x", "y"])
    said = " ".join(" ".join(text.get_text() for text in fig.texts).split())
    assert "y: exact at lr 0.1, 0.05, not drawn" in said and said.count("exact") == 1
    assert "exact" in study.summary() and "exact" in fig.axes[1].get_legend().get_texts()[0].get_text()
