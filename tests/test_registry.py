"""A new flow, rule, observable or model is one file: what is declared here is known everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import check_known_flow, check_known_model, check_known_observable, check_known_rule

import minidyn as md
from minidyn import cli
from minidyn.flows import FLOWS
from minidyn.flows.base import stay
from minidyn.flows.look import Look
from minidyn.kernels import Source
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps.rules import LIBRARY
from minidyn.simulate import observables

MODEL = """
title = "A ditch"
[loss]
kind = "expression"
params = ["x", "y"]
expr = "(1 + x**2) * y**2 / 2 + x**4 / 40"
[rule]
name = "Leaky"
lr = 0.05
leak = 0.1
twice = true
[experiment]
w0 = [1.0, 0.5]
steps = 20
flows = ["gentle", "modified 1", "gentle 2"]
observe = ["height", "loss"]
"""


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    grad, gentle_speed = fns
    grad(w, c, d, b)
    for i in range(w.shape[0]):
        b[i] = -gentle_speed(hp) * b[i]
    return 0


@pytest.fixture
def declared(tmp_path):
    """A flow with a kernel of its own, a rule, an observable and a model; forgotten afterwards."""
    kept = [(registry, dict(registry)) for registry in (FLOWS, SIGNATURES, LIBRARY, observables.NAMES)]

    SIGNATURES["gentle_speed"] = "f8(f8[:])"

    class Gentle(md.Flow):
        """`dw/dt = -grad L(w)/order`."""

        key, orders, look = "gentle", (1, 2), Look("#123456", "-", 1.0, "h")
        name, reference = "gentle flow", "nobody (1900)"
        needs = ("grad", "gentle_speed")
        field, retract = staticmethod(_field), staticmethod(stay)

        def __init__(self, system, order=1):
            super().__init__(system)
            self.order = order

        @property
        def source(self):
            src = Source(f"gentle flow of {self.map.loss}")
            place = list(self.map.rule.hyper).index("lr")
            src.add("gentle_speed", "hp", [f"return hp[{place}] / {float(self.order)}"])
            return src

        def _describe(self, latex, w=None):
            equation = r"$\dot w = -\nabla L$" if latex else "dw/dt = -grad L"
            valid = f"valid: everywhere{self._here(w)}"
            return "\n".join([f"Gentle flow of {self.map.rule}", equation, valid, self.reference])

    @md.rule
    def Leaky(theta, g, *, lr, leak=0.0, twice=False):
        return (1 - lr * leak) * theta - (2 if twice else 1) * lr * g

    LIBRARY["Leaky"] = Leaky
    observables.NAMES["height"] = ("twice the loss", lambda loss: lambda w: 2 * loss.value(w))
    (tmp_path / "ditch.toml").write_text(MODEL)
    yield tmp_path / "ditch.toml"
    for registry, before in kept:
        registry.clear()
        registry.update(before)


def test_new_ones_satisfy_what_their_kinds_must(declared):
    """The checks of conformance hold for a flow, a rule, an observable and a model that nobody told them of."""
    check_known_flow("gentle")
    check_known_rule("Leaky")
    check_known_observable("height")
    check_known_model(declared)


def test_a_model_file_names_new_ones(declared):
    """The file's rule has its own options, its flows their orders, and what it observes is computed."""
    model = md.load_model(declared)
    assert repr(model.map.rule) == "Leaky(lr=0.05, leak=0.1, twice=True)"
    gentle, _, slower = model.flows()
    np.testing.assert_allclose(gentle.drift([1.0, 0.5]), 2 * slower.drift([1.0, 0.5]), rtol=1e-15, atol=0)
    w = np.array([1.0, 0.5])
    for _ in range(20):
        w = (1 - 0.005) * w - 0.1 * model.loss.grad(w)
    run = md.simulate(model.map, model.w0, 20, observe=model.observe)
    np.testing.assert_allclose(run.w[0, -1], w, rtol=1e-13, atol=0)
    np.testing.assert_array_equal(run.observables["height"], 2 * run.observables["loss"])


def test_new_ones_are_compared_drawn_and_kept(declared, tmp_path):
    """A comparison of new things has its table, its picture in the flow's own look, and comes back from its file."""
    gd = md.Map(md.load_model(declared).loss, md.GD(0.05))
    flows = [FLOWS["gentle"](gd), md.GradientFlow(gd)]
    result = md.compare(gd, *flows, w0=[1.0, 0.5], steps=20, observe="height", progress=False)
    assert {row.quantity for row in result.errors} == {"x", "y", "height"}
    a, b = (result.quantities["height"][name] for name in ("gentle flow", "gradient flow"))
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=0)
    result.save(tmp_path / "made.h5")
    again = md.load(tmp_path / "made.h5")
    assert again == result
    for shown in (result, again):
        fig = shown.plot(path=tmp_path / "made.png")
        assert "#123456" in {line.get_color() for ax in fig.axes for line in ax.lines}


def test_the_command_line_knows_new_ones(declared, tmp_path, monkeypatch, capsys):
    """`minidyn run` and `derive` take the model, with and without LaTeX."""
    monkeypatch.chdir(tmp_path)
    assert cli.call(["run", "ditch.toml"]) == cli.call(["derive", "ditch.toml"]) == 0
    said = capsys.readouterr().out
    assert "Leaky" in said and "gentle flow" in said and "dw/dt = -grad L\n" in said
    assert cli.call(["derive", "ditch.toml", "--latex"]) == 0 and r"$\dot w" in capsys.readouterr().out


def test_the_keyboard_shows_new_ones(declared):
    """The page of a notebook has the flow's formula and the rule's update, as it has those of old ones."""
    model = md.load_model(declared)
    assert r"\dot w = -\nabla L" in model.flows()[0]._repr_html_()
    assert r"\mathrm{leak}" in model.map._repr_html_() and "Leaky" in model._repr_html_()


@pytest.mark.parametrize("value, read", [("false", False), ("true", True)])
def test_an_option_that_is_no_number_is_read_as_its_default_says(declared, value, read):
    """A hyperparameter with a default of True or False takes one of these from a model file, and no number."""
    declared.write_text(MODEL.replace("twice = true", f"twice = {value}"))
    assert md.load_model(declared).map.rule.structure["twice"] is read
    declared.write_text(MODEL.replace("twice = true", "twice = 2"))
    with pytest.raises(md.ModelFileError, match=r"`rule.twice` is `2`, expected true or false\."):
        md.load_model(declared)
