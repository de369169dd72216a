"""What a loss becomes: nodes of a graph, and the compiled functions that are written from them."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import Named
from minidyn.common.errors import InputError
from minidyn.common.locks import Form, cached_property, derived, form
from minidyn.graph import SAMPLE, SHORTEST, Array, Converter, Graph, Index, Node, Numbers, derivatives, tables, walk
from minidyn.kernels import Emitter, Places, Source, mangle, store, store_gradient
from minidyn.maps.loss import quoted
from minidyn.maps.loss.outputs import Outputs
from minidyn.maps.loss.parameters import Block, label_of

IN_REGISTERS = 24  # numbers of a state that a loop over paths or lanes keeps near the processor
_TITLE = 200  # letters of a loss that stands in the title of its kernels
# of an emitter: a kernel of one sample, as the only turn of the loop over samples
ONE_SAMPLE: dict[str, Any] = {"headers": {SAMPLE: ["if True:", "    i = sample"]}, "sample_count": "1"}


class Compiled(metaclass=Named):
    """The part of a `Loss` that knows its kernels."""

    _offers = ""
    expr: sp.Expr
    model: Any
    outputs: Outputs | None
    weight: Any
    criterion: str | None
    target: Any
    certain: bool
    blocks: list[Block]
    constants: dict[Any, Any]
    numbers: Numbers
    dim: int
    n_samples: int | None
    rows: Floats
    _columns: dict[Any, tuple[int, tuple[int, ...]]]

    @cached_property
    def form(self) -> Form:
        """All that the texts of its kernels depend on: neither the numbers of constants nor the samples."""
        constants = tuple((s, np.shape(v)) for s, v in self.constants.items())
        return form(self.expr, tuple(self.blocks), constants, tuple(self._columns.items()), self.per_sample,
                    self.model, self.outputs, self.criterion, self.target, self.weight, self.certain)  # fmt: skip

    @property
    def per_sample(self) -> bool:
        """Whether kernels loop over samples (one sample alone is read directly)."""
        return self.n_samples is not None and self.n_samples > 1

    def converter(
        self, graph: Graph, replace: Mapping[Any, Node | Array] | None = None, numbers: Numbers | None = None
    ) -> Converter:
        """sympy -> nodes that read parameters from `w`, constants from `c` and data from `d`, or as `replace` says.

        numbers : of loops in sums that are written out; None where these stay so.
        """
        symbols: dict[Any, Node] = {}
        arrays: dict[str, Array] = {}
        per = SAMPLE if self.per_sample else None
        for s, (offset, shape) in self._places.items():
            if shape:
                arrays[str(label_of(s))] = Array("c", offset, shape)
            else:
                symbols[s] = graph.load("c", offset)
        for s, (offset, shape) in self._columns.items():
            if shape:
                arrays[str(label_of(s))] = self.array(s)
            else:
                symbols[s] = graph.load("d", offset, per=per)
        for block in self.blocks:
            if block.shape:
                arrays[block.name] = Array("w", block.offset, block.shape)
            else:
                symbols[block.symbol] = graph.load("w", block.offset)
        for s, what in (replace or {}).items():
            if isinstance(what, Array):
                arrays[str(label_of(s))] = what
            else:
                symbols[s] = what
        return Converter(graph, symbols, arrays, numbers)

    def array(self, symbol: Any) -> Array:
        """Where the data of a vector lie."""
        return Array("d", *self._columns[symbol], SAMPLE if self.per_sample else None)

    def sample_node(self, graph: Graph, replace: Mapping[Any, Node | Array] | None = None, loops: bool = True) -> Node:
        """One sample's loss (the loss itself where there is no data); with `loops` for sums that are written out."""
        return self.converter(graph, replace, self.numbers if loops else None)(self.expr)

    def mean_node(self, graph: Graph, replace: Mapping[Any, Node | Array] | None = None) -> Node:
        """The loss: the mean of `sample_node` over samples."""
        return mean(self.sample_node(graph, replace))

    def need_model(self) -> None:
        """InputError where there is no model."""
        if self.model is None:
            raise InputError("this loss has no model: build it with Loss.regression(model, params, inputs, target).")

    def model_node(self, graph: Graph, loops: bool = True) -> Node:
        """The model `f(x; w)` of a regression loss at one sample; of several outputs the one that their loop is at."""
        self.need_model()
        convert = self.converter(graph, numbers=self.numbers if loops else None)
        if self.outputs is None:
            return convert(self.model)
        of, each = self.outputs, self.outputs.each
        if not walk.has_matrices(each):
            return convert.inside({of.letter: (of.index, of.low)}, each)
        whole = Index(1, "sum", of.count)  # tables have slopes only where a loop runs over all their entries
        own = graph.binary("eq", tables.number(graph, whole), tables.number(graph, of.index))
        return graph.sum(graph.select(own, convert.inside({of.letter: (whole, of.low)}, each), 0.0), whole)

    @property
    def turns(self) -> str:
        """How many outputs on samples there are, in the words of a kernel that has n samples."""
        return f"n * {self.outputs.count}" if self.outputs else "n"

    def share_of(self, sample: str) -> str:
        """How a kernel reads the share that a sample has of the loss, its weight over the mean one; "" if that is 1."""
        return "" if self.weight is None else f"d[{sample}, {self._columns[self.weight][0]}]"

    def share_node(self, graph: Graph) -> Node:
        """The same of a sample, as a node."""
        return graph.const(1.0) if self.weight is None else self.converter(graph)(self.weight)

    @property
    def one_output(self) -> dict[str, Any]:
        """As `ONE_SAMPLE`, for kernels of one output at one sample: its number `sample` is that of the sample times C
        plus that of the output."""
        if self.outputs is None:
            return ONE_SAMPLE
        index, count = self.outputs.index, self.outputs.count
        sample, output = f"    i = sample // {count}", f"    {index.var} = sample % {count}"
        return {"headers": {SAMPLE: ["if True:", sample], index: ["if True:", output]}, "sample_count": "1"}

    @derived
    def straight(self) -> bool:
        """Whether its kernels have no loops: no data, no matrices, parameters and outputs one by one, no long sums."""
        loops = (self.outputs is not None and not self.outputs.listed) or self.numbers.used
        if self.per_sample or loops or any(b.shape for b in self.blocks):
            return False
        return not walk.has_matrices(self.expr)

    @cached_property
    def _places(self) -> dict[Any, tuple[int, tuple[int, ...]]]:
        """Where each constant begins in `c`, and its shape."""
        shapes = [np.shape(v) for v in self.constants.values()]
        begins = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
        return {s: (int(k), shape) for s, k, shape in zip(self.constants, begins[:-1], shapes, strict=True)}

    def place_of(self, constant: Any) -> int:
        """Where a constant, or the first number of an array of them, lies in `c`."""
        return self._places[constant][0]

    def _no_numbers(self) -> Numbers:
        """An empty table for loops. What may stay in registers is written out, unless that is longer than those."""
        loops = self.per_sample or any(b.shape for b in self.blocks) or self.dim > IN_REGISTERS
        return Numbers("c", sum(map(np.size, self.constants.values())), SHORTEST if loops else IN_REGISTERS + 1)

    @derived
    def names(self) -> dict[tuple[str, int], str]:
        """Readable names of scalar parameters, constants and data in generated code."""
        out = {("w", b.offset): mangle(b.name, "p") for b in self.blocks if not b.shape}
        out |= {("c", k): mangle(str(s), "c") for s, (k, shape) in self._places.items() if not shape}
        return out | {("d", o): mangle(str(s), "d") for s, (o, shape) in self._columns.items() if not shape}

    def emitter(self, stores: Sequence[Node], places: Places | None = None, **options: Any) -> Emitter:
        """An emitter that knows how this loss's arrays are read."""
        data: Places = {"d": f"d[{'i' if self.per_sample else 0}, {{}}]"}
        return Emitter(stores, data | (places or {}), **{"names": self.names} | options)

    # -- kernels --
    @cached_property
    def kernels(self) -> ModuleType:
        """The compiled module: `value(w, c, d)`, `grad(w, c, d, out)`, `hvp`, `third`, `hessian`, ...

        Its functions can be called from Python and from your own code under `numba.njit`, with
        `c = loss.c` and `d = loss.rows`.
        """
        return self.source.load()

    @derived
    def source(self) -> Source:
        """The generated text behind `kernels`."""
        src = Source(self._titled("loss"))
        count = ["n = d.shape[0]"] if self.per_sample else []

        def add(name: str, args: str, lines: list[str], doc: str) -> None:
            src.add(name, args, [*count, *lines], doc)

        g = Graph()
        loss = self.mean_node(g)
        pairs = derivatives.reverse(loss, "w")
        add("value", "w, c, d", self._returning(g, loss), "L(w)")
        self.add_vector(add, "grad", "w, c, d, out", pairs, "gradient")
        along = differentiate(pairs, "u")
        self.add_vector(add, "hvp", "w, u, c, d, out", along, "Hessian times u")
        self.add_vector(add, "third", "w, u, v, c, d, out", differentiate(along, "v"), "T[u, v]")
        one = self.sample_node(g)
        src.add(
            "sample_value", "w, c, d, sample", self._returning(g, first_sample(one), **ONE_SAMPLE), "one sample's loss"
        )
        self.add_vector(src.add, "sample_grad", "w, c, d, sample, out",
                         derivatives.reverse(first_sample(one), "w"), "its gradient", **ONE_SAMPLE)  # fmt: skip
        if self.model is not None:
            f = first_sample(self.model_node(g))
            src.add("model_value", "w, c, d, sample", self._returning(g, f, **self.one_output), "f(x_i; w)")
            self.add_vector(src.add, "model_grad", "w, c, d, sample, out",
                             derivatives.reverse(f, "w"), "gradient of f(x_i; w)", **self.one_output)  # fmt: skip
        src.quote(quoted.hessian, quoted.third_trace)
        add_many(src, "value", "The loss")
        add_many(src, "grad", "The gradient")
        add_many(src, "hessian", "The Hessian")
        add_many(src, "hvp", "The Hessian times u", "wu")
        add_many(src, "third", "T[u, v]", "wuv")
        add_many(src, "sample_grad", "The gradients of all samples' losses", samples=True)
        if self.model is not None:
            add_many(src, "model_value", "The model's outputs on all samples", samples=True)
            add_many(src, "model_grad", "The gradients of the model's outputs on all samples", samples=True)
        return src

    @derived
    def sample_kernels(self) -> ModuleType:
        """Kernels of single samples that only stability and smoothness ask for: `sample_hvp`, and `input_grad`
        (the model's gradient in the columns of the data) for regressions. A module of its own, so that
        nobody else compiles them."""
        src = Source(self._titled("samples of the loss"))
        g = Graph()
        pairs = derivatives.reverse(first_sample(self.sample_node(g)), "w")
        self.add_vector(src.add, "sample_hvp", "w, u, c, d, sample, out",
                         differentiate(pairs, "u"), "one sample's Hessian times u", **ONE_SAMPLE)  # fmt: skip
        src.quote(quoted.sample_hvps, quoted.square_hvp)
        if self.model is not None:
            pairs = derivatives.reverse(first_sample(self.model_node(Graph())), "d")
            self.add_vector(src.add, "input_grad", "w, c, d, sample, out", pairs,
                             "gradient of f(x_i; w) in the data", self.rows.shape[1], **self.one_output)  # fmt: skip
            add_many(
                src, "input_grad", "The gradients of the model's outputs in the data, on all samples", samples=True
            )
        return src.load()

    def _returning(self, graph: Graph, node: Node, **options: Any) -> list[str]:
        emitter = self.emitter([store(graph, node, "result")], {"result": "result"}, **options)
        return [*emitter.lines(), "return result"]

    def add_vector(self, add: Callable[..., None], name: str, args: str, pairs: list[tuple[Node, Node]],
                    doc: str, size: int | None = None, **options: Any) -> None:  # fmt: skip
        """Add a kernel that fills `out` with a gradient, given as pairs (element of an array, derivative).

        add : takes the kernel, as `Source.add` does. size : entries of `out`, D if not given; those in no pair are 0,
        those in several the sum. options : of the emitter.
        """
        size = size or self.dim
        if not pairs:
            add(name, args, [f"for q in range({size}):", "    out[q] = 0.0"], doc)
            return
        before, stores = store_gradient(pairs[0][0].graph, pairs, "out", size)
        add(name, args, [*before, *self.emitter(stores, **options).lines()], doc)

    def _titled(self, what: str) -> str:
        short = walk.within(self.expr, 3 * _TITLE) and walk.prints(self.expr)  # a part has a third of a letter
        text = str(self.expr) if short else ""
        return f"{what} {text}" if 0 < len(text) < _TITLE else what


