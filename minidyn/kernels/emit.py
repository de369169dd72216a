"""Graph -> lines of readable Python for the compiler.

The outputs of a kernel are `store` nodes. Every node runs in the loop nest of its own indices; a
sum becomes available when its loop closes. Loops over the same index are fused as far as the
dependencies allow, and a value that outlives its loop is kept in a scratch array.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from minidyn.graph import SAMPLE, Graph, Index, Node, reachable, users
from minidyn.kernels import calls
from minidyn.kernels.samples import SIDE, SIDES, beside, block, side_by_side

_LEAVES = frozenset(("const", "load", "count", "index"))
_INFIX = {
    "or": (1, "or"), "and": (2, "and"), "lt": (4, "<"), "le": (4, "<="), "gt": (4, ">"),
    "ge": (4, ">="), "eq": (4, "=="), "ne": (4, "!="), "add": (5, "+"), "sub": (5, "-"),
    "mul": (6, "*"), "div": (6, "/"),
}  # fmt: skip
_CALLS = {"abs": "abs", "min": "minimum", "max": "maximum", "floor": "np.floor", "ceil": "np.ceil"}
_ATOM = 9
_SAMPLES = "for b in range(n):"
Places = dict[str, str | Callable[[int], str]]


def store(graph: Graph, value: Node, array: str, offset: int = 0,
          strides: Iterable[tuple[Index, int]] = (), add: bool = False,
          per: Index | None = None) -> Node:  # fmt: skip
    """An output: `array[offset + ...] = value`, or `+=` where several values meet in one entry."""
    strides = tuple(sorted(strides))
    indices = value.indices | {i for i, _ in strides} | ({per} if per else set())
    return graph.make("store", (value,), (array, offset, strides, add), frozenset(indices))


def matrix(name: str, columns: int) -> Places:
    """How an array of two axes lies whose elements are numbered row by row."""
    return {name: lambda place: f"{name}[{place // columns}, {place % columns}]"}


@dataclass
class _Block:
    """The body of one loop (or of the function)."""

    context: tuple[Index, ...]
    parent: _Block | None
    items: list[Node | _Block] = field(default_factory=list)

    def encloses(self, other: _Block | None) -> bool:
        return other is self or (other is not None and self.encloses(other.parent))


def home(n: Node) -> frozenset[Index]:
    """The loops inside which a node does its work."""
    if n.op in calls.TAKERS:
        return frozenset().union(*(a.indices for a in n.args)) - calls.inner(n)
    return n.args[0].indices if n.op == "sum" else n.indices - calls.inner(n)


def renamed(n: Node, index: Index) -> bool:
    """Whether a node reads its argument under another name than this, so that all turns of the loop come first."""
    return n.op == "moved" and any(i == index for i, _ in n.data)


class Emitter:
    """Schedules the nodes behind some stores and writes them down.

    `places` says how arrays lie in memory: for each of them the text of an element, with `{}` for its place, or a
    function of the place where that is a number known now; any other one lies as `array[place]`. `headers[index]` are
    the lines that open a loop (default `for var in range(size)`); `mutable` names arrays that are read and stored in
    place. A loop over samples or a table goes by blocks of turns side by side, unless `blocks` is false.
    """

    def __init__(self, stores: Sequence[Node], places: Places | None = None,
                 headers: dict[Index, list[str]] | None = None, mutable: Iterable[str] = (),
                 names: dict[tuple[str, int], str] | None = None, sample_count: str = "n",
                 blocks: bool = True):  # fmt: skip
        self.places = places or {}
        self.headers = {SAMPLE: [_SAMPLES, "    i = b"]} | (headers or {})
        self.stores = calls.gathered(stores, lambda array: array not in self.places)
        self.sample_count = sample_count
        loops = beside(self.stores) if blocks and self.headers[SAMPLE][0] == _SAMPLES else []
        self.beside = {block(loop): loop for loop in loops}
        if loops:
            self.stores = side_by_side(self.stores, loops)
        for each, loop in self.beside.items():
            self.headers[each] = [f"for block in range(({self._count(loop)} + {SIDES - 1}) // {SIDES}):"]
        self.nodes = reachable(self.stores)
        self.mutable = frozenset(mutable)
        self.names = names or {}
        self.uses = users(self.nodes)
        self.place: dict[int, _Block] = {}
        self.place_result: dict[int, _Block] = {}
        self._inline: dict[int, int] = {}
        self.done: set[int] = set()
        self.top: list[str] = []
        self._taken: Counter[str] = Counter()

    # -- scheduling -----------------------------------------------------------------------------
    def lines(self) -> list[str]:
        """The body of the kernel, unindented."""
        root = _Block((), None)
        self._schedule(root, [n for n in self.nodes if n.op not in _LEAVES])
        self.arrays = self._scratch()
        body = self._write(root, {})
        return self.top + body

    def _schedule(self, block: _Block, nodes: list[Node]) -> None:
        context = frozenset(block.context)
        remaining = sorted(nodes, key=lambda n: (n.op == "store", n.id))
        while remaining:
            rest: list[Node] = []
            for n in remaining:  # what is ready here and now
                if home(n) == context and self._ready(n) and not (n.op == "store" and rest):
                    block.items.append(n)
                    self.place[n.id] = block
                    if n.op != "sum":
                        self.done.add(n.id)
                else:
                    rest.append(n)
            remaining = rest
            if not remaining:
                break
            chosen, index = self._next_loop(remaining, context)
            inner = _Block((*block.context, index), block)
            block.items.append(inner)
            self._schedule(inner, chosen)
            self.done.update(n.id for n in chosen if n.op == "sum" and n.data == index)
            taken = {n.id for n in chosen}
            remaining = [n for n in remaining if n.id not in taken]

    def _ready(self, n: Node) -> bool:
        return all(a.op in _LEAVES or a.id in self.done for a in n.args)

    def _next_loop(self, remaining: list[Node], context: frozenset[Index]) -> tuple[list[Node], Index]:
        """The innermost loop that can run now, with everything that fits into it."""
        openers = {min(home(n) - context) for n in remaining if home(n) > context}
        for index in sorted(openers, reverse=True):
            inside: dict[int, Node] = {}
            closed = context | {index}
            for n in remaining:
                outer = home(n) - context
                if not outer or min(outer) != index:
                    continue
                if all(
                    a.op in _LEAVES
                    or a.id in self.done
                    or (a.id in inside and not (a.op == "sum" and a.data in closed) and not renamed(n, index))
                    for a in n.args
                ):
                    inside[n.id] = n
            if inside:
                return list(inside.values()), index
        raise AssertionError("the graph has a cycle")

    # -- scratch arrays -------------------------------------------------------------------------
    def _scratch(self) -> dict[int, tuple[Index, ...]]:
        """For each value that is needed outside its own loop: the loops that number its copies."""
        arrays: dict[int, tuple[Index, ...]] = {}
        for n in self.nodes:
            if n.op in _LEAVES or n.op == "store":
                continue
            block = self._result_block(n)
            users = [self.place[u.id] for u in self.uses.get(n.id, [])]
            while not all(block.encloses(u) for u in users):
                assert block.parent is not None
                block = block.parent
            missing = sorted(n.indices - frozenset(block.context))
            if missing:
                arrays[n.id] = tuple(missing)
            self.place_result[n.id] = block
        return arrays

    def _result_block(self, n: Node) -> _Block:
        block = self.place[n.id]
        if n.op == "sum":  # alive from before its loop opens
            while n.data in block.context:
                assert block.parent is not None
                block = block.parent
        return block

    # -- writing --------------------------------------------------------------------------------
    def _write(self, block: _Block, outer: dict[int, str]) -> list[str]:
        out: list[str] = []
        bound = dict(outer)
        context = frozenset(block.context)
        for n in self.nodes:  # what is changed in place is read before anything is written
            if n.op != "load" or n.indices != context:
                continue
            users = self.uses[n.id]
            named = n.data[:2] in self.names and not n.data[2]
            if (named or len(users) > 1 or n.data[0] in self.mutable) and any(
                block.encloses(self.place[u.id]) for u in users
            ):
                bound[n.id] = self._name(self.names[n.data[:2]] if named else f"r{n.id}")
                out.append(f"{bound[n.id]} = {self._element(*n.data)}")
        for n in self.nodes:  # accumulators that live in this block
            if n.op == "sum" and self.place_result[n.id] is block:
                if n.id in self.arrays:
                    size = self._size(self.arrays[n.id])
                    self.top.append(f"s{n.id} = np.empty({size})")
                    out += [f"for q in range({size}):", f"    s{n.id}[q] = 0.0"]
                else:
                    out.append(f"s{n.id} = 0.0")
        for item in block.items:
            if isinstance(item, _Block):
                index = item.context[-1]
                body = self._write(item, bound)
                out += self.headers.get(index, [f"for {index.var} in range({self._count(index)}):"])
                if index == SIDE and item.context[0] in self.beside:
                    out += self._places(self.beside[item.context[0]], body)
                out += ["    " + line for line in body]
            else:
                out += self._statement(item, block, bound)
        return out or ["pass"]

    def _places(self, loop: Index, body: list[str]) -> list[str]:
        """Which sample or row this is, where the body wants to know: lines before it."""
        text, count = "\n".join(body), self._count(loop)
        out = [f"    inside = block*8 + side < {count}"] if "inside" in text else []
        if loop != SAMPLE:
            return [*out, f"    {loop.var} = min(block*8 + side, {count} - 1)"]
        if re.search(r"\b[ib]\b", text):
            out += [f"    b = min(block*8 + side, {count} - 1)", *self.headers[SAMPLE][1:]]
        return out

    def _statement(self, n: Node, block: _Block, bound: dict[int, str]) -> list[str]:
        if n.op == "store":
            array, offset, strides, add = n.data
            target = self._element(array, offset, strides)
            return [f"{target} {'+=' if add else '='} {self._text(n.args[0], bound)[0]}"]
        if n.op == "sum":
            where = f"s{n.id}"
            if n.id in self.arrays:
                where += f"[{self._slot(self.arrays[n.id])}]"
            if n.data in self.beside:
                part = self._name(f"a{n.id}")
                return [f"{part} = {self._text(n.args[0], bound)[0]}", f"{where} += {part} if inside else 0.0"]
            return [f"{where} += {self._text(n.args[0], bound)[0]}"]
        if n.op in calls.GIVERS:
            self.top.append(f"t{n.id} = np.empty({self._size(self.arrays[n.id])})")
            return calls.call(n, self._held)
        users = self.uses.get(n.id, [])
        text, _ = self._expression(n, bound)
        if n.id in self.arrays:
            self.top.append(f"t{n.id} = np.empty({self._size(self.arrays[n.id])})")
            name = self._name(f"e{n.id}")
            bound[n.id] = name
            return [f"{name} = {text}", f"t{n.id}[{self._slot(self.arrays[n.id])}] = {name}"]
        if len(users) == 1 and self.place[users[0].id] is block and len(re.sub(r"\d", "", text)) < 60:  # whatever sizes
            bound[n.id] = "\0" + text  # used once, here: written inline
            self._inline[n.id] = self._precedence(n)
            return []
        name = self._name(f"t{n.id}")
        bound[n.id] = name
        return [f"{name} = {text}"]

    def _name(self, name: str) -> str:
        self._taken[name] += 1
        if self._taken[name] > 1:
            return self._name(f"{name}_{self._taken[name]}")
        return name

    def _text(self, n: Node, bound: dict[int, str]) -> tuple[str, int]:
        if n.op == "const":
            return (repr(n.data), _ATOM if n.data >= 0 else 7)
        if n.op == "count":
            return f"float({self.sample_count})", _ATOM
        if n.op == "index":
            return f"float({n.data.var})", _ATOM
        known = bound.get(n.id)
        if known is not None:
            return (known[1:], self._inline[n.id]) if known[0] == "\0" else (known, _ATOM)
        if n.op == "load":
            return self._element(*n.data), _ATOM
        if n.id in self.arrays:
            prefix = "s" if n.op == "sum" else "t"
            return f"{prefix}{n.id}[{self._slot(self.arrays[n.id])}]", _ATOM
        assert n.op == "sum", n
        return f"s{n.id}", _ATOM

    def _precedence(self, n: Node) -> int:
        if n.op in _INFIX:
            return _INFIX[n.op][0]
        return {"neg": 7, "not": 3, "select": 0, "powi": 6}.get(n.op, _ATOM)

    def _expression(self, n: Node, bound: dict[int, str]) -> tuple[str, int]:
        def arg(k: int, level: int) -> str:
            text, own = self._text(n.args[k], bound)
            return f"({text})" if own < level else text

        own = self._precedence(n)
        if n.op in _INFIX:
            return f"{arg(0, own)} {_INFIX[n.op][1]} {arg(1, own + 1)}", own
        if n.op == "neg":
            return f"-{arg(0, 8)}", own
        if n.op == "not":
            return f"not {arg(0, 4)}", own
        if n.op == "select":
            return f"{arg(1, 1)} if {arg(0, 1)} else {arg(2, 1)}", own
        if n.op == "powi":
            return _power(arg(0, _ATOM), n.data), own
        if n.op in ("copy", "held"):
            return arg(0, 0), _ATOM
        if n.op == "moved":
            return self._moved(n), _ATOM
        if n.op in calls.TAKERS:
            return calls.scalar(n, self._held), _ATOM
        if n.op == "across":
            outer = tuple(i for i in self.arrays[n.args[0].id] if i != SIDE)
            return f"across(s{n.args[0].id}, {f'({self._slot(outer)})*{SIDES}' if outer else 0})", _ATOM
        if n.op == "pow":
            return self._pow(arg(0, 0), n.args[1], arg(1, 0)), _ATOM
        inner = ", ".join([arg(k, 0) for k in range(len(n.args))] + [str(order) for order in n.data or ()])
        return f"{_CALLS.get(n.op, n.op)}({inner})", _ATOM

    @staticmethod
    def _pow(x: str, exponent: Node, text: str) -> str:
        """Small half-integer powers by a square root, the others by the library's pow."""
        n = abs(exponent.data) - 0.5 if exponent.is_const else 0.0
        if x.isidentifier() and n in (1.0, 2.0, 3.0):
            product = f"({'*'.join([x] * int(n))}*sqrt({x}))"
            return product if exponent.data > 0.0 else f"(1.0/{product})"
        return f"pow({x}, {text})"

    # -- addresses ------------------------------------------------------------------------------
    def _held(self, n: Node) -> tuple[str, str, dict[Index, str]]:
        return calls.held(n, self.arrays.get(n.id, ()), self._count)

    def _moved(self, n: Node) -> str:
        """A table read under other names of its loops."""
        names = dict(n.data)
        array, _, _ = self._held(n.args[0])
        return f"{array}[{self._slot(tuple(names.get(i, i) for i in self.arrays[n.args[0].id]))}]"

    def _count(self, index: Index) -> str:
        return self.sample_count if index == SAMPLE else str(index.size)

    def _size(self, indices: tuple[Index, ...]) -> str:
        return "*".join(self._count(i) for i in indices)

    def _slot(self, indices: tuple[Index, ...]) -> str:
        text = indices[0].var if indices[0] != SAMPLE else "b"
        for i in indices[1:]:
            text = f"({text})*{self._count(i)} + {i.var}"
        return text

    def _position(self, offset: int, strides: Sequence[tuple[Index, int]]) -> str:
        terms = [i.var if s == 1 else f"{i.var}*{s}" for i, s in strides]
        if offset or not terms:
            terms.insert(0, str(offset))
        return " + ".join(terms)

    def _element(self, array: str, offset: int, strides: Sequence[tuple[Index, int]]) -> str:
        lies, place = self.places.get(array, array + "[{}]"), self._position(offset, strides)
        return lies.format(place) if isinstance(lies, str) else lies(int(place))


def _power(x: str, n: int) -> str:
    """Small whole powers by multiplication, the others by the library's pow."""
    inverse, n = n < 0, abs(n)
    if not (x.isidentifier()) or n > 4:
        text = f"pow({x}, {float(n)})"
    else:
        text = {1: x, 2: f"{x}*{x}", 3: f"{x}*{x}*{x}", 4: f"({x}*{x})*({x}*{x})"}[n]
    return f"1.0/({text})" if inverse else f"({text})"
