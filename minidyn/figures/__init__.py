"""Pictures: a run over its steps; a map and its flows side by side, on the landscape of two parameters; all results.

Figures are made without pyplot: no global state, nothing to close, no display needed, and Jupyter shows them.
Each kind of result says which panels it has (`sheet.Panel`); `sheet.compose` does the rest for all of them: choice of
panels, places, head, legend, file.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from minidyn.compare.basins import Basins
from minidyn.compare.bifurcation import Bifurcation
from minidyn.compare.comparison import Comparison
from minidyn.compare.edge_of_stability import EdgeRun
from minidyn.compare.escape import Escape
from minidyn.compare.order import ScalingStudy
from minidyn.compare.sweep import Sweep
from minidyn.figures.canvas import Picture
from minidyn.figures.diagram import plot_stability
from minidyn.figures.edges import plot_edge, plot_escape
from minidyn.figures.longrun import plot_basins, plot_bifurcation
from minidyn.figures.losses import plot_loss
from minidyn.figures.moving import animate
from minidyn.figures.orders import plot_scaling
from minidyn.figures.runs import plot_comparison, plot_run
from minidyn.figures.sweeps import plot_sweep
from minidyn.maps.loss import Loss
from minidyn.simulate.run import Run

__all__ = [
    "Picture", "animate", "plot", "plot_basins", "plot_bifurcation", "plot_comparison", "plot_edge", "plot_escape",
    "plot_loss", "plot_run", "plot_scaling", "plot_stability", "plot_sweep",
]  # fmt: skip


def plot(result: Any, **options: Any) -> Figure:
    """The picture of any result: see `Result.plot`."""
    kinds: dict[type, Any] = {
        Run: plot_run,
        Comparison: plot_comparison,
        ScalingStudy: plot_scaling,
        Sweep: plot_sweep,
        EdgeRun: plot_edge,
        Escape: plot_escape,
        Bifurcation: plot_bifurcation,
        Basins: plot_basins,
        Loss: plot_loss,
    }
    draw = next((draw for kind, draw in kinds.items() if isinstance(result, kind)), plot_stability)
    return draw(result, **options)
