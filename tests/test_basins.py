"""Basins: every start ends where single runs end; dimensions of borders are those of sets whose dimension is known."""

import copy
import pickle

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.compare.destinations import box_dimension, gathered

x, y, r = sp.symbols("x y r")
TILTED = md.Loss((x**2 - 1) ** 2 / 4 + x * y / 5 + (1 + x**2) * y**2 / 2, [x, y])
PRODUCT = md.Loss((1 - x**2 * y**2) ** 2 / 2, [x, y])


def literal(w, lr, steps):
    """Gradient descent on PRODUCT, by hand, from many starts."""
    with np.errstate(all="ignore"):
        for _ in range(steps):
            rest = 1 - w[:, 0] ** 2 * w[:, 1] ** 2
            w = w + 2 * lr * (rest * w[:, 0] * w[:, 1])[:, None] * w[:, ::-1]
    return w


@pytest.mark.parametrize("rule", [
    md.GD(0.3), md.SGD(0.3, momentum=0.5), md.SGD(0.2, momentum=0.5, nesterov=True), md.SignGD(0.01), md.Lion(0.01),
    md.RMSProp(0.05, eps=0.1), md.Adam(0.05, eps=0.1), md.AdamW(0.05, eps=0.1),
], ids=lambda rule: f"{rule.name}{len(rule.states)}")  # fmt: skip
def test_every_rule_ends_where_its_single_runs_do(rule):
    """Ends are those of `simulate` to the last bit; of two wells, starts have one label where they are in one well."""
    system, starts = md.Map(TILTED, rule), np.random.default_rng(1).uniform(-2, 2, (40, 2))
    seen = md.basin(system, starts, 1500)
    run = md.simulate(system, starts, 1500, paths=40, save_every=1500)
    np.testing.assert_array_equal(seen.ends, run.w[:, -1])
    np.testing.assert_array_equal(seen.labels == -1, ~run.finished)
    wells, settled = np.sign(run.w[:, -1, 0]), seen.labels >= 0
    for sign in (1, -1):
        assert len(set(seen.labels[settled & (wells == sign)])) <= 1 or rule.name in ("SignGD", "Lion")
    assert not set(seen.labels[settled & (wells == 1)]) & set(seen.labels[settled & (wells == -1)])
    assert settled.sum() > 20 and sum(p.starts for p in seen.places) == settled.sum()


def test_a_grid_is_labelled_as_its_starts():
    """Rows are the first parameter's values, columns the second's; other parameters start at `at`."""
    z = sp.Symbol("z")
    system = md.Map(md.Loss(TILTED.expr + (z - x) ** 2 / 2, [x, y, z]), md.GD(0.1))
    values = {z: np.linspace(-2, 2, 7), x: np.linspace(-3, 3, 9)}
    seen = md.basin(system, values, 600, at=[0.0, 0.4, 0.0])
    assert list(seen.axes) == ["z", "x"] and seen.labels.shape == (7, 9) and seen.ends.shape == (7, 9, 3)
    for i, a in enumerate(values[z]):
        for j, b in enumerate(values[x]):
            end = md.simulate(system, [b, 0.4, a], 600).w[0, -1]
            np.testing.assert_array_equal(seen.ends[i, j], end)
            place = seen.places[seen.labels[i, j]]
            np.testing.assert_allclose(place.at, end, rtol=0, atol=1e-5)


def test_cycles_are_places_of_their_own():
    """Two wells whose minima are unstable: starts end on one of two cycles, told apart by where they are; one step of a
    cycle or the other is the same place."""
    system = md.Map(md.Loss((x**2 - 1) ** 2 / 4 + y**2 / 2, [x, y]), md.GD(1.1))
    seen = md.basin(system, {x: np.linspace(-1.3, 1.3, 27), y: [0.0, 0.1]}, 1000)
    assert [p.kind for p in seen.places[:2]] == ["period 2", "period 2"]
    assert seen.places[0].at[0] == pytest.approx(-seen.places[1].at[0], abs=1e-9) and abs(seen.places[0].at[0]) > 0.8
    for start, label in zip(seen.axes["x"], seen.labels[:, 0], strict=True):
        w = start
        for _ in range(1000):
            w = w - 1.1 * (w**3 - w)
        if label in (0, 1):
            after = w - 1.1 * (w**3 - w)
            assert (w + after) / 2 == pytest.approx(seen.places[label].at[0], abs=1e-9)


