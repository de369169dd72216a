"""loss + rule + noise = one discrete step.

The state of a path is `z = (theta, aux...)`, one value per coordinate and component. Kernels work on
blocks of 64 paths side by side: component `q` of lane `j` is `s[q*64 + j]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidyn import rules
from minidyn.errors import FlowError, InputError
from minidyn.graph import LANE, SAMPLE, Graph, Node, reachable
from minidyn.kernels import Emitter, Source, coordinate, pointer, store, store_gradient
from minidyn.kernels.loops import advance_block
from minidyn.kernels.random import seed_key, seed_lanes
from minidyn.loss import Loss
from minidyn.noise import BoundNoise, Noise

Floats = NDArray[np.float64]
_FUSED = 24  # up to this many state components a step is one straight-line body


class Map:
    """The discrete system `z' = F(z; g + noise)`: an update rule on a loss, with gradient noise.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(lr=0.05), md.GaussianNoise(0.3))
    >>> sgd.step([2.0, 1.0], noise=False)
    array([1.9 , 0.75])
    """

    def __init__(self, loss: Loss, rule: rules.Rule, noise: Noise | None = None):
        if not isinstance(loss, Loss):
            raise InputError(f"a Map needs a Loss first, not {type(loss).__name__}.")
        if not isinstance(rule, rules.Rule):
            raise InputError(f"a Map needs an update rule such as md.SGD(lr=0.1), not {rule!r}.")
        if noise is not None and not isinstance(noise, Noise):
            raise InputError(f"noise must be a noise model such as md.GaussianNoise(0.1), not {noise!r}.")
        self.loss, self.rule, self.noise = loss, rule, noise
        self.bound = BoundNoise(loss, noise)

    @property
    def dim(self) -> int:
        """Number of parameters D."""
        return self.loss.dim

    @property
    def components(self) -> int:
        """Length of the state `z`: D for theta and D for each auxiliary variable of the rule."""
        return self.dim * (1 + len(self.rule.states))

    def lr(self, k: float = 1) -> float:
        """The learning rate at step k: the time `t` that the step takes."""
        return self.rule.lr(k)

    def time(self, steps: ArrayLike) -> Floats:
        """Flow time `t` after the given numbers of steps: `lr k`, or the sum of a schedule's rates."""
        k = np.asarray(steps, dtype=float)
        if not self.rule.scheduled or not k.size:
            return self.lr() * k
        rates = np.array([self.lr(i) for i in range(1, int(k.max()) + 1)])
        return np.concatenate([[0.0], np.cumsum(rates)])[k.astype(int)]

    def with_lr(self, lr: float) -> Map:
        """The same map at another learning rate."""
        return Map(self.loss, self.rule.with_hyper(lr=lr), self.noise)

    # -- kernels --------------------------------------------------------------------------------
    @cached_property
    def source(self) -> Source:
        """The generated text of `step` and `draw`."""
        src = Source(f"map {self.rule.name} on {self.loss}")
        src.line(
            "from minidyn.kernels.random import normals, shuffle, signs, with_replacement, "
            "without_replacement"
        )
        src.add("draw", "r, z, index, order, k, n", self.bound.draw_lines())
        looped = self.loss.per_sample or any(b.shape for b in self.loss.blocks)
        if self.components <= _FUSED and not looped:
            self._add_fused_step(src)
        else:
            self._add_called_step(src)
        return src

    @cached_property
    def kernels(self) -> ModuleType:
        """The compiled module."""
        return self.source.load()

    def _step_header(self) -> list[str]:
        return ["kk = float(k)"] if self.rule.uses_step or self.rule.scheduled else []

    def _add_fused_step(self, src: Source) -> None:
        """The whole step as one straight-line body inside the loop over lanes."""
        g, size = Graph(), self.dim
        new: list[Node] = []
        states: list[Node] = []
        gradient = {e.data[1]: d for e, d in self.bound.gradient(g)}
        for p in range(size):
            grad = gradient.get(p, g.const(0.0))
            for sigma, z in self.bound.sigma_terms(g, p):
                grad = grad + sigma * z
            aux = [g.load("aux", a * size + p) for a in range(len(self.rule.states))]
            theta, *rest = self.rule.update(g, g.load("w", p), grad, aux, g.load("kk", 0))
            new.append(theta)
            states += rest
        lanes = _LaneGraph(("w", "aux", "z", "label"))
        stores = [store(lanes.graph, lanes(n), "w", p, per=LANE) for p, n in enumerate(new)]
        for q, n in enumerate(states):
            p, a = divmod(q, len(self.rule.states))
            stores.append(store(lanes.graph, lanes(n), "aux", a * size + p, per=LANE))
        total = lanes.graph.const(0.0)
        for n in new:
            total = total + lanes.graph.unary("abs", lanes(n))
        finite = lanes.graph.binary("lt", total, lanes.graph.load("inf"))
        alive = lanes.graph.load("ok", per=LANE) + lanes.graph.select(finite, 1.0, 0.0)
        stores.append(store(lanes.graph, alive, "ok", per=LANE))

        def read(array: str, address: str) -> str:
            rows = {"w": 0, "aux": size, "z": 0, "label": self.bound.first_label}
            if array in ("kk", "inf"):
                return {"kk": "kk", "inf": "np.inf"}[array]
            if array == "ok":
                return "ok[lane]"
            if array == "d":
                return f"d[0, {address}]"
            if array in rows:
                name = "s" if array in ("w", "aux") else "z"
                return f"{name}[{(int(address) + rows[array]) * LANE.size} + lane]"
            return f"{array}[{address}]"

        emitter = Emitter(
            stores, read=read, headers={LANE: ["for lane in range(64):"]}, mutable=("w", "aux", "ok"),
            names=self.loss.names | {("hp", i): f"h_{h}" for i, h in enumerate(self.rule.hyper)},
        )  # fmt: skip
        lines = [*self._step_header(), *emitter.lines(), "return 0"]
        src.add("step", "s, z, index, size, k, hp, c, d, nz, ok", lines)

    def _add_called_step(self, src: Source) -> None:
        """Per lane: copy theta, call the noisy gradient, then apply the rule coordinate by coordinate."""
        size, first_label = self.dim, self.bound.first_label
        g = Graph()
        pairs = self.bound.gradient(g)
        before, stores = store_gradient(g, pairs, "out", size)
        picked = ["    i = index[b*64 + lane]"] if self.bound.picks else ["    i = b"]

        def read(array: str, address: str) -> str:
            if array == "d":
                return f"d[{'i' if self.loss.per_sample else '0'}, {address}]"
            if array == "label":
                turn = "b" if self.loss.per_sample else "0"
                return f"z[({first_label} + {turn})*64 + lane]"
            return f"{array}[{address}]"

        emitter = self.loss.emitter(
            stores, read=read, headers={SAMPLE: ["for b in range(n):", *picked]}, blocks=self.bound.noise.batch != 1
        )
        src.add("noisy_grad", "w, c, d, nz, z, index, n, lane, out", [*before, *emitter.lines()])
        lines = self._gaussian_lines()
        if lines:
            src.add("add_gaussian", "w, c, d, nz, z, lane, out", lines)
        p = coordinate(size)
        rg = Graph()
        here = [(p, 1)]
        aux = [rg.load("aux", a * size, here) for a in range(len(self.rule.states))]
        outs = self.rule.update(rg, rg.load("w", 0, here), rg.load("out", 0, here), aux, rg.load("kk", 0))
        rule_stores = [store(rg, n, "s", i * size, here) for i, n in enumerate(outs)]

        def rule_read(array: str, address: str) -> str:
            if array == "kk":
                return "kk"
            if array == "aux":
                return f"s[({size} + {address})*64 + lane]"
            return {"s": f"s[({address})*64 + lane]"}.get(array, f"{array}[{address}]")

        rule_emitter = Emitter(
            rule_stores, read=rule_read, mutable=("aux",),
            names={("hp", i): f"h_{h}" for i, h in enumerate(self.rule.hyper)},
        )  # fmt: skip
        body = [
            *self._step_header(), f"w = np.empty({size})", f"out = np.empty({size})", "for lane in range(64):",
            f"    for q in range({size}):", "        w[q] = s[q*64 + lane]",
            "    noisy_grad(w, c, d, nz, z, index, size, lane, out)",
            *(["    add_gaussian(w, c, d, nz, z, lane, out)"] if lines else []),
            *["    " + line for line in rule_emitter.lines()],
            "    total = 0.0", f"    for q in range({size}):", "        total += abs(s[q*64 + lane])",
            "    if total < np.inf:", "        ok[lane] += 1.0", "return 0",
        ]  # fmt: skip
        src.add("step", "s, z, index, size, k, hp, c, d, nz, ok", body)

    def _gaussian_lines(self) -> list[str]:
        if self.bound.noise.sigma is None:
            return []
        g = Graph()
        stores = []
        for position in self.bound.positions:
            offset, strides = (position, []) if isinstance(position, int) else (0, [(position, 1)])
            for sigma, z in self.bound.sigma_terms(g, position):
                stores.append(store(g, sigma * z, "out", offset, strides, add=True))

        def read(array: str, address: str) -> str:
            return f"z[({address})*64 + lane]" if array == "z" else f"{array}[{address}]"

        return self.loss.emitter(stores, read=read).lines()

    # -- in Python ------------------------------------------------------------------------------
    @property
    def hyper(self) -> Floats:
        """The hyperparameters' numbers as kernels read them."""
        return np.array(self.rule.hyper_values or [0.0])

    def initial_state(self, w0: ArrayLike) -> Floats:
        """`z0 = (w0, 0...)`, shape (..., components)."""
        w = self.loss.check(w0, "w0")
        return np.concatenate([w, np.zeros((*w.shape[:-1], self.components - self.dim))], axis=-1)

    def step(self, z: ArrayLike, k: int = 1, noise: bool = True, rng: object = None) -> Floats:
        """One step of the map from `z`; `z` may be theta alone, then the auxiliary state starts at zero.

        Returns what was given: the new theta, or the whole new state. Shapes `(..., D)` or
        `(..., components)`. With `noise=False` the full gradient is used. `rng` is a seed,
        `SeedSequence` or `Generator`.

        Raises InputError if the last axis of `z` has neither length.
        """
        array = np.asarray(z, dtype=float)
        alone = array.ndim > 0 and array.shape[-1] == self.dim
        if not alone and (array.ndim == 0 or array.shape[-1] != self.components):
            raise InputError(
                f"z has shape {array.shape}, expected (..., {self.dim}) for theta or (..., {self.components}) "
                "for the whole state."
            )
        state = self.initial_state(array) if alone else array
        system = self if noise else Map(self.loss, self.rule)
        lead, flat = state.shape[:-1], state.reshape(-1, self.components)
        blocks = pack(flat)
        bound = system.bound
        _, key = seed_key(rng)
        shuffler = np.random.default_rng(key)
        r, draws, index, order = np.empty(256, np.uint64), *buffers(bound)
        draw, one_step = pointer(system.kernels, "draw"), pointer(system.kernels, "step")
        numbers = (self.hyper, self.loss.c, self.loss.rows, bound.numbers)
        n = self.loss.n_samples or 1
        for number, s in enumerate(blocks):
            seed_lanes(key, number * 64, r)
            if bound.noise.sampling == "reshuffle":  # in the middle of an epoch its order is any order
                order = shuffler.permuted(order.reshape(-1, 64), axis=0).ravel()
            advance_block(draw, one_step, s, r, draws, index, order, k, n, *numbers, np.zeros(64))
        new = unpack(blocks, len(flat)).reshape((*lead, self.components))
        return new[..., : self.dim] if alone else new

    def fixed_point(self, w: ArrayLike) -> Floats:
        """The state z* = (w, aux*) that the noise-averaged map leaves in place at a point w of the minima.

        Raises FlowError where there is none (noise that vanishes where the rule divides by its size).
        """
        return self._linearization(w)[0]

    def linearize(self, w: ArrayLike) -> tuple[Floats, Floats]:
        """`A = dF/dz` (components, components) and `B = dF/dg` (components, D) of the noise-averaged map
        at the fixed point above a point w of the minima; z is ordered (theta, first state, ...).

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> md.Map(md.Loss(x**2, [x]), md.SGD(0.1, momentum=0.5)).linearize([0.0])[0]
        array([[ 0.8 , -0.05],
               [ 2.  ,  0.5 ]])
        """
        return self._linearization(w)[1:]

    def _linearization(self, w: ArrayLike) -> tuple[Floats, Floats, Floats]:
        from minidyn.linearization import AveragedMap

        point = self.loss.check(w)
        if point.ndim != 1:
            raise InputError(f"one point of shape ({self.dim},) is expected here, not {point.shape}.")
        code, z, a, b = AveragedMap(self).linearize(point)
        if code:
            raise FlowError(
                f"{self.rule} has no fixed point at {np.round(point, 6).tolist()}: the noise vanishes in a coordinate "
                "where the rule divides by its size."
            )
        return z, a, b

    def __repr__(self) -> str:
        return f"Map({self.loss}, {self.rule}, {self.noise or 'no noise'})"

    def _repr_markdown_(self) -> str:
        return f"{self.loss._repr_latex_()}\n\n{self.rule._repr_latex_()}\n\n{self.noise or 'no noise'}"


