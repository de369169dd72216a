"""What a picture says is where it is: numbers along axes, names of axes, lines, bars and points are what was found."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sympy as sp
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.colors import to_hex

import minidyn as md
from minidyn.figures import scales, style
from minidyn.figures.panels import difference_of

x, y, c = sp.symbols("x y c")
GD = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1))
NOISY = md.Map(GD.loss, md.SGD(0.1), md.GaussianNoise(0.2))
WELLS = md.Map(md.Loss(sp.Min(x**2, c * (x - 1) ** 2), [x], data={c: [0.1, 1.9]}), md.SGD(0.7), md.Minibatch(1))
SUPER = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def number(text):
    """A tick label as a number: 1,234.5 or −0.02 or 10⁻³ or 2×10⁻³."""
    power = re.fullmatch(r"(?:([\d.]+)×)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    if power:
        return float(power[1] or 1) * 10.0 ** int(power[2].translate(SUPER))
    return float(text.replace(",", "").replace("−", "-"))


def ticks(axis):
    """(place, text) of each tick label in sight."""
    low, high = sorted(axis.get_view_interval())
    places = [place for place in axis.get_majorticklocs() if low <= place <= high]
    return list(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def read_back(axis, words):
    """Every label is its place, once what is `words` say of a common power and offset is put back; no two are alike."""
    power, offset = re.search(r"\(×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)\)", words), re.search(r"^ ([−+]) ([\d.]+)", words)
    scale = 10.0 ** int(power[1].translate(SUPER)) if power else 1.0
    shift = (1 if offset[1] == "−" else -1) * float(offset[2]) if offset else 0.0
    found = ticks(axis)
    assert len({text for _, text in found}) == len(found) >= 2, found
    size = np.ptp(axis.get_view_interval())
    for place, text in found:
        told = shift + scale * number(text)
        assert told == pytest.approx(place, rel=1e-9, abs=1e-6 * size), (place, text, words)


@pytest.mark.parametrize("seed", range(25))
def test_numbers_along_an_axis_are_where_they_stand(seed):
    """Whatever the limits, of any size and far from zero, linear or logarithmic: labels, with the power and the offset
    that they share, are the numbers at which they stand."""
    rng = np.random.default_rng(seed)
    fig, ax = plt.subplots(figsize=(3, 1.5))
    size = 10.0 ** rng.uniform(-12, 12)
    low = size * rng.choice([0, rng.normal(), 1e3 * rng.normal(), 1e6 * rng.normal(), 1e9 * rng.normal()])
    ax.set_ylim(low, low + size * rng.uniform(0.5, 5))
    read_back(ax.yaxis, "".join(scales.tidy(ax.yaxis)))
    ax.set_yscale("log")
    ax.set_ylim(size, size * 10.0 ** rng.uniform(0.5, 30))
    assert scales.tidy(ax.yaxis) == []
    read_back(ax.yaxis, "")
    plt.close(fig)


def test_a_comparison_says_where_its_numbers_are():
    """Axes of steps, quantities, differences and the landscape say their powers, names and clock; the bar beside the
    level sets says the loss; and the map, its bands and the flows that stay lie inside."""
    result = md.compare(NOISY, md.GradientFlow(NOISY), w0=[2e-6, 3e-7], steps=3000, paths=20, rng=0, save_every=100,
                        observe=1000 + x * 1e9, progress=False)  # fmt: skip
    fig = result.plot()
    ground, *rest = fig.axes
    for name, upper, lower in zip(["x", "y", "1e9*x"], rest[::2], rest[1::2], strict=True):
        title = upper.get_title(loc="left")
        read_back(upper.yaxis, re.sub(r"^.*?(?= [−+] \d|   \(×|$)", "", title, count=1) if name in "xy" else title)
        read_back(lower.yaxis, lower.get_ylabel().replace("\n", " "))
        rate = re.search(r"t = ([\d.]+)\\,k", lower.get_xlabel())
        assert float(rate[1]) == 0.1 and lower.get_xlabel().startswith("step $k$")
        read_back(lower.xaxis, "")
        low, high = upper.get_ylim()
        for line in upper.lines:
            values = line.get_ydata()
            assert low <= np.nanmin(values) and np.nanmax(values) <= high
    assert ground.get_xlabel().startswith("$x$") and ground.get_ylabel().startswith("$y$")
    for axis, words in ((ground.xaxis, ground.get_xlabel()), (ground.yaxis, ground.get_ylabel())):
        read_back(axis, words.replace("$x$", "").replace("$y$", ""))
    low, high = np.array([ground.get_xlim(), ground.get_ylim()]).T
    ends = np.concatenate([run.w[:, -1] for run in result.runs.values()])
    assert ((ends >= low) & (ends <= high)).all(axis=1).mean() > 0.9
    (start,) = [line for line in ground.lines if line.get_label() == "start"]
    np.testing.assert_array_equal(np.ravel(start.get_data()), [2e-6, 3e-7])


def test_differences_are_drawn_as_their_flows_are():
    """Below each quantity flow minus map is drawn in its flow's colour and dash, with two standard errors to each side
    in the same colour, those of the table."""
    flows = md.GradientFlow(NOISY), md.StochasticModifiedFlow(NOISY)
    result = md.compare(NOISY, *flows, w0=[1.0, 0.5], steps=30, paths=30, rng=0, coupled=False, progress=False)
    looks, fig = style.looks_in(result), result.plot()
    for name, ax in zip("xy", fig.axes[2::2], strict=True):
        for label in list(result.runs)[1:]:
            a, b = result.pair(name, label)
            gap, error = difference_of(a, b, result.paired(label))
            (line,) = [o for o in ax.lines if len(o.get_ydata()) == len(gap) and np.array_equal(o.get_ydata(), gap)]
            assert (line.get_color(), line.get_linestyle()) == (looks[label].colour, plain_line(looks[label]))
            assert line.get_marker() == looks[label].marker or looks[label].dash == "-"
            (band,) = [o for o in ax.collections if to_hex(o.get_facecolor()[0]) == looks[label].colour]
            corners = band.get_paths()[0].vertices[:, 1]
            assert corners.max() == pytest.approx((gap + 2 * error).max())
            assert corners.min() == pytest.approx((gap - 2 * error).min())
            row = [row for row in result.errors if (row.flow, row.quantity) == (label, name)][-1]
            assert (gap[-1], error[-1]) == pytest.approx((row.difference, row.standard_error))


def plain_line(look):
    """What matplotlib calls the dash of a look."""
    return plt.Line2D([], [], ls=look.dash).get_linestyle()


def test_the_bar_beside_level_sets_says_the_loss():
    """Colours of level sets are the loss, or what it is above its least value there, as its bar says."""
    for shift in (0.0, 5.0):
        ax = md.Loss(x**2 + 3 * y**2 + shift, [x, y]).plot().axes[0]
        (bar,) = ax.child_axes
        assert [t.get_text() for t in bar.texts] == ["loss − min" if shift else "loss"]
        read_back(bar.yaxis, "")
    curve = md.Loss((x - 1) ** 2, [x]).plot().axes[0]
    assert curve.get_xlabel() == "$x$" and curve.get_title(loc="left") == "loss"


def test_the_edge_and_an_escape_show_what_was_found():
    """The threshold stands at 2/lr, the predicted growth grows as predicted, bars are the parts of the paths that
    their names say."""
    seen = md.edge(GD, md.RodFlow(GD), w0=[4.5, 0.1], steps=30)
    upper = seen.plot().axes[0]
    (level,) = [line for line in upper.lines if line.get_label() == "threshold 2/lr"]
    np.testing.assert_allclose(level.get_ydata(), 20.0)
    out = md.escape(WELLS, [1.0], paths=60, steps=60, rng=0)
    distance, bars = out.plot().axes
    (grown,) = [line for line in distance.lines if line.get_label() == "predicted growth"]
    k, values = grown.get_data()
    np.testing.assert_allclose(values, out.second_moment[0] * out.predicted**k)
    names = [label.get_text() for label in bars.get_yticklabels()]
    widths = [bar.get_width() for bar in bars.patches]
    for w, fraction in zip(out.destinations, out.fractions, strict=True):
        assert widths[names.index(f"{w[0] + 0.0:.3g}")] == pytest.approx(100 * fraction)


def test_a_scaling_study_shows_its_fits():
    """Lines are the fitted powers, bars two standard errors to each side, and the words of each flow are its own."""
    study = md.scaling_study(NOISY, md.GradientFlow, md.StochasticModifiedFlow, lrs=[0.2, 0.1, 0.05], w0=[1.0, 0.5],
                             time=0.8, paths=400, rng=0, progress=False)  # fmt: skip
    fig = study.plot()
    for ax, name in zip(fig.axes, "xy", strict=True):
        assert ax.get_xlabel() == "learning rate" and ax.get_title(loc="left") == f"${name}$"
        assert [float(t.get_text()) for t in ax.get_xticklabels()] == [0.05, 0.1, 0.2]
        read_back(ax.yaxis, "")
        fits = {fit.flow: fit for fit in study.fits if fit.quantity == name}
        lines = [line for line in ax.lines if len(line.get_xdata()) == 50]
        resolved = [fit for fit in fits.values() if fit.resolved]
        assert len(lines) == len(resolved) > 0
        for line, fit in zip(lines, resolved, strict=True):
            np.testing.assert_allclose(line.get_ydata(), fit.constant * line.get_xdata() ** fit.order)
        told = [text.get_text() for text in ax.get_legend().get_texts()]
        for words, (flow, fit) in zip(told, fits.items(), strict=True):
            assert re.match(
                rf"{flow}: " + (f"order {fit.order:.2f}" if fit.resolved else "(no order seen|exact)$"), words
            )
        bars = [segment for bar in ax.containers for segment in bar[2][0].get_segments()]
        rows = {r.lr: [r2 for r2 in study.rows if (r2.lr, r2.quantity) == (r.lr, name)] for r in study.rows}
        assert bars
        for (lr, low), (_, high) in bars:
            near = rows[min(rows, key=lambda r, lr=lr: abs(r - lr))]
            row = min(near, key=lambda r, high=high: abs(abs(r.difference) + 2 * r.standard_error - high))
            assert high == pytest.approx(abs(row.difference) + 2 * row.standard_error)
            assert low == pytest.approx(abs(row.difference) - min(2 * row.standard_error, 0.999 * abs(row.difference)))


def test_settings_of_a_diagram_are_their_own():
    """Each panel of a stability diagram has the box of its own learning rate and batch."""
    diagram = md.stability_diagram(WELLS, [[0.0], [1.0]], lrs=[0.7, 0.9], batches=[1])
    for number_, ax in enumerate(diagram.plot().axes):
        wide, _ = diagram.box(number_)
        assert ax.get_title(loc="left") == f"lr {diagram.settings[number_][0]:g}, batch 1"
        dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
        for line in dashed:
            assert line.get_xdata()[0] == wide
        assert dashed or wide >= ax.get_xlim()[1]


def test_a_difference_is_seen_beside_what_is_too_small_for_the_axis():
    """Where a flow's loss falls below a logarithmic axis, the difference from the map stays in the panel below."""
    model = md.load_model("two_wells")
    result = md.compare(
        model.map, md.GradientFlow(model.map), w0=model.w0, steps=60, paths=100, observe=["loss"], rng=0
    )
    row = max((r for r in result.errors if r.quantity == "loss"), key=lambda r: abs(r.difference))
    low, high = result.plot(panels=["loss"]).axes[1].get_ylim()
    assert low <= row.difference <= high and abs(row.difference) > 1e-3


