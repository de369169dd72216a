"""Random programs of the compiler's language: small functions on numbers and arrays that mean the same in Python.

`program(rng, in_lanes)` gives the text of a module with a function `f`, `arguments(seed)` what it is called with.
Nothing in them depends on rounding beyond IEEE arithmetic, nothing overflows, and every index is in its array, so that
a compiled form must end with the bits of the text run as Python.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

_HEAD = '''"""A random program."""

import math

import numpy as np

from minidyn.compiler import jit, lanes
from minidyn.compiler.intrinsics import across, some

TABLE = np.array([[0.5, -1.25, 2.0], [3.5, -0.0, 0.1]])
SHIFT = 0.75


@jit(inline=True)
def swing(x, y):
    return x * y - SHIFT, (x if x > y else -y)


@jit
def total(a, n):
    s = 0.0
    for i in range(n):
        if a[i] > 1.5:
            continue
        s += a[i]
    return s


@jit(%s)
def f(x, n, a, m, b, out, whole):
'''
ARGS = "x, n, a, m, b, out, whole"


def arguments(seed: int) -> tuple[object, ...]:
    """A float, a small whole number, arrays a (64,), m (64,) of whole numbers, b (3, 4), two (64,) to be changed."""
    rng = np.random.default_rng(seed)
    return (
        float(rng.normal()),
        int(rng.integers(0, 6)),
        rng.normal(size=64),
        rng.integers(-9, 10, 64),
        rng.normal(size=(3, 4)),
        rng.normal(size=64),
        rng.integers(-9, 10, 64),
    )


def program(rng: random.Random, in_lanes: bool) -> str:
    """The text of a module whose function `f` takes `arguments`."""
    options = rng.choice(["", "thorough=True", "noalias=True"])
    body = _Lanes(rng).lanes() if in_lanes else _Plain(rng).plain()
    return _HEAD % options + "\n".join("    " + line for line in body) + "\n"


class _Plain:
    """Grows expressions and statements; floats stay within 50, whole numbers within 97, in every variable."""

    floats, wholes = ("x", "u", "v"), ("n", "i", "j")
    arrays: tuple[str, ...] = (
        "a[{} % 64]",
        "out[{} % 64]",
        "b[{} % 3, {} % 4]",
        "b[{} % 3][{} % 4]",
        "TABLE[{} % 2, {} % 3]",
        "w[{} % 5]",
    )

    def __init__(self, rng: random.Random):
        self.rng, self.counters, self.depth = rng, 0, 0

    def pick(self, *choices: str) -> str:
        return self.rng.choice(choices)

    # -- expressions --------------------------------------------------------------------------------
    def real(self, deep: int = 3) -> str:
        """A float."""
        if deep == 0:
            return self.pick(*self.floats, repr(self.rng.randint(-16, 16) / 8))
        p, q, k, c = (lambda: self.real(deep - 1)), (lambda: self.real(deep - 1)), self.whole, self.truth
        return self.rng.choice([
            lambda: f"({p()} + {q()})", lambda: f"({p()} - {q()})", lambda: f"{p()} * {q()}",
            lambda: f"({p()} / (1.0 + abs({q()})))", lambda: f"(-{p()})", lambda: f"abs({p()})",
            lambda: f"({p()} if {c(deep - 1)} else {q()})", lambda: f"min({p()}, {q()})",
            lambda: f"max({p()}, {q()}, 0.25)", lambda: f"math.sqrt(abs({p()}))", lambda: f"({k(deep - 1)} * {p()})",
            lambda: f"float({k(deep - 1)})", lambda: f"({k(deep - 1)} / 8)",
            lambda: self.element(deep - 1), lambda: self.element(deep - 1), lambda: f"math.floor({p()}) * 0.5",
            lambda: f"math.sin({p()})",
        ])()  # fmt: skip

    def element(self, deep: int) -> str:
        pattern = self.pick(*self.arrays)
        return pattern.format(*(self.whole(deep) for _ in range(pattern.count("{}"))))

    def whole(self, deep: int = 2) -> str:
        """A whole number."""
        if deep <= 0:
            return self.pick(*self.wholes, str(self.rng.randint(-5, 9)))
        p, q = (lambda: self.whole(deep - 1)), (lambda: self.whole(deep - 1))
        number = self.rng.choice([-7, -3, -2, -1, 1, 2, 5, 16])
        return self.rng.choice([
            lambda: f"({p()} + {q()})", lambda: f"({p()} - {q()})", lambda: f"({p()} * {q()})",
            lambda: f"({p()} // {number})", lambda: f"({p()} % {number})", lambda: f"abs({p()})",
            lambda: f"min({p()}, {q()})", lambda: f"max({p()}, {q()})", lambda: f"({p()} & {q()})",
            lambda: f"({p()} | {q()})", lambda: f"({p()} ^ {q()})", lambda: f"({p()} << {self.rng.randint(0, 3)})",
            lambda: f"({p()} >> {self.rng.randint(0, 3)})", lambda: f"m[{p()} % 64]",
            lambda: f"({p()} if {self.truth(deep - 1)} else {q()})",
            lambda: f"int(min(max({self.real(deep - 1)}, -9.0), 9.0))",
        ])()  # fmt: skip

    def truth(self, deep: int = 1) -> str:
        """A condition."""
        if deep <= 0:
            return self.rng.choice(
                [
                    f"{self.real(0)} {self.pick('<', '<=', '>', '>=', '==', '!=')} {self.real(0)}",
                    f"{self.whole(0)} {self.pick('<', '<=', '>', '>=', '==', '!=')} {self.whole(0)}",
                ]
            )
        p, q = (lambda: self.truth(deep - 1)), (lambda: self.truth(deep - 1))
        return self.rng.choice(
            [
                lambda: f"({p()} and {q()})",
                lambda: f"({p()} or {q()})",
                lambda: f"(not {p()})",
                lambda: f"-1.0 < {self.real(deep - 1)} <= {self.real(deep - 1)}",
                p,
            ]
        )()

    # -- statements ---------------------------------------------------------------------------------
    def tamed(self) -> str:
        return f"min(max({self.real()}, -50.0), 50.0)"

    def to_variables(self, u: str, v: str, i: str) -> list[Callable[[], list[str]]]:
        """Ways to give variables other values."""
        return [
            lambda: [f"{u} = {self.tamed()}"],
            lambda: [f"{u} += 0.125 * {self.tamed()}", f"{u} *= 0.5"],
            lambda: [f"{i} = {self.whole()} % 97"],
            lambda: [f"{i} += {self.whole()} % 5", f"{i} %= 97"],
            lambda: [f"{u}, {v} = {v}, {u}"],
            lambda: [f"{u}, {v} = swing(0.5 * {u}, {self.tamed()} / 50.0)"],
        ]

    def assignment(self) -> list[str]:
        u, v = self.rng.sample(["x", "u", "v"], 2)
        i = self.pick("i", "j")
        return self.rng.choice(
            [
                *self.to_variables(u, v, i),
                lambda: [f"out[{self.whole()} % 64] = {self.tamed()}"],
                lambda: [f"out[{self.whole()} % 64] *= 0.5"],
                lambda: [f"whole[{self.whole()} % 64] = {self.whole()} % 97"],
                lambda: [f"w[{self.whole()} % 5] = {self.tamed()}"],
            ]
        )()

    def block(self, size: int, in_loop: bool) -> list[str]:
        return [line for _ in range(size) for line in self.statement(in_loop)]

    def statement(self, in_loop: bool = False) -> list[str]:
        kind = self.rng.random()
        if kind < 0.55 or self.depth == 3:
            return self.assignment()
        self.depth += 1
        inner = lambda loop=in_loop: ["    " + line for line in self.block(self.rng.randint(1, 3), loop)]  # noqa: E731
        if kind < 0.7:
            lines = [f"if {self.truth()}:", *inner()]
            lines += self.rng.choice([[], ["else:", *inner()], [f"elif {self.truth()}:", *inner(), "else:", *inner()]])
        elif kind < 0.85:
            self.counters += 1
            k = f"k{self.counters}"
            span = self.pick("4", "n", "1, n", "n, 0, -1", "i % 5", "2, 9, 3")
            lines = [f"for {k} in range({span}):", f"    j = (j + {k}) % 97", *inner(True)]
        elif kind < 0.95:
            self.counters += 1
            k = f"k{self.counters}"
            test = self.pick(f"{k} < 4", f"{k} < n and {self.truth()}", "True")
            stop = ["    if " + f"{k} > 5:", "        break"]
            lines = [f"{k} = 0", f"while {test}:", f"    {k} += 1", *stop, *inner(True)]
        elif in_loop:
            lines = [f"if {self.truth()}:", f"    {self.pick('break', 'continue')}"]
        else:
            lines = self.array()
        self.depth -= 1
        return lines

    def array(self) -> list[str]:
        """Views, copies and calls that read whole arrays."""
        return self.rng.choice([
            ["row = b[i % 3]", "u = 0.25 * total(row, 4)"], ["part = a[n : 60]", "v = 0.25 * part[j % 50]"],
            ["again = w.copy()", "again[0] = u", "v = min(max(again[0] + w[0], -50.0), 50.0)"],
            ["room = np.empty((2, 3))", "for q in range(6):", "    room[q // 3, q % 3] = q * u", "v = room[1, 2] / 8"],
            ["u = min(max(across(a, n * 8), -50.0), 50.0)"], ["z = x", "x = z - u if z > u else u"],
        ])  # fmt: skip

    def plain(self) -> list[str]:
        """The body of a function that branches as it likes."""
        lines = ["u, v = 0.5, -x", "i, j = n, 3 - n", "w = np.zeros(5)", *self.block(self.rng.randint(3, 7), False)]
        early = [f"if {self.truth()}:", "    return u"] if self.rng.random() < 0.3 else []
        return [*lines, *early, *self.block(2, False), "out[0] = x", "out[1] = v", "whole[0] = i", "return u + 0.0 * j"]


class _Lanes(_Plain):
    """The same in lanes: variables differ from lane to lane, and all branches are choices."""

    floats, wholes = ("x", "u", "v", "s"), ("n", "i", "j", "lane")
    arrays = ("a[{} % 64]", "b[{} % 3, {} % 4]", "TABLE[{} % 2, {} % 3]", "a[lane]", "out[lane]", "w[k % 5]")

    def assignment(self) -> list[str]:
        u, v = self.rng.sample(["s", "u", "v"], 2)
        i = self.pick("i", "j")
        return self.rng.choice([
            *self.to_variables(u, v, i),
            lambda: [f"out[lane] = {self.tamed()}"], lambda: ["out[lane] *= 0.5"],
            lambda: [f"whole[lane] = {self.whole()} % 97"], lambda: [f"w[k % 5] = {self.tamed()}"],
            lambda: [f"c = {self.truth()} and {u} < {v}", "if some(c):", f"    {u} = {self.tamed()} if c else {u}"],
            lambda: ["e = np.zeros(8)", f"e[k % 8] = {u}", f"e[{self.rng.randint(0, 7)}] = {v}", f"{u} = across(e, 0)"],
        ])()  # fmt: skip

    def statement(self, in_loop: bool = False) -> list[str]:
        if self.rng.random() < 0.75 or self.depth == 2:
            return self.assignment()
        self.depth += 1
        inner = ["    " + line for line in self.block(self.rng.randint(1, 3), True)]
        span = self.pick("4", "n", "1, n", "n, 0, -1")
        self.depth -= 1
        return self.rng.choice([[f"for k in range({span}):", *inner], [f"if n > {self.rng.randint(0, 5)}:", *inner]])

    def lanes(self) -> list[str]:
        """The body of a function whose lanes run side by side, alike for each of them."""
        body = self.block(self.rng.randint(4, 8), False)
        start = ["s, u, v = 0.0, a[lane], -a[lane]", "i = m[lane]", "j = 3 - m[lane]", "k = 0", "w = np.zeros(5)"]
        ends = ["out[lane] = s + u - v", "whole[lane] = i - j"]
        return ["for lane in lanes(64):", *("    " + line for line in [*start, *body, *ends]), "return 0.0"]
