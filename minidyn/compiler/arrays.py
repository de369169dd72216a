"""Arrays: items, rows, slices, and room for new ones."""

import ast
from dataclasses import replace
from typing import Any

from minidyn.compiler.checks import UNWRITTEN
from minidyn.compiler.expressions import Expressions
from minidyn.compiler.llvm import lane_count
from minidyn.compiler.types import F8, I8, VB, VI, Array, Constant, Number, Table, Tuple, Vector
from minidyn.compiler.values import Value, everywhere, literal
from minidyn.compiler.violations import checked

_STACK = 512  # numbers: a smaller array of known size lives on the stack
_LITTLE = 8192  # bytes: and so does one of a size found while running


class Arrays(Expressions):
    """The part of a `Writer` that reads and writes memory."""

    def of_Subscript(self, e: ast.Subscript) -> Value:
        """`a[i, j]`, an item; `a[i]` and `a[low:high]`, arrays in the same memory; `t[0]`, a member of a tuple."""
        array = self.expr(e.value)
        if isinstance(array.type, Tuple):
            if not (isinstance(e.slice, ast.Constant) and isinstance(e.slice.value, int)):
                self.fail("a tuple is indexed by a number")
            member = array.members()[e.slice.value]
            return literal(member.type.value) if isinstance(member.type, Constant) else member
        if not isinstance(array.type, Array):
            self.fail("only arrays and tuples have items")
        if isinstance(e.slice, ast.Slice):
            return self.part(array, e.slice)
        at = self.indices(e)
        rest = array.type.ndim - len(at)
        if rest > 0:
            good = self.within(array, at)
            where = self.address(array, [self.convert(i, I8) for i in at])
            type_ = replace(array.type, ndim=rest)
            return Value(type_, (where, *self.or_nothing(good, array.parts[1 + len(at) :])))
        return self.read_item((array, at))

    def part(self, array: Value, piece: ast.Slice) -> Value:
        """`a[low:high]` of an array with one axis."""
        if array.type.ndim != 1 or piece.step is not None:
            self.fail("a slice takes a part of one axis")
        low = self.convert(self.expr(piece.lower), I8).one if piece.lower else "0"
        high = self.convert(self.expr(piece.upper), I8).one if piece.upper else array.parts[1]
        if low.startswith("-") or high.startswith("-"):
            self.fail("a slice counts from the beginning, and is not negative")
        good = self.slice_within(low, high, array.parts[1])
        where = self.address(array, [Value(I8, (low,))])
        return Value(array.type, (where, *self.or_nothing(good, (self.let(f"sub nsw i64 {high}, {low}"),))))

    def indices(self, e: ast.Subscript) -> list[Value]:
        """The indices between the brackets, as many as are written there."""
        places = e.slice.elts if isinstance(e.slice, ast.Tuple) else [e.slice]
        return [self.expr(p) for p in places]

    def place(self, e: ast.Subscript) -> tuple[Value, list[Value]]:
        """An array and the indices of one item of it."""
        array = self.expr(e.value)
        if not isinstance(array.type, Array):
            self.fail("only arrays have items")
        at = self.indices(e)
        if len(at) != array.type.ndim:
            self.fail("one index per axis is expected")
        return array, at

    def offset(self, array: Value, at: list[Value]) -> Value:
        """Where an item stands, counted from the first: a whole number, a lane's, or one per lane."""
        out = at[0]
        for axis in range(1, array.type.ndim):
            out = self.binary(ast.Mult(), out, Value(I8, (array.parts[1 + axis],)))
            if axis < len(at):
                out = self.binary(ast.Add(), out, at[axis])
        return out

    def address(self, array: Value, at: list[Value]) -> str:
        """The address of an item (in lanes: of the first lane's)."""
        where = self.offset(array, at)
        return self.let(f"getelementptr inbounds {array.type.item.llvm}, ptr {array.one}, i64 {where.one}")

    def read_item(self, place: tuple[Value, list[Value]]) -> Value:
        """The item at a place; neighbours for a lane's index, gathered for one index per lane."""
        array, at = place
        if len(at) > array.type.ndim:
            self.fail("more indices than axes")
        type_, kind, where = self.find(array, at)
        if kind == "ptr":
            return self.was_written(Value(type_, (self.let(f"load {type_.llvm}, ptr {where}, align 8"),)))
        name, mask = self.masked("gather", type_)
        self.module.declare(name, f"declare {type_.llvm} @{name}({kind}, i32, {VB.llvm}, {type_.llvm})")
        call = f"call {type_.llvm} @{name}({kind} {where}, i32 8, {mask}, {type_.llvm} poison)"
        return self.was_written(Value(type_, (self.let(call),)))

    def find(self, array: Value, at: list[Value]) -> tuple[Any, str, str]:
        """An item's type, and LLVM's type and name of its address, or of one address per lane; in checked mode that of
        spare memory where it is not in the array."""
        good = self.within(array, at)
        type_, where = array.type.item, self.offset(array, at)
        if where.type is not I8 and isinstance(type_, Vector):
            self.fail("an array of one number per lane has the same index in all lanes")
        apart = isinstance(where.type, Vector)
        step = f"{VI.llvm} {self.convert(where, VI).one}" if apart else f"i64 {where.one}"
        kind = f"<{lane_count()} x ptr>" if apart else "ptr"
        pointer = self.let(f"getelementptr inbounds {type_.llvm}, ptr {array.one}, {step}")
        return type_ if where.type is I8 else Vector(type_), kind, self.or_spare(good, pointer, kind)

    def masked(self, what: str, type_: Vector) -> tuple[str, str]:
        """The name of LLVM's gather or scatter, and a mask that lets all lanes through."""
        suffix = f"v{lane_count()}{'f64' if type_.item is F8 else 'i64'}.v{lane_count()}p0"
        return f"llvm.masked.{what}.{suffix}", f"{VB.llvm} {everywhere('i1', 'true')}"

    def write_item(self, place: tuple[Value, list[Value]], value: Value) -> None:
        """Store an item."""
        array, at = place
        if isinstance(array.type, Table):
            self.fail("an array of the module is read only")
        type_, kind, where = self.find(array, at)
        value = self.convert(value, type_)
        if kind == "ptr":
            self.put(f"store {type_.llvm} {value.one}, ptr {where}, align 8")
            return
        name, mask = self.masked("scatter", type_)
        self.module.declare(name, f"declare void @{name}({type_.llvm}, {kind}, i32, {VB.llvm})")
        self.put(f"call void @{name}({type_.llvm} {value.one}, {kind} {where}, i32 8, {mask})")

    # -- room for new ones -------------------------------------------------------------------------
    def allocate(self, item: Number, sizes: list[str], zero: bool) -> Value:
        """A new array: on the stack if small and of known size, else on the heap until the function returns."""
        kind: Any = Vector(item) if self.in_lanes else item
        if any(s.startswith("-") for s in sizes):
            self.fail("the size of an array is not negative")
        sizes = self.room(sizes)
        total = sizes[0]
        for size in sizes[1:]:
            both = total.isdigit() and size.isdigit()
            total = str(int(total) * int(size)) if both else self.let(f"mul nsw i64 {total}, {size}")
        width = 8 * (lane_count() if self.in_lanes else 1)
        if total.isdigit() and int(total) * width <= 8 * _STACK:
            where = self.new("a")
            self.top.append(f"  {where} = alloca [{max(int(total), 1)} x {kind.llvm}], align 64")
            bytes_ = str(int(total) * width)
        else:
            bytes_ = self.let(f"mul nsw i64 {total}, {width}")
            where = self.from_heap(bytes_)
        if zero or checked():
            byte = 0 if zero else UNWRITTEN
            self.put(f"call void @llvm.memset.p0.i64(ptr {where}, i8 {byte}, i64 {bytes_}, i1 false)")
            self.module.declare("memset", "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        return Value(Array(kind, len(sizes)), (where, *sizes))

    def from_heap(self, bytes_: str) -> str:
        """Room whose size is known when it is made, aligned to a cache line: on the stack if it is little and the line
        runs once, else on the heap."""
        slot, place = self.new("h"), self.new("h")
        self.top += [f"  {slot} = alloca ptr", f"  store ptr null, ptr {slot}", f"  {place} = alloca ptr"]
        self.heap.append(slot)
        more = self.let(f"add nsw i64 {bytes_}, 64")
        self.module.declare("malloc", "declare noalias ptr @malloc(i64)")
        self.module.declare("free", "declare void @free(ptr)")
        if self.loops:  # the line may have run before
            self.put(f"call void @free(ptr {self.let(f'load ptr, ptr {slot}')})")
        else:
            little = self.let(f"icmp ule i64 {more}, {_LITTLE}")
            near = self.let(f"alloca i8, i64 {self.let(f'select i1 {little}, i64 {more}, i64 0')}")
            self.put(f"store ptr {near}, ptr {place}")
            far, after = self.block("far"), self.block("made")
            self.branch(little, after, far)
            self.open(far)
        raw = self.let(f"call noalias ptr @malloc(i64 {more})")
        self.put(f"store ptr {raw}, ptr {slot}")
        self.put(f"store ptr {raw}, ptr {place}")
        if not self.loops:
            self.label(after)
        raw = self.let(f"load ptr, ptr {place}")
        over = self.let(f"and i64 {self.let(f'ptrtoint ptr {raw} to i64')}, 63")
        return self.let(f"getelementptr inbounds i8, ptr {raw}, i64 {self.let(f'sub nsw i64 64, {over}')}")

    def copy(self, array: Value) -> Value:
        """`a.copy()`"""
        item = array.type.item
        if self.in_lanes != isinstance(item, Vector):
            self.fail("inside lanes only arrays of one number per lane are copied")
        sizes = list(array.parts[1:])
        new = self.allocate(item.item if isinstance(item, Vector) else item, sizes, zero=False)
        total = sizes[0]
        for s in sizes[1:]:
            total = self.let(f"mul nsw i64 {total}, {s}")
        bytes_ = self.let(f"mul nsw i64 {total}, {8 * (lane_count() if self.in_lanes else 1)}")
        self.put(f"call void @llvm.memcpy.p0.p0.i64(ptr {new.one}, ptr {array.one}, i64 {bytes_}, i1 false)")
        self.module.declare("memcpy", "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        return new
