"""Update rules, written once, symbolically; PyTorch's conventions.

A rule is a function on sympy symbols that reads like the paper. From it minidyn compiles the
discrete step, and derives the averaged rule that effective flows are built from.
"""

from minidyn.maps.rules.displacement import Displacement, displaced, displacement
from minidyn.maps.rules.library import BUILTIN, GD, LIBRARY, SGD, Adam, AdamW, Lion, RMSProp, SignGD
from minidyn.maps.rules.making import rule
from minidyn.maps.rules.rule import Rule, settled

__all__ = [
    "BUILTIN", "GD", "LIBRARY", "SGD", "Adam", "AdamW", "Displacement", "Lion", "RMSProp", "Rule", "SignGD",
    "displaced", "displacement", "rule", "settled",
]  # fmt: skip
