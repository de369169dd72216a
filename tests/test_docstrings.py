"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import minidyn

MODULES = sorted(m.name for m in pkgutil.walk_packages(minidyn.__path__, "minidyn.") if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    """The module's examples print what they say."""
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_every_public_name_has_a_docstring_with_an_example():
    """What a user calls explains itself: a docstring, with an example for everything but errors and plain records."""
    plain = {"Comparison", "EdgeRun", "ErrorRow", "Run", "Status", "Rule", "Noise", "Model", "Flow", "cache"}
    plain |= {"Condition", "Escape", "Flatness", "Smoothness", "Stability", "StabilityDiagram"}
    plain |= {
        "LawRow",
        "Regime",
        "Regimes",
        "Basins",
        "Bifurcation",
        "BoxDimension",
        "Doublings",
        "OrderFit",
        "ScalingRow",
        "ScalingStudy",
        "Study",
    }
    for name in minidyn.__all__:
        thing = getattr(minidyn, name)
        assert thing.__doc__, name
        if name not in plain and not name.endswith("Error"):
            assert ">>>" in thing.__doc__, name
