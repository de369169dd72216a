"""Effective flows, one file per theory."""

from minidyn.flows.base import Flow
from minidyn.flows.gradient import GradientFlow
from minidyn.flows.quasistatic import QuasistaticFlow
from minidyn.flows.symbolic import SymbolicFlow

__all__ = ["Flow", "GradientFlow", "QuasistaticFlow", "SymbolicFlow"]
