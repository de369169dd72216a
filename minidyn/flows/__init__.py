"""Effective flows, one file per theory."""

from minidyn.flows.base import Flow
from minidyn.flows.gradient import GradientFlow
from minidyn.flows.modified import ModifiedFlow
from minidyn.flows.quasistatic import QuasistaticFlow
from minidyn.flows.sme import StochasticModifiedFlow

__all__ = ["Flow", "GradientFlow", "ModifiedFlow", "QuasistaticFlow", "StochasticModifiedFlow"]
