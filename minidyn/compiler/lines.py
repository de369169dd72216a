"""The lines of a function that is being written, and what is known about it so far."""

import ast
from typing import Any, NoReturn

from minidyn.compiler.module import Module
from minidyn.compiler.types import Constant, varies
from minidyn.compiler.values import Unsupported, Value


class Lines:
    """The part of a `Writer` that puts one line after another."""

    def __init__(self, module: Module, function: Any, types: tuple[Any, ...], symbol: str, internal: bool):
        self.module, self.function, self.types, self.symbol, self.internal = module, function, types, symbol, internal
        self.globals = function.py_func.__globals__
        self.in_lanes = any(map(varies, types))
        self.lines: list[str] = []
        self.top: list[str] = []
        self.count = 0
        self.variables: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self.known: dict[str, Value] = {}
        self.own: set[str] = set()  # what the function gives a value to somewhere
        self.settled: set[str] = set()  # and in one place only
        self.given: set[str] | None = set()  # the names that surely have a value here; None where nothing arrives
        self.arrivals: dict[str, set[str]] = {}
        self.constants: dict[str, Constant] = {}
        self.result: Any = None
        self.returned = False
        self.ended = False
        self.loops: list[tuple[str, str]] = []
        self.inlined = 0
        self.heap: list[str] = []
        self.node: ast.AST | None = None

    def fail(self, what: str) -> NoReturn:
        """Say which line of which function is outside the subset."""
        raise Unsupported(self.located(what))

    def located(self, what: str) -> str:
        """Something that is said about the line being written."""
        line = getattr(self.node, "lineno", 0)
        text = ast.unparse(self.node) if self.node is not None else ""
        return f"{self.function.identity}, line {line}: {what} (`{text[:80]}`)"

    def new(self, prefix: str = "t") -> str:
        """A fresh name."""
        self.count += 1
        return f"%{prefix}{self.count}"

    def put(self, line: str) -> None:
        """A line that gives no value."""
        if not self.ended:
            self.lines.append("  " + line)

    def let(self, text: str) -> str:
        """A line that gives a value; its name."""
        name = self.new()
        self.put(f"{name} = {text}")
        return name

    def block(self, prefix: str) -> str:
        """A fresh label."""
        self.count += 1
        return f"{prefix}{self.count}"

    def label(self, name: str) -> None:
        """Begin a block; what came before runs on into it."""
        if not self.ended:
            self.jump(name)
        self.open(name)

    def open(self, name: str) -> None:
        """Begin a block that is reached by jumps only."""
        self.lines.append(f"{name}:")
        self.ended = False
        self.given = self.arrivals.get(name)

    def jump(self, name: str) -> None:
        """Go to a block."""
        self.arrive(name)
        self.put(f"br label %{name}")
        self.ended = True

    def branch(self, condition: str, yes: str, no: str) -> None:
        """Go to one of two blocks."""
        for name in (yes, no) if condition not in ("true", "false") else (yes if condition == "true" else no,):
            self.arrive(name)
        self.put(f"br i1 {condition}, label %{yes}, label %{no}")
        self.ended = True

    def arrive(self, name: str) -> None:
        """What has a value here has one in a block, if it has one wherever that is reached from.

        A loop's head is written before the ways back to it; what has a value there has one at their beginning too.
        """
        if not self.ended and self.given is not None:
            self.arrivals[name] = self.given & self.arrivals.get(name, self.given)

    def keep(self, value: Value, slots: tuple[str, ...] | list[str]) -> None:
        """Store a value's components."""
        for t, p, s in zip(value.type.parts, value.parts, slots, strict=True):
            self.put(f"store {t} {p}, ptr {s}")

    def fetch(self, type_: Any, slots: tuple[str, ...] | list[str]) -> Value:
        """The value whose components were stored."""
        return Value(type_, tuple(self.let(f"load {t}, ptr {s}") for t, s in zip(type_.parts, slots, strict=True)))
