"""Linear stability of a minimum under an optimizer with its noise (docs/theory.md, section 5)."""

from minidyn.minima.stability.diagram import StabilityDiagram, stability_diagram
from minidyn.minima.stability.judge import stability
from minidyn.minima.stability.report import Condition, Stability

__all__ = ["Condition", "Stability", "StabilityDiagram", "stability", "stability_diagram"]
