"""Flows that carry themselves from event to event, in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.simulate.engines import ByColumn, meant

Floats = NDArray[np.float64]


class CarriedEngine(ByColumn):
    """A flow that carries itself from event to event, in Python; equal starting points are carried once."""

    def __init__(self, flow: Flow, start: Floats, rtol: float, atol: float):
        self.flow, self.rtol, self.atol = flow, rtol, atol
        self.points, which = np.unique(start, axis=0, return_inverse=True)
        self.which = which.ravel()
        self.memory: list[dict[str, Any]] = [{} for _ in self.points]
        self.status, self.ended = np.zeros(len(self.points), np.int8), np.zeros(len(self.points), np.int64)
        self.meta: dict[str, Any] = {"method": "dopri5", "rtol": rtol, "atol": atol}

    def slice(self, wanted: int) -> int:
        """At most 16 steps: they are made in Python, one start after the other."""
        return min(wanted, 16)

    def advance(self, done: int, count: int) -> None:
        """Carry each distinct start, with a memory of its own, from `done + 1/2` to `done + count + 1/2` on the clock.

        One that fails or is no longer finite is NaN from then on, and has ended with the last step of the slice.
        """
        for path, (w, memory) in enumerate(zip(self.points, self.memory, strict=True)):
            if self.status[path]:
                continue
            # step k of the map covers the times from k - 1 to k: in its middle a schedule stands at k
            with np.errstate(over="ignore", invalid="ignore"):  # a status says it
                code = self.flow.advance(w, memory, done + 0.5, done + count + 0.5, self.rtol, self.atol)
            code = code or (0 if np.isfinite(w).all() else int(Status.DIVERGED))
            if code:
                self.status[path], self.ended[path] = code, done + count
                self.meta.setdefault("reason", memory.get("reason", ""))
                w[:] = np.nan

    def states(self) -> Floats:
        """The flow's whole state at every distinct start, where the run stands."""
        return self.points

    def parameters(self) -> Floats:
        """Theta (paths, D), of each path that of its start; NaN where it has ended."""
        return self.points[self.which, : self.flow.dim]

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Status and last step (paths,) of each path, those of its start; `done` where it goes on."""
        status = meant(self.flow, self.status[self.which])
        return status, np.where(status == 0, done, self.ended[self.which])

    def state(self) -> dict[str, NDArray[Any]]:
        """States, statuses and ends of the distinct starts; their memories and `meta` as JSON in bytes."""
        text = json.dumps([self.memory, self.meta], default=lambda array: {"array": array.tolist()})
        return {
            "points": self.points, "status": self.status, "ended": self.ended,
            "memory": np.frombuffer(text.encode(), np.uint8),
        }  # fmt: skip

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from such a state; what was an array in a memory is one of floats again."""
        for name in ("points", "status", "ended"):
            getattr(self, name)[...] = state[name]

        def revive(found: dict[str, Any]) -> Any:
            return np.array(found["array"], dtype=float) if list(found) == ["array"] else found

        self.memory, self.meta = json.loads(state["memory"].tobytes(), object_hook=revive)
