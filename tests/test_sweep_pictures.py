"""Pictures of sweeps: numbers can be read off, bands are seen, texts stand apart, titles stay over their panels."""

import numpy as np
import pytest
import sympy as sp
from matplotlib.collections import PolyCollection

import minidyn as md

x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))
RULES = [md.GD(0.1), md.SGD(0.1, momentum=0.9), md.Adam(0.1)]


def written(text):
    """The number that a tick label or a power of ten in a title stands for."""
    return text.translate(str.maketrans("−⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "-0123456789-")).replace(",", "")


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("power", [-17, -6, 0, 7])
def test_ticks_times_the_power_in_the_title_are_the_values(power, listed):
    """What is read off an axis, times the power of ten over it, is what is there, in curves and in lists."""
    lrs = [0.1, 0.2, 0.3, 0.4]
    over = [{"lr": lr} for lr in lrs] if listed else {"lr": lrs}
    gd = md.Map(md.Loss(x**2 / 2, [x]), md.GD(0.1))
    fig = md.sweep(gd, over=over, w0=[2.0 * 10.0**power], steps=1).plot()
    (ax,) = fig.axes
    fig.canvas.draw()
    said = ax.get_title(loc="left").partition("×10")[2].rstrip(")")
    scale = 10.0 ** int(written(said) or 0)
    ticks = [(t, label.get_text()) for t, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)]
    assert ticks and all(float(written(text)) * scale == pytest.approx(t, rel=1e-6) for t, text in ticks)


@pytest.mark.parametrize("keep", ["paths", "moments"])
@pytest.mark.parametrize("over", [{"lr": np.geomspace(0.01, 4, 25)}, {"rule": RULES},
                                  {"rule": RULES, "noise": [md.GaussianNoise(s) for s in (0.1, 0.5)]}])  # fmt: skip
def test_bands_of_the_settings_that_stay_are_in_the_picture(over, keep):
    """Limits hold the band of every setting of which all paths are left, however near zero the means lie."""
    found = md.sweep(SGD, over=over, w0=[1.0, 0.0], steps=200, paths=60, rng=1, keep=keep)
    for name in ("x", "y"):
        ax = found.plot(panels=name).axes[0]
        low, high = ax.get_ylim()
        values = found.quantity(name)
        stays = (found.quantity("status") == md.Status.FINISHED).all(axis=-1)
        labels = list(found.dims.get("statistic", []))
        ends = ([values[..., labels.index(f"quantile {q}")] for q in ("0.05", "0.95")] if labels else
                np.quantile(values[stays], [0.05, 0.95], axis=-1))  # fmt: skip
        lowest, highest = (np.min(ends[0][stays]), np.max(ends[1][stays])) if labels else (ends[0].min(), ends[1].max())
        assert low < lowest and highest < high


def test_texts_are_not_joined():
    """Over texts every setting has a mark and a bar of its own; no line and no band leads from one to the next."""
    ax = md.sweep(SGD, over={"rule": RULES}, w0=[1.0, 0.5], steps=50, paths=20, rng=0).plot(panels="x").axes[0]
    assert all(line.get_linestyle() == "None" for line in ax.lines)
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert len(band.get_paths()) == len(RULES)
    assert all(np.ptp(path.vertices[:, 0]) < 0.5 for path in band.get_paths())


def test_there_is_no_band_without_a_curve():
    """Where a mean is too large for any picture its band is none either."""
    flows = md.GradientFlow, md.StochasticModifiedFlow
    steep = md.Map(md.Loss((1 + x**2) * y**2 / 2 + x**2 / 10, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
    found = md.sweep(steep, *flows, over={"lr": np.geomspace(0.01, 1, 6), "sigma": [0.1, 0.5, 1.0]}, w0=[1.0, 1.0],
                     steps=100, paths=20, rng=0, observe="loss")  # fmt: skip
    for ax in found.plot().axes:
        bands = [c for c in ax.collections if isinstance(c, PolyCollection)]
        for band, line in zip(bands, ax.lines, strict=True):
            seen = line.get_xdata()[np.isfinite(line.get_ydata())]
            for path in band.get_paths():
                assert path.vertices[:, 0].max() <= seen.max() * (1 + 1e-12)


def test_titles_stay_over_their_panels():
    """No title of a panel reaches the next panel or the end of the picture, however long the names of flows are."""
    noisy = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))
    found = md.sweep(noisy, md.StochasticModifiedFlow, md.NoisyRodFlow, md.QuasistaticFlow, w0=[1.5, 0.1], steps=20,
                     over={"lr": [0.05, 0.1, 0.2, 0.3], "sigma": [0.1, 0.2, 0.3, 0.4], "x": [1.0, 1.5]}, paths=4, rng=0,
                     observe="loss")  # fmt: skip
    fig = found.plot()
    fig.canvas.draw()
    titles = [(ax, ax._left_title) for ax in fig.axes if ax._left_title.get_text()]
    assert len(titles) > 5
    for ax, title in titles:
        box = title.get_window_extent()
        right = [b.get_window_extent().x0 for b in fig.axes
                 if b.get_window_extent().x0 > ax.get_window_extent().x1 and b._left_title.get_text()]  # fmt: skip
        assert box.x1 <= min([*right, fig.bbox.x1])


@pytest.mark.parametrize("seed", range(3))
def test_an_outlier_does_not_rule_the_colours(seed):
    """One setting far away does not leave one colour to all others; the colour bar shows that there is more."""
    rng = np.random.default_rng(seed)
    found = md.sweep(SGD, over={"lr": np.linspace(0.1, 0.2, 12), "sigma": np.linspace(0, 1, 12)}, w0=[1, 1], steps=9,
                     rng=seed)  # fmt: skip
    values = found.quantity("x")
    values[:] = rng.normal(size=values.shape)
    usual = np.ptp(values)
    values[tuple(rng.integers(12, size=2))] = 1e7
    (mesh,) = found.plot(panels="x").axes[0].collections
    assert mesh.norm.vmax - mesh.norm.vmin <= usual and mesh.norm.extend in ("max", "both")


@pytest.mark.parametrize("path", [3, ["a.png"], True])
def test_what_is_no_file_is_refused(path):
    """A picture goes into a file with a name; other things are one sentence."""
    found = md.sweep(SGD, over={"lr": [0.1, 0.2]}, w0=[1.0, 1.0], steps=2, rng=0)
    with pytest.raises(md.InputError, match="the path of a figure is a file's name, not "):
        found.plot(path=path)