def test_erratic_and_lost_runs_have_labels():
    """The logistic map at 3.9: inside (0, 1) no period, outside it diverges."""
    logistic = md.Map(md.Loss(-2.9 * x**2 / 2 + 3.9 * x**3 / 3, [x]), md.GD(1.0))
    seen = md.basin(logistic, [[0.3], [1.2], [0.77], [-0.1]], 500)
    assert seen.labels.tolist() == [-2, -1, -2, -1] and not seen.places
    assert "diverged" in seen.summary() and "no period up to 64" in seen.summary()


def test_ends_along_minima_are_one_place_unless_told_apart():
    """The hyperbola x y = 1 has two branches; `by` tells more, or less, apart, and `apart` says what is near."""
    system = md.Map(md.Loss((x * y - 1) ** 2 / 2, [x, y]), md.GD(0.1))
    grid = {x: np.linspace(-1.9, 2.1, 60), y: np.linspace(-2, 2, 61)}
    seen = md.basin(system, grid, 600)
    settled = seen.labels >= 0
    branch = np.sign(seen.ends[..., 0])
    assert len(seen.places) == 2 and (branch[seen.labels == 0] == branch[seen.labels == 0][0]).all()
    assert md.basin(system, grid, 600, by="loss", apart=0.1).places[0].starts == settled.sum()
    halves = md.basin(system, grid, 600, by=lambda w: 1.0 * (w[:, 0] > w[:, 1]), apart=0.1)
    for label in range(len(halves.places)):
        assert len(set((halves.ends[..., 0] > halves.ends[..., 1])[halves.labels == label])) == 1
    assert len(md.basin(system, grid, 600, apart=1e-3).places) > 20


def test_labels_do_not_depend_on_threads():
    """One thread or two: the same labels, places and ends; a basin travels."""
    system = md.Map(PRODUCT, md.GD(0.2))
    grid = {x: np.linspace(0.1, 2.5, 40), y: np.linspace(0.1, 2.5, 40)}
    seen = md.basin(system, grid, 300, threads=1)
    assert seen == md.basin(system, grid, 300, threads=2) == pickle.loads(pickle.dumps(seen)) == copy.deepcopy(seen)


def test_chains_of_ends_are_one_place():
    """Points a step apart along a spiral are one place, two clusters farther apart than that are two."""
    turn = np.linspace(0, 12, 4000)
    spiral = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1)
    place, count = gathered(np.concatenate([spiral, spiral[:50] + 30]), 0.2)
    assert count == 2 and len(set(place[:4000])) == 1 and place[4000] != place[0]


def sierpinski(points):
    """Which of the removed triangles of the Sierpinski gasket (as in Pascal's triangle modulo 2) a point lies in."""
    rest, out = points.copy(), np.full(len(points), -1)
    for level in range(50):
        rest = 2 * rest
        bit = rest >= 1
        rest = rest - bit
        out[bit.all(axis=1) & (out < 0)] = level
    return out


def weierstrass(points):
    """Above or below the graph of sum 3^(-k/2) cos(2 pi 3^k x + k), of dimension 3/2 (Shen 2018)."""
    k = np.arange(19)[:, None]
    return points[:, 1] > 0.2 * (3.0 ** (-k / 2) * np.cos(2 * np.pi * 3.0**k * points[:, 0] + k)).sum(axis=0)