def test_a_legend_shows_the_marks_of_its_lines():
    """What stands beside a flow's label has the colour, the dash and the marker that are drawn: those of the line, or
    those of its points on the landscape."""
    flows = md.GradientFlow(NOISY), md.StochasticModifiedFlow(NOISY)
    result = md.compare(NOISY, *flows, w0=[1.0, 0.5], steps=30, paths=30, rng=0, progress=False)
    fig, looks = result.plot(), style.looks_in(result)
    (legend,) = fig.legends
    shown = {text.get_text(): o for text, o in zip(legend.get_texts(), legend.legend_handles, strict=True)}
    for label in list(result.runs)[1:]:
        (name,) = [name for name in shown if name.startswith(label)]
        line = next(o for ax in fig.axes for o in ax.lines if o.get_label() == name)
        points = [o.get_paths()[0] for ax in fig.axes for o in ax.collections if o.get_label() == name]
        found = shown[name]
        assert (found.get_color(), found.get_linestyle()) == (line.get_color(), line.get_linestyle())
        assert line.get_color() == looks[label].colour
        mark = found.get_marker()
        if isinstance(mark, str):
            assert mark == line.get_marker() == looks[label].marker
        else:
            assert any(np.array_equal(mark.vertices, drawn.vertices) for drawn in points)


