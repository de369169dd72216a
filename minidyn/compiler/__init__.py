"""A small compiler: numerical loops in a subset of Python -> LLVM -> machine code, cached on disk.

numba's front end spends nearly all of its time on what these loops do not need (objects, reference counts,
unification of types); without it the same loops compile some twenty times faster into equally fast code.
"""

from minidyn.compiler.functions import Function, FunctionPointer, compiled, jit
from minidyn.compiler.intrinsics import Known, across, horner, lanes, side_by_side, some
from minidyn.compiler.types import signature

__all__ = [
    "Function", "FunctionPointer", "Known", "across", "compiled", "horner", "jit", "lanes", "side_by_side",
    "signature", "some",
]  # fmt: skip
