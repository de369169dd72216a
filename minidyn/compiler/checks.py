"""What checked mode writes: code that looks before it touches memory.

Looked at are indices, slices, sizes of new arrays, numbers that were never written, whole numbers that do not fit or
are divided by zero. Where a check fails that is noted, and the access goes to spare memory instead, so that the code
goes on unharmed to its end. Without checked mode none of this is written.
"""

from functools import reduce

from minidyn.compiler.llvm import lane_count
from minidyn.compiler.numbers import Numbers
from minidyn.compiler.types import I8, LANE, VB, VI, Vector
from minidyn.compiler.values import Value, everywhere
from minidyn.compiler.violations import checked

UNWRITTEN = 0xFD  # the byte that fresh memory is filled with: eight of them are no likely number
_PATTERN = int.from_bytes(bytes([UNWRITTEN] * 8), "little", signed=True)
_HELPERS = """
@spare = internal global [256 x i64] zeroinitializer, align 64
declare void @minidyn_note(ptr, i64, i64)
define internal void @never(i1 %bad, i64 %a, i64 %b, ptr %where) noinline {
  br i1 %bad, label %no, label %yes
no:
  call void @minidyn_note(ptr %where, i64 %a, i64 %b)
  br label %yes
yes:
  ret void
}
define internal i1 @inside(i64 %i, i64 %n, ptr %where) noinline {
  %good = icmp ult i64 %i, %n
  %bad = xor i1 %good, true
  call void @never(i1 %bad, i64 %i, i64 %n, ptr %where)
  ret i1 %good
}
"""