def test_an_axis_of_time_has_room():
    """Where the learning rate changes, time stands above the first panel, and no two texts of the picture meet."""
    k = sp.Symbol("k")
    system = md.Map(GD.loss, md.GD(0.05 / (1 + k / 20)))
    for result in (
        md.compare(system, md.GradientFlow(system), w0=[1.0, 0.5], steps=60),
        md.simulate(system, [1.0, 0.5], 60),
    ):
        fig = result.plot()
        fig.canvas.draw()
        above = [child for ax in fig.axes for child in ax.child_axes if isinstance(child, SecondaryAxis)]
        assert above and all(ax.get_xlabel() == "time $t$" for ax in above)
        renderer = fig.canvas.get_renderer()
        titles = [o for ax in fig.axes for o in (ax.title, ax._left_title, ax._right_title) if o.get_text()]
        for ax in above:
            texts = [ax.xaxis.label, *(label for label in ax.get_xticklabels() if label.get_text())]
            for title in [*titles, *fig.texts]:
                box = title.get_window_extent(renderer)
                assert not any(box.overlaps(text.get_window_extent(renderer)) for text in texts), title.get_text()


def test_a_run_says_its_paths_and_how_they_ended():
    """The lines below the title of a run's picture have the number of paths, of steps, and how paths ended."""
    leaving = md.Map(md.Loss(x**4 / 4 - x**2, [x]), md.GD(0.3), md.GaussianNoise(0.5))
    run = md.simulate(leaving, np.linspace(0.1, 4.0, 40)[:, None], 20, paths=40, rng=0)
    assert 0 < run.finished.sum() < 40
    said = " ".join(" ".join(text.get_text() for text in run.plot().texts).split())
    assert "40 paths" in said and "20 steps" in said and run.describe_status() in said
    assert "one path" in " ".join(text.get_text() for text in md.simulate(GD, [1.0, 0.5], 5).plot().texts)