def koch(points):
    """Above the Koch curve over the unit interval, of dimension log 4 / log 3."""
    out, left, z, turn = np.zeros(len(points), bool), np.arange(len(points)), points @ [1, 1j], np.exp(1j * np.pi / 3)

    def under(w, slope, base):
        return (w.imag >= 0) & (w.imag <= slope * np.minimum(w.real - base, 1 - base - w.real))

    for _ in range(16):  # the curve lies in a triangle, and each of its four parts in one of its own
        out[left[z.imag > 0]] = True
        left, z = left[inside := under(z, np.sqrt(1 / 3), 0.0)], z[inside]
        parts = np.array([3 * z, (3 * z - 1) / turn, (3 * z - 1 - turn) * turn, 3 * z - 2])
        there = under(parts, np.sqrt(1 / 3), 0.0)
        beside = ~there.any(axis=0)
        out[left] = ~under(z, np.sqrt(3), 1 / 3)
        left, z = left[~beside], parts[there.argmax(axis=0), np.arange(len(z))][~beside]
    return out


def test_dimensions_of_known_borders():
    """A line, a circle, the Koch curve, the Sierpinski gasket and a Weierstrass graph: within three errors, which are
    small; those of smooth curves are as small as those of rough ones."""
    rng, unit = np.random.default_rng(0), np.array([0.0, 0.0])
    for label, low, high, known, small in (
        (lambda p: p[:, 1] > 0.3 + 0.31 * p[:, 0], unit, [1.0, 1.0], 1.0, 0.02),
        (lambda p: (p**2).sum(axis=1) < 0.5, [-1.0, -1.0], [1.0, 1.0], 1.0, 0.02),
        (koch, [-0.05, -0.1], [1.05, 0.4], np.log(4) / np.log(3), 0.02),
        (sierpinski, unit, [1.0, 1.0], np.log(3) / np.log(2), 0.02),
        (weierstrass, [0.0, -0.7], [1.0, 0.7], 1.5, 0.05),
    ):
        seen = box_dimension(label, np.array(low), np.array(high), 60_000, rng)
        assert abs(seen.dimension - known) < 3 * seen.error and seen.error < small


def test_parts_that_are_mixed_are_those_of_the_whole_window():
    """Boxes laid near a line count for less: a part 1.31 s / (1 - s) of all boxes of side s is on it (4 % at most is
    the error of the counts, five times allowed); where two labels alternate everywhere all but a part are."""
    rng, high = np.random.default_rng(1), np.ones(2)
    line = box_dimension(lambda p: p[:, 1] > 0.3 + 0.31 * p[:, 0], np.zeros(2), high, 60_000, rng)
    few = line.sizes > 5e-5
    wanted = (1.31 * line.sizes / (1 - line.sizes))[few]
    assert few.sum() == 5
    np.testing.assert_allclose(line.mixed[few], wanted, rtol=0.2, atol=0)
    dust = box_dimension(lambda p: rng.integers(0, 2, len(p)), np.zeros(2), high, 5_000, rng)
    np.testing.assert_allclose(dust.mixed, 7 / 8, rtol=0.05, atol=0)  # four coins are not all alike
    assert abs(dust.dimension - 2.0) < 3 * dust.error


