"""The first start of a machine: compile on two cores what would otherwise be compiled one after the other.

The field of a flow and the rest (loss, map, manifold, time loops) do not need each other, and numba
compiles on one core. So the first run of a flow hands its field to a second process; both leave their
code in the cache on disk, and later runs find it there.
"""

from __future__ import annotations

import subprocess
import sys

from minidyn.flows.base import Flow
from minidyn.kernels import cache
from minidyn.library import Model, load_model
from minidyn.simulate import compile_loop, simulate


def _marker(flow: Flow) -> str:
    return f"compiled_{type(flow).__name__}_{cache.code_version()}"


def compile_flows(name: str) -> None:
    """Compile the fields of a model's flows (what the second process does)."""
    for flow in load_model(name).flows():
        flow.pointers  # noqa: B018 - compiled when first asked for
        cache.mark(_marker(flow))


def is_ready(model: Model) -> bool:
    """Whether the fields of the model's flows were compiled on this machine before."""
    return all(cache.marked(_marker(flow)) for flow in model.flows())


def prepare(model: Model) -> None:
    """Compile what a model needs, in two processes."""
    flows = model.flows()
    code = "import sys; from minidyn.warmup import compile_flows; compile_flows(sys.argv[1])"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(model.spec.path or model.name)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        model.manifold.project(model.w0)
        simulate(model.map, model.w0, 1)
        for flow in flows:
            compile_loop(flow)
        other.wait()
    finally:
        if other.poll() is None:
            other.kill()
