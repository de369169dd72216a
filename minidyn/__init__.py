"""minidyn: the dynamics of optimizers, as they are and as theory predicts them.

    import sympy as sp
    import minidyn as md

    x, y = sp.symbols("x y")
    loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    sgd = md.Map(loss, md.SGD(lr=0.05), noise=md.GaussianNoise(0.3))
    result = md.compare(sgd, md.QuasistaticFlow(sgd), w0=[2, 0], steps=4000, paths=1000, rng=0)
    print(result.summary())

Every public name is listed below, with its equation in `help(name)`.
"""

import logging as _logging
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version
from typing import Any as _Any

from minidyn.common.errors import (
    ArchiveError,
    ExpressionError,
    FlowError,
    InputError,
    ManifoldError,
    MinidynError,
    ModelFileError,
    SolverError,
    WorkerError,
)
from minidyn.common.status import Status
from minidyn.compare.basins import Basins, basin
from minidyn.compare.bifurcation import Bifurcation, bifurcation
from minidyn.compare.comparison import Comparison, ErrorRow
from minidyn.compare.destinations import BoxDimension
from minidyn.compare.distributions import LawRow
from minidyn.compare.doublings import Doublings, doublings
from minidyn.compare.edge_of_stability import EdgeRun, edge
from minidyn.compare.escape import Escape, escape
from minidyn.compare.order import OrderFit, ScalingRow, ScalingStudy
from minidyn.compare.regime import Regime, Regimes, regime
from minidyn.compare.scaling import scaling_study
from minidyn.compare.side_by_side import compare
from minidyn.compare.sweep import Sweep, sample, sweep
from minidyn.files.modelfile import list_models
from minidyn.files.models import Model, load_model
from minidyn.flows import (
    CentralFlow,
    Flow,
    GradientFlow,
    ModifiedFlow,
    NoisyRodFlow,
    QuasistaticFlow,
    RodFlow,
    StochasticModifiedFlow,
    SubquadraticFlow,
    SymbolicFlow,
)
from minidyn.kernels import cache
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss, matrix, vector
from minidyn.maps.noise import GaussianNoise, LabelNoise, Minibatch, Noise, Reshuffle, StableNoise, StudentNoise
from minidyn.maps.rules import GD, SGD, Adam, AdamW, Lion, RMSProp, Rule, SignGD, rule
from minidyn.minima.flatness import Flatness, flatness
from minidyn.minima.manifold import Manifold
from minidyn.minima.smoothness import Smoothness, smoothness
from minidyn.minima.stability import Condition, Stability, StabilityDiagram, stability, stability_diagram
from minidyn.simulate import simulate
from minidyn.simulate.joining import join
from minidyn.simulate.run import Run
from minidyn.studies import Claim, Study, study

_logging.getLogger("minidyn").addHandler(_logging.NullHandler())  # quiet unless the user asks

try:
    __version__ = _version("minidyn")
except _PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"


def load(path: _Any) -> _Any:
    """Read back what `save` of a run, a comparison or another result wrote.

    Arrays from 256 MB on stay in the file and are read where they are looked at: a file in use must not be cut or
    written to (moving and deleting it does no harm).

    Raises ArchiveError for a missing, truncated, foreign or newer file.

    >>> import tempfile, minidyn as md
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     md.load_model("valley").run(steps=20, paths=8).save(f"{folder}/valley.h5")
    ...     md.load(f"{folder}/valley.h5").map_label
    'SGD'
    """
    from minidyn.files import results

    return results.load(path)


__all__ = [
    "GD", "SGD", "Adam", "AdamW", "ArchiveError", "Basins", "Bifurcation", "BoxDimension", "CentralFlow", "Claim",
    "Comparison", "Condition", "Doublings", "EdgeRun", "ErrorRow", "Escape", "ExpressionError", "Flatness", "Flow",
    "FlowError", "GaussianNoise", "GradientFlow", "InputError", "LabelNoise", "LawRow", "Lion", "Loss", "Manifold",
    "ManifoldError", "Map", "Minibatch", "MinidynError", "Model", "ModelFileError", "ModifiedFlow", "Noise",
    "NoisyRodFlow", "OrderFit", "QuasistaticFlow", "RMSProp", "Regime", "Regimes", "Reshuffle", "RodFlow", "Rule",
    "Run", "ScalingRow", "ScalingStudy", "SignGD", "Smoothness", "SolverError", "Stability", "StabilityDiagram",
    "StableNoise", "Status", "StochasticModifiedFlow", "StudentNoise", "Study", "SubquadraticFlow", "Sweep",
    "SymbolicFlow", "WorkerError", "basin", "bifurcation", "cache", "compare", "doublings", "edge", "escape",
    "flatness", "join", "list_models", "load", "load_model", "matrix", "regime", "rule", "sample", "scaling_study",
    "simulate", "smoothness", "stability", "stability_diagram", "study", "sweep", "vector",
]  # fmt: skip


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
