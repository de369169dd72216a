"""What can be asked for by name: `name -> "module:function"`, imported when it runs. A new one is one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import signature
from typing import Any

from benchmarks.harness import Row

# workload(quick) yields rows of the table; in the order of the table
WORKLOADS = {
    "w1": "benchmarks.paths:one_path",
    "w2": "benchmarks.paths:many_paths",
    "w2-rules": "benchmarks.paths:rules",
    "w2-network": "benchmarks.paths:network_noise",
    "w3": "benchmarks.diffusion:ensemble",
    "w4": "benchmarks.flows:solves",
    "gradient": "benchmarks.derivatives:gradients",
    "hessian": "benchmarks.derivatives:higher",
    "quasistatic": "benchmarks.flows:quasistatic",
    "calls": "benchmarks.calls:small",
    "sweep": "benchmarks.sweeps:many_settings",
    "compile": "benchmarks.startup:cold",
    "first": "benchmarks.startup:first",
    "start": "benchmarks.startup:processes",
    "draw": "benchmarks.drawing:comparisons",
    "backends": "benchmarks.backends:costs",
    "growth": "benchmarks.growth:exponents",
    "memory": "benchmarks.growth:memory",
    "cluster": "benchmarks.cluster:gains",
    "client": "benchmarks.cluster:memory",
}

# study() or study(quick=...) prints what it finds; only by name
STUDIES = {
    "instructions": "benchmarks.instructions:instructions",
    "million": "benchmarks.million:million",
    "stability": "benchmarks.stability:main",
}


def load(target: str) -> Callable[..., Any]:
    """The function behind `module:function`."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def workload(name: str, quick: bool) -> Iterator[Row]:
    """The rows of one workload."""
    yield from load(WORKLOADS[name])(quick)


def study(name: str, quick: bool) -> None:
    """Run one study."""
    function = load(STUDIES[name])
    function(**({"quick": quick} if "quick" in signature(function).parameters else {}))
