"""One LLVM module: an entry, everything that it calls, the constants that they read."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minidyn.compiler.types import F8, I8, U8, Table
from minidyn.compiler.values import Unsupported, Value, number


class Module:
    """Collects the text of a module while its functions are written."""

    def __init__(self, writer: Callable[..., Any], side_by_side: bool = True) -> None:
        """writer : makes what writes one function into this module (`codegen.Writer`)."""
        self.writer, self.side_by_side = writer, side_by_side
        self.text: list[str] = []
        self.declared: dict[str, str] = {}
        self.constants: dict[int, tuple[str, Any]] = {}
        self.compiled: dict[tuple[Any, tuple[Any, ...]], tuple[str, Any]] = {}
        self.busy: list[Any] = []
        self.kept = 0
        self.checks = False
        self.phrases: dict[str, str] = {}

    def declare(self, name: str, line: str) -> None:
        """A function of the C library or of LLVM that the module uses."""
        self.declared[name] = line

    def constant(self, array: np.ndarray[Any, Any]) -> Value:
        """An array of the surrounding module, written into the code."""
        item = {"f": F8, "i": I8, "u": U8}[array.dtype.kind]
        if id(array) not in self.constants:
            name = f"@array{len(self.constants)}"
            values = [number(v) if item is F8 else str(int(v)) for v in array.ravel()]
            body = ", ".join(f"{item.llvm} {v}" for v in values)
            kind = f"[{array.size} x {item.llvm}]"
            self.text.append(f"{name} = private unnamed_addr constant {kind} [{body}], align 64\n")
            self.constants[id(array)] = (name, array)
        return Value(Table(item, array.ndim), (self.constants[id(array)][0], *map(str, array.shape)))

    def phrase(self, text: str) -> str:
        """The address of a text in the module."""
        if text not in self.phrases:
            self.phrases[text] = name = f"@phrase{len(self.phrases)}"
            letters = "".join(f"\\{byte:02X}" for byte in [*text.encode(), 0])
            kind = f"[{len(letters) // 3} x i8]"
            self.text.append(f'{name} = private unnamed_addr constant {kind} c"{letters}"\n')
        return self.phrases[text]

    def function(self, function: Any, types: tuple[Any, ...], name: str | None = None) -> tuple[str, Any]:
        """Write a function for these argument types; its name in the module and its result type."""
        key = (function, types)
        if key not in self.compiled:
            if function in self.busy:
                raise Unsupported(f"{function.identity} calls itself.")
            self.busy.append(function)
            symbol = name or f"{function.name}.{len(self.compiled) + len(self.busy)}"
            writer = self.writer(self, function, types, symbol, internal=name is None)
            self.text.append(writer.write())
            self.compiled[key] = (symbol, writer.result)
            self.busy.pop()
        return self.compiled[key]

    def kept_loop(self) -> str:
        """A mark for a loop that is not to be unrolled before it can be vectorized."""
        self.kept += 1
        return f", !llvm.loop !{self.kept}"

    def assembly(self) -> str:
        """The module in LLVM's assembly."""
        marks = [f"!{k} = distinct !{{!{k}, !0}}" for k in range(1, self.kept + 1)]
        return "\n".join([*self.declared.values(), *self.text, '!0 = !{!"llvm.loop.unroll.disable"}', *marks])
