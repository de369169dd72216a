"""Effective flows, one file per theory."""

from minidyn.flows.base import FLOWS, Flow
from minidyn.flows.edge.central import CentralFlow
from minidyn.flows.edge.noisyrod import NoisyRodFlow
from minidyn.flows.edge.rod import RodFlow
from minidyn.flows.edge.subquadratic import SubquadraticFlow
from minidyn.flows.expansion.gradient import GradientFlow
from minidyn.flows.expansion.modified import ModifiedFlow
from minidyn.flows.expansion.sme import StochasticModifiedFlow
from minidyn.flows.slow import closed as _closed  # noqa: F401 - gives the quasistatic flow its closed forms
from minidyn.flows.slow.quasistatic import QuasistaticFlow
from minidyn.flows.symbolic import SymbolicFlow

__all__ = [
    "FLOWS", "CentralFlow", "Flow", "GradientFlow", "ModifiedFlow", "NoisyRodFlow", "QuasistaticFlow",
    "RodFlow", "StochasticModifiedFlow", "SubquadraticFlow", "SymbolicFlow",
]  # fmt: skip