def test_the_fractal_border_of_a_scalar_product():
    """`(1 - x^2 y^2)^2 / 2` at lr 0.2: the border has the published dimension 1.72 to 1.74, which the uncertainty
    exponent of hand-written runs confirms (a part `eps^(2 - D)` of starts ends elsewhere when moved by eps); that of
    what diverges on `(x y - 1)^2 / 2` is smooth."""
    window = {x: np.linspace(-3, 3, 10), y: np.linspace(-3, 3, 10)}
    seen = md.basin(md.Map(PRODUCT, md.GD(0.2)), window, 1000).dimension(boxes=12_000, rng=0)
    assert abs(seen.dimension - 1.73) < 3 * seen.error and seen.error < 0.03
    starts = np.random.default_rng(1).uniform(-3, 3, (60_000, 2))

    def corner(w):
        return np.where(np.isfinite(w).all(axis=1), 2 * np.sign(w[:, 0]) + np.sign(w[:, 1]), 9)

    home, sizes = corner(literal(starts, 0.2, 600)), 10.0 ** -np.arange(2, 6)
    other = [np.mean(home != corner(literal(starts + eps * np.array([0.8, 0.6]), 0.2, 600))) for eps in sizes]
    exponent = np.polyfit(np.log(sizes), np.log(other), 1)[0]
    assert abs(2 - exponent - seen.dimension) < 0.04
    wide = {x: np.linspace(-4, 4, 10), y: np.linspace(-4, 4, 10)}
    smooth = md.basin(md.Map(md.Loss((x * y - 1) ** 2 / 2, [x, y]), md.GD(0.2)), wide, 400)
    plain = smooth.dimension(diverged=True, boxes=60_000, rng=0)
    assert abs(plain.dimension - 1.0) < 3 * plain.error and plain.error < 0.02


def test_files_words_and_pictures(tmp_path):
    """A grid and a list are kept in files with their words, and drawn with every place, what diverged and the rest."""
    system = md.Map(PRODUCT, md.GD(0.2))
    grid = md.basin(system, {x: np.linspace(-3, 3, 60), y: np.geomspace(0.1, 3, 50)}, 300)
    several = md.basin(system, np.random.default_rng(0).uniform(-2, 2, (60, 2)), 300)
    for name, seen in (("grid", grid), ("list", several)):
        seen.save(tmp_path / f"{name}.h5")
        again = md.load(tmp_path / f"{name}.h5")
        assert again == seen and again.summary() == seen.summary() and again.places == seen.places
        assert max(map(len, seen.summary().split("\n"))) <= 80 and "diverged" in seen._repr_html_()
        with pytest.raises(md.InputError, match="a grid of starts, and the map"):
            again.dimension()
        assert len(again.plot().axes) == (2 if name == "grid" else 1)
    legend = [text.get_text() for text in grid.plot().legends[0].get_texts()]
    assert "diverged" in legend and any(text.startswith("(") for text in legend)
    image = grid.plot(panels="basins").axes[0]
    assert image.get_xlabel() == "$x$" and image.get_xlim()[0] == pytest.approx(-3 - 3 / 59)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"system": md.Map(TILTED, md.SGD(0.1), md.GaussianNoise(0.1))}, "without noise"),
        ({"starts": {x: [1.0]}}, "two of the parameters x, y"),
        ({"starts": {x: [1.0], "z": [1.0]}}, "two of the parameters x, y"),
        ({"starts": {x: [1.0, 0.0], y: [0.0]}}, "the values of x are an increasing list"),
        ({"starts": {x: [], y: [0.0]}}, "the values of x are an increasing list"),
        ({"starts": {x: [np.nan], y: [0.0]}}, "NaN or Inf"),
        ({"starts": [0.0, 1.0]}, r"starts has shape \(2,\), expected \(N, 2\)"),
        ({"starts": [[0.0, 1.0]], "at": [0.0, 0.0]}, "goes with a grid"),
        ({"starts": {x: [0.0], y: [0.0]}, "at": [[0.0, 0.0]]}, "expected one point"),
        ({"apart": 0.0}, "apart must be a positive number"),
        ({"by": "deepest"}, "no observable is called"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_basin_refuses(options, words):
    """What does not fit: one sentence."""
    given = {"system": md.Map(TILTED, md.GD(0.1)), "starts": [[0.0, 1.0]], **options}
    with pytest.raises(md.InputError, match=words):
        md.basin(**given)


def test_a_border_that_is_not_there_is_refused():
    """All starts in one well: no dimension."""
    bowl = md.basin(md.Map(md.Loss(x**2 + y**2, [x, y]), md.GD(0.1)), {x: [-1.0, 1.0], y: [-1.0, 1.0]}, 200)
    with pytest.raises(md.InputError, match="it is short or there is none"):
        bowl.dimension(boxes=200)
