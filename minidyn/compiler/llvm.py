"""LLVM: assembly -> optimized machine code -> an address; through llvmlite alone.

Machine code belongs to one processor model and one version of LLVM: `machine()` names both.
"""

import ctypes
import ctypes.util
import platform
import re
import sys
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from minidyn.compiler import violations
from minidyn.compiler.settings import setting


@cache
def _ready() -> Any:
    """Initialize LLVM once; the target machine."""
    _look_at_version()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for function in (*LIBM, "fma", "rint", "floor", "ceil", "sqrt"):  # and what LLVM itself calls
        llvm.add_symbol(function, ctypes.cast(getattr(libm(), function), ctypes.c_void_p).value)
    llvm.add_symbol("minidyn_note", violations.NOTE)
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True
    )


def _look_at_version() -> None:
    """Warn of a version of llvmlite that minidyn's own requirement leaves out: pip said so too, long ago."""
    try:
        wanted = next(r for r in requires("minidyn") or () if r.startswith("llvmlite"))
    except (PackageNotFoundError, StopIteration):  # a source tree that was not installed
        return
    bounds = {sign: _numbers(text) for sign, text in re.findall(r"(>=|<)([\d.]+)", wanted)}
    here = _numbers(llvmlite.__version__)
    if here < bounds.get(">=", here) or not here < bounds.get("<", (*here, 0)):
        warnings.warn(
            f"minidyn was tested with {wanted.replace(' ', '')}, not with llvmlite {llvmlite.__version__}: install one "
            "of those, or set MINIDYN_COMPILER=numba and compare.",
            stacklevel=2,
        )


def _numbers(version: str) -> tuple[int, ...]:
    """`0.44.0rc1` as (0, 44, 0)."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


@cache
def libm() -> ctypes.CDLL:
    """The C library's functions of numbers."""
    return ctypes.CDLL(ctypes.util.find_library("m") if sys.platform != "win32" else "ucrtbase")


LIBM = frozenset(  # the functions of the C library that the language has
    "acos acosh asin asinh atan atan2 atanh cosh erf erfc expm1 lgamma log1p log2 sinh tan tanh pow exp log sin cos "
    "log10 fmod cbrt hypot".split()
)


@cache
def machine() -> str:
    """The processor, the compiler and its settings that machine code belongs to."""
    processor = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()} {lane_count()}"
    return f"{llvmlite.__version__} {llvm.llvm_version_info} {processor} {sys.platform} {violations.checked()}"


@cache
def has_fma() -> bool:
    """Whether this processor multiplies and adds in one rounding."""
    found = llvm.get_host_cpu_features()
    return bool(found.get("fma") or found.get("neon") or found.get("fullfp16"))


@cache
def instruction_set() -> str:
    """What of the processor reaches numbers: one rounding for a product and a sum, and the vectors of its libraries."""
    found = llvm.get_host_cpu_features()
    return " ".join([platform.machine(), *["fma"] * has_fma(), *(n for n in ("avx2", "avx512f") if found.get(n))])


@cache
def lane_count() -> int:
    """How many lanes run side by side: MINIDYN_LANES, or two vectors of this processor, so that one waits less for the
    other. Every number runs on every processor and gives the same bits."""
    forced = setting("MINIDYN_LANES", ("4", "8", "16"), "how many lanes run side by side")
    found = llvm.get_host_cpu_features()
    return int(forced) if forced else 16 if found.get("avx512f") else 8 if found.get("avx2") else 4


def optimize(assembly: str, thorough: bool = True) -> bytes:
    """Machine code (an object file) for a module in LLVM's assembly."""
    target = _ready()
    return bytes(target.emit_object(_optimized(assembly, thorough)))


def explain(assembly: str, thorough: bool = True) -> str:
    """The processor's assembly that a module becomes: to see what was vectorized."""
    return str(_ready().emit_assembly(_optimized(assembly, thorough)))


@cache
def _context() -> Any:
    """Where modules live. LLVM before 17 takes a pointer for one to nothing in particular only where it is told to."""
    if llvm.llvm_version_info[0] >= 17:
        return None
    from llvmlite.binding import context, ffi

    return context.ContextRef(ffi.lib.LLVMPY_ContextCreate(True))


def _optimized(assembly: str, thorough: bool) -> Any:
    target = _ready()
    module = llvm.parse_assembly(assembly, _context())
    module.triple = target.triple
    module.data_layout = str(target.target_data)
    thorough = thorough and not violations.checked()  # whose code is to be compiled fast
    options = llvm.create_pipeline_tuning_options(speed_level=1 if violations.checked() else 3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = thorough
    options.loop_unrolling = thorough
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return module


_engines: list[Any] = []  # machine code lives as long as its engine


def load(code: bytes, symbol: str) -> int:
    """The address of a symbol of an object file, loaded into this process."""
    target = _ready()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(symbol)
    if not address:
        raise RuntimeError(f"the compiled code lacks {symbol}")
    _engines.append(engine)
    return int(address)