def add_many(src: Source, name: str, doc: str, args: str = "w", samples: bool = False) -> None:
    """Add `{name}s`, the kernel `name` of one point `w`, or point and directions, at many, perhaps on all samples."""
    given = [f"{a}s[b]" for a in args] + ["c, d"] + ["s"] * samples
    place = "out[b, s]" if samples else "out[b]"
    call = f"{name}({', '.join([*given, place])})"
    if name.endswith("value"):
        call = f"{place} = {name}({', '.join(given)})"
    turns = ["for s in range(out.shape[1]):", "    " + call] if samples else [call]
    lines = ["for b in range(ws.shape[0]):", *["    " + line for line in turns]]
    src.add(f"{name}s", ", ".join([f"{a}s" for a in args] + ["c, d, out"]), lines, f"{doc} at many points.")


def mean(sample: Node) -> Node:
    """The mean over samples of a node."""
    g = sample.graph
    return g.sum(sample, SAMPLE) / g.count(SAMPLE) if SAMPLE in sample.indices else sample


def first_sample(sample: Node) -> Node:
    """The one sample, or output of a sample, that a kernel is called for, as the only turn of their loops."""
    for index in sorted(sample.indices, reverse=True):
        sample = sample.graph.sum(sample, index)
    return sample


def differentiate(pairs: list[tuple[Node, Node]], direction: str) -> list[tuple[Node, Node]]:
    """The derivatives of a gradient (pairs of element and node) along a direction."""
    tangents = derivatives.forward([d for _, d in pairs], "w", direction)
    return [(n, t) for (n, _), t in zip(pairs, tangents, strict=True)]
