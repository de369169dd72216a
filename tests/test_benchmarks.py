"""The benchmarks' own arithmetic, and that their C++ programs do the same work as minidyn. No time is asserted."""

import ctypes
import json

import numpy as np
import pytest

import minidyn as md
from benchmarks import harness, problems, references, registry
from benchmarks.harness import Row
from benchmarks.instructions import loops


@pytest.mark.parametrize(
    "row, ratio, met",
    [
        (Row("a", "ns", 3.0, "C++", 2.0, bar=1.5), 1.5, True),
        (Row("a", "ns", 3.0, "C++", 2.0, bar=1.4), 1.5, False),
        (Row("a", "s", 3.0, bar=2.0), None, False),
        (Row("a", "times", 1.9, bar=1.8, least=True), None, True),
        (Row("a", "exponent", 0.93, bar=0.05, around=1.0), None, False),
        (Row("a", "ns", 3.0, "C++", 2.0), 1.5, None),
        (Row("a", "ns", None, bar=1.0), None, None),
    ],
)
def test_a_bar_is_on_the_ratio_where_there_is_a_reference(row, ratio, met):
    """A bar judges figure / reference, or the figure itself; without bar or figure there is no verdict."""
    assert row.ratio == ratio and row.met is met


def test_rows_are_per_unit_of_work():
    """Seconds of a call, divided by what that call does, in the unit asked for: one row for each reference."""
    seconds, per = {"minidyn": 2e-3, "C++": 1e-3, "numpy": 5e-2}, {"minidyn": 1000, "C++": 1000, "numpy": 100}
    fast, slow = harness.rows("w", "ns/step", seconds, per, {"C++": 1.5})
    assert (fast.against, fast.figure, fast.reference, fast.met) == ("C++", 2000.0, 1000.0, False)
    assert (slow.against, slow.ratio, slow.met) == ("numpy", pytest.approx(0.004), None)


def test_json_holds_every_row(tmp_path):
    """The file holds the machine and each row with its ratio and verdict, rows without a figure included."""
    found = [Row("a", "ns", 3.0, "C++", 2.0, bar=1.5), Row("b", "ns", None, note="not expressible yet")]
    harness.write_json(tmp_path / "table.json", found, harness.machine())
    read = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [(r["work"], r["ratio"], r["met"]) for r in read["rows"]] == [("a", 1.5, True), ("b", None, None)]
    assert read["machine"]["versions"]["numpy"] == np.__version__


def test_every_name_leads_to_a_function():
    """Each workload and study of the registry can be imported and called."""
    for target in [*registry.WORKLOADS.values(), *registry.STUDIES.values()]:
        assert callable(registry.load(target))


def test_innermost_loops_are_found():
    """The instructions from a label to the jump back to it, without those of an outer loop."""
    text = "f:\n\tpush %rbx\n.L1:\n\tmov a, b\n.L2:\n\tvaddpd %zmm0, %zmm1, %zmm1\n\tjne .L2\n\tjmp .L1\n\tret\n"
    inner, rest = loops(text)
    assert inner == [["vaddpd %zmm0, %zmm1, %zmm1", "jne .L2"]] and rest == ["push %rbx", "ret"]


# -- the C++ programs, where there is a compiler ------------------------------------------------------------------


@pytest.fixture(scope="module")
def variants():
    """The C++ variants of this machine, plain last."""
    if references.missing("path"):
        pytest.skip(references.missing("path"))
    return references.variants("path")


def test_path_programs_take_our_steps(variants):
    """GD and Adam in C++, in both forms, give minidyn's point after 300 steps to 1e-9."""
    loss, start = problems.valley(), [1.0, 0.8]
    for rule, names, numbers in (
        (md.GD(0.01), ("gd", "gd_chain"), (0.01,)),
        (md.Adam(0.001), ("adam", "adam_chain"), (0.001, 0.9, 0.999, 1e-8)),
    ):
        ours = md.simulate(md.Map(loss, rule), start, 300, save_every=300).w[0, -1]
        for name in names:
            w = np.array(start)
            references.call("path", name, w, 300, *numbers)
            np.testing.assert_allclose(w, ours, rtol=1e-9)


def test_gradient_program_is_our_gradient(variants):
    """The C++ gradients of L3 agree with `loss.grad` to 1e-12."""
    points = np.stack([problems.network_start(10, seed) for seed in range(3)])
    references.call("flow", "l3_data", *problems.samples(20))
    out = np.empty_like(points)
    references.call("flow", "l3_gradients", points, out, 3)
    np.testing.assert_allclose(out, problems.network().grad(points), rtol=1e-12, atol=1e-12)


def test_flow_program_solves_the_flow(variants):
    """DOP853 in C++, one by one and eight side by side, keeps x^2 - y^2 and reaches xy = 1, as the flow of L2 does."""
    starts = np.random.default_rng(1).uniform(0.5, 2.0, (21, 2))
    names = ["l2_flow", "l2_lanes"] if references.LIMIT in variants else ["l2_flow"]
    for name in names:
        y = starts.copy()
        references.call("flow", name, y, len(y), 100.0, 1e-8, 1e-10)
        np.testing.assert_allclose(np.subtract(*(y**2).T), np.subtract(*(starts**2).T), atol=1e-6, rtol=0)
        np.testing.assert_allclose(y.prod(axis=1), 1.0, atol=1e-6, rtol=0)


def test_ensemble_program_is_the_noisy_map(variants):
    """Without noise the C++ ensembles of all rules take minidyn's steps; noise has the stated standard deviation."""
    loss, rules = (
        problems.valley(),
        {
            "sgd": md.SGD(0.01),
            "heavy_ball": md.SGD(0.01, 0.9),
            "nesterov": md.SGD(0.01, 0.9, nesterov=True),
            "adam": md.Adam(0.01),
        },
    )
    for plain in range(2) if references.LIMIT in variants else [1]:
        for name, rule in rules.items():
            x, y = np.full(64, 1.0), np.full(64, 0.8)
            numbers = np.array([0.01, 0.9, 0.9, 0.999, 1e-8, 0.0])
            flags = ctypes.c_int(1), ctypes.c_int(plain)
            assert references.call("ensemble", name, x, y, 64, 100, numbers, 7, *flags) == 0
            ours = md.simulate(md.Map(loss, rule), [1.0, 0.8], 100, save_every=100).w[0, -1]
            np.testing.assert_allclose(np.stack([x, y], axis=1), np.tile(ours, (64, 1)), rtol=1e-9)
        x, y = np.zeros(64_000), np.zeros(64_000)  # at the origin the gradient vanishes: one step is noise alone
        numbers[-1] = 0.5
        references.call("ensemble", "sgd", x, y, len(x), 1, numbers, 7, *flags)
        drawn = np.concatenate([x, y]) / (0.01 * 0.5)
        assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)  # five standard errors
        assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / drawn.size)
        assert abs((drawn**4).mean() - 3) < 5 * np.sqrt(96 / drawn.size)