def pack(states: Floats) -> Floats:
    """Paths `(N, Q)` -> blocks `(ceil(N/64), Q*64)`; the last block is padded with its last path."""
    count, q = states.shape
    blocks = -(-count // 64)
    padded = np.concatenate([states, np.repeat(states[-1:], blocks * 64 - count, axis=0)])
    return np.ascontiguousarray(padded.reshape(blocks, 64, q).transpose(0, 2, 1)).reshape(blocks, q * 64)


def unpack(blocks: Floats, count: int) -> Floats:
    """Blocks -> paths `(count, Q)`."""
    b, q = len(blocks), blocks.shape[1] // 64
    return blocks.reshape(b, q, 64).transpose(0, 2, 1).reshape(b * 64, q)[:count]


def buffers(bound: BoundNoise) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Room for one block's draws, picked samples, and the order of the samples."""
    n = bound.loss.n_samples or 1
    order = np.repeat(np.arange(n if bound.picks else 1), 64)
    return np.zeros(max(bound.rows, 1) * 64), np.zeros(bound.batch * 64, np.int64), order


class _LaneGraph:
    """Copies nodes into a graph where the named arrays have one column per lane."""

    def __init__(self, arrays: Sequence[str]):
        self.graph, self.arrays = Graph(), frozenset(arrays)
        self._memo: dict[int, Node] = {}

    def __call__(self, node: Node) -> Node:
        for n in reachable([node]):
            if n.id in self._memo:
                continue
            args = [self._memo[a.id] for a in n.args]
            if n.op == "load":
                array, offset, strides = n.data
                per = LANE if array in self.arrays else None
                self._memo[n.id] = self.graph.load(array, offset, strides, per)
            else:
                self._memo[n.id] = self.graph.make(n.op, args, n.data)
        return self._memo[node.id]
