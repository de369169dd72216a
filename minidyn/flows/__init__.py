"""Effective flows, one file per theory."""

from minidyn.flows.base import Flow
from minidyn.flows.central import CentralFlow
from minidyn.flows.gradient import GradientFlow
from minidyn.flows.modified import ModifiedFlow
from minidyn.flows.quasistatic import QuasistaticFlow
from minidyn.flows.rod import RodFlow
from minidyn.flows.sme import StochasticModifiedFlow
from minidyn.flows.subquadratic import SubquadraticFlow
from minidyn.flows.symbolic import SymbolicFlow

__all__ = [
    "CentralFlow", "Flow", "GradientFlow", "ModifiedFlow", "QuasistaticFlow", "RodFlow", "StochasticModifiedFlow",
    "SubquadraticFlow", "SymbolicFlow",
]  # fmt: skip