class Checks(Numbers):
    """The part of a `Writer` that writes checks; each gives a condition, or None where there are no checks."""

    def where(self, what: str) -> str:
        """A text in the module: what is wrong, and where; `#a` and `#b` are numbers."""
        if not self.module.checks:
            self.module.checks = True
            self.module.text.append(_HELPERS)
        return str(self.module.phrase(self.located(what)))

    def within(self, array: Value, at: list[Value]) -> str | None:
        """Whether indices lie inside an array; negative ones do not."""
        if any(i.constant is not None and i.constant < 0 for i in at):
            self.fail("an index counts from the beginning, and is not negative")
        if not checked():
            return None
        conditions = []
        for axis, index in enumerate(at[: array.type.ndim]):
            size = array.parts[1 + axis]
            where = self.where(f"the index #a is outside of axis {axis}, which has #b entries")
            conditions += [self.let(f"call i1 @inside(i64 {i}, i64 {size}, ptr {where})") for i in self.extremes(index)]
        return reduce(lambda a, b: self.let(f"and i1 {a}, {b}"), conditions)

    def extremes(self, index: Value) -> list[str]:
        """The numbers among the lanes' that tell whether all lie in a range that begins at zero."""
        if index.type is LANE:
            return [index.one, self.let(f"add i64 {index.one}, {lane_count() - 1}")]
        if isinstance(index.type, Vector):
            return [self.reduced("umax", index.type, index.one)]
        return [self.convert(index, I8).one]

    def reduced(self, kind: str, type_: Vector, value: str) -> str:
        """One number of all lanes: their greatest as unsigned ones, or whether one is true."""
        item = type_.item.llvm
        name = f"llvm.vector.reduce.{kind}.v{lane_count()}{item}"
        self.module.declare(name, f"declare {item} @{name}({type_.llvm})")
        return self.let(f"call {item} @{name}({type_.llvm} {value})")

    def slice_within(self, low: str, high: str, size: str) -> str | None:
        """Whether `low:high` is a part of an axis."""
        if not checked():
            return None
        bad = self.let(f"icmp ugt i64 {high}, {size}"), self.let(f"icmp ugt i64 {low}, {high}")
        self.refuse(bad[0], False, "the slice ends at #a, and its axis at #b", high, size)
        self.refuse(bad[1], False, "the slice ends at #a, and begins at #b", high, low)
        return self.let(f"xor i1 true, {self.let(f'or i1 {bad[0]}, {bad[1]}')}")

    def or_spare(self, good: str | None, pointer: str, type_: str = "ptr") -> str:
        """A pointer (or several), or spare memory where a check has failed."""
        if good is None:
            return pointer
        spare = "@spare" if type_ == "ptr" else everywhere("ptr", "@spare")
        return self.let(f"select i1 {good}, {type_} {pointer}, {type_} {spare}")

    def or_nothing(self, good: str | None, sizes: tuple[str, ...]) -> tuple[str, ...]:
        """Sizes, or zeros where a check has failed, so that nothing of the array is touched."""
        if good is None:
            return sizes
        return tuple(self.let(f"select i1 {good}, i64 {s}, i64 0") for s in sizes)

    def room(self, sizes: list[str]) -> list[str]:
        """The sizes of a new array, none of them negative."""
        if not checked():
            return sizes
        where = self.where("an array of size #a cannot be made")
        out = []
        for s in sizes:
            if not s.isdigit():
                good = self.let(f"call i1 @inside(i64 {s}, i64 {2**48}, ptr {where})")
                s = self.let(f"select i1 {good}, i64 {s}, i64 0")
            out.append(s)
        return out

    def was_written(self, value: Value) -> Value:
        """A number just read, noted if nothing had been written there."""
        if not checked():
            return value
        kind, bits = value.type, value.one
        wide = isinstance(kind, Vector)
        whole = VI.llvm if wide else "i64"
        if kind.llvm != whole:
            bits = self.let(f"bitcast {kind.llvm} {bits} to {whole}")
        pattern = _number(_PATTERN, wide)
        self.refuse(self.let(f"icmp eq {whole} {bits}, {pattern}"), wide, "a number is read that was never written")
        return value

    def refuse(self, bad: str, wide: bool, what: str, *numbers: str) -> None:
        """Note what is wrong if a condition holds, in one lane at least."""
        where = self.where(what)
        if wide:
            bad = self.reduced("or", VB, bad)
        a, b = ("0", "0") if wide else (*numbers, "0", "0")[:2]
        self.put(f"call void @never(i1 {bad}, i64 {a}, i64 {b}, ptr {where})")

    # -- whole numbers -------------------------------------------------------------------------------
    def exact(self, kind: str, a: Value, b: Value) -> Value | None:
        """A sum, difference or product of signed numbers, noted if it does not fit; None where there are no checks."""
        if not checked():
            return None
        wide = isinstance(a.type, Vector)
        t, flag = a.type.llvm, VB.llvm if wide else "i1"
        name = f"llvm.s{kind}.with.overflow.{f'v{lane_count()}' if wide else ''}i64"
        self.module.declare(name, f"declare {{{t}, {flag}}} @{name}({t}, {t})")
        both = self.let(f"call {{{t}, {flag}}} @{name}({t} {a.one}, {t} {b.one})")
        bad = self.let(f"extractvalue {{{t}, {flag}}} {both}, 1")
        self.refuse(bad, wide, "a whole number does not fit into 64 bits", a.one, b.one)
        return Value(a.type, (self.let(f"extractvalue {{{t}, {flag}}} {both}, 0"),))

    def divisor(self, a: Value, b: Value) -> Value:
        """What a whole number is divided by: 1 in the place of what cannot be."""
        if not checked():
            return b
        t, wide = b.type.llvm, isinstance(b.type, Vector)
        flag = VB.llvm if wide else "i1"
        one, zero, minus, least = (_number(n, wide) for n in (1, 0, -1, -(2**63)))
        bad = self.let(f"icmp eq {t} {b.one}, {zero}")
        if (b.type.item if wide else b.type) is I8:
            pair = self.let(f"icmp eq {t} {b.one}, {minus}"), self.let(f"icmp eq {t} {a.one}, {least}")
            bad = self.let(f"or {flag} {bad}, {self.let(f'and {flag} {pair[0]}, {pair[1]}')}")
        self.refuse(bad, wide, "#a is divided by #b", a.one, b.one)
        return Value(b.type, (self.let(f"select {flag} {bad}, {t} {one}, {t} {b.one}"),))

    def shift(self, b: Value) -> Value:
        """By how much a word is shifted: less than its width."""
        if not checked():
            return b
        t, wide = b.type.llvm, isinstance(b.type, Vector)
        bad = self.let(f"icmp uge {t} {b.one}, {_number(64, wide)}")
        self.refuse(bad, wide, "a word of 64 bits is shifted by #a", b.one)
        flag = VB.llvm if wide else "i1"
        return Value(b.type, (self.let(f"select {flag} {bad}, {t} zeroinitializer, {t} {b.one}"),))


def _number(n: int, wide: bool) -> str:
    """A whole number, in all lanes if there are several."""
    return everywhere("i64", str(n)) if wide else str(n)
