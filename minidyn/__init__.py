"""minidyn: the dynamics of optimizers, as they are and as theory predicts them.

    import sympy as sp
    import minidyn as md

    x, y = sp.symbols("x y")
    loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    sgd = md.Map(loss, md.SGD(lr=0.05), noise=md.GaussianNoise(0.3))
    result = md.compare(sgd, md.QuasistaticFlow(sgd), w0=[2, 0], steps=4000, paths=1000, rng=0)
    print(result.summary())
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from minidyn.compare import Comparison, ErrorRow, compare
from minidyn.errors import (
    ArchiveError,
    ExpressionError,
    FlowError,
    InputError,
    ManifoldError,
    MinidynError,
    ModelFileError,
    SolverError,
)
from minidyn.flows import Flow, GradientFlow, QuasistaticFlow
from minidyn.flows.symbolic import SymbolicFlow
from minidyn.kernels import cache
from minidyn.library import Model, list_models, load_model
from minidyn.loss import Loss, vector
from minidyn.manifold import Manifold
from minidyn.maps import Map
from minidyn.noise import GaussianNoise, LabelNoise, Minibatch, Noise, Reshuffle
from minidyn.rules import GD, SGD, Adam, AdamW, Lion, RMSProp, Rule, SignGD, rule
from minidyn.simulate import simulate
from minidyn.trajectory import Run, Status

try:
    __version__ = version("minidyn")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"


def load(path: Any) -> Any:
    """Read back what `Run.save` or `Comparison.save` wrote.

    Raises ArchiveError for a missing, truncated, foreign or newer file.
    """
    from minidyn import archive

    return archive.load(path)


__all__ = [
    "GD", "SGD", "Adam", "AdamW", "ArchiveError", "Comparison", "ErrorRow", "ExpressionError", "Flow",
    "FlowError", "GaussianNoise", "GradientFlow", "InputError", "LabelNoise", "Lion", "Loss", "Manifold",
    "ManifoldError", "Map", "Minibatch", "MinidynError", "Model", "ModelFileError", "Noise",
    "QuasistaticFlow", "RMSProp", "Reshuffle", "Rule", "Run", "SignGD", "SolverError", "Status", "SymbolicFlow",
    "cache", "compare", "list_models", "load", "load_model", "rule", "simulate", "vector",
]  # fmt: skip


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
