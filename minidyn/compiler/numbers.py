"""Numbers: changes of type, and what LLVM and the C library know of them."""

from typing import Any, NoReturn

from minidyn.compiler.lines import Lines
from minidyn.compiler.llvm import lane_count
from minidyn.compiler.types import B1, F8, I8, LANE, U8, VF, VI, Number, Tuple, Vector, spread
from minidyn.compiler.values import Value, everywhere, together


class Numbers(Lines):
    """The part of a `Writer` that brings numbers to one type, and computes what others have written."""

    def convert(self, value: Value, type_: Any, name: str = "") -> Value:
        """The value as another type: whole numbers become floats, one number stands in all lanes."""
        have = value.type
        if have == type_:
            return value
        if isinstance(type_, Tuple) and isinstance(have, Tuple) and len(type_.items) == len(have.items):
            return together([self.convert(v, t) for v, t in zip(value.members(), type_.items, strict=True)])
        if have is LANE and isinstance(type_, Vector):
            first = self.broadcast(Value(I8, value.parts))
            steps = ", ".join(f"i64 {i}" for i in range(lane_count()))
            return self.convert(Value(VI, (self.let(f"add nsw {VI.llvm} {first.one}, <{steps}>"),)), type_)
        if isinstance(type_, Vector) and isinstance(have, Number):
            return self.broadcast(self.convert(value, type_.item, name))
        if type(type_) is type(have) and isinstance(type_, (Number, Vector)):
            return self.number(value, type_, name)
        self.unfit(value, type_, name)

    def unfit(self, value: Value, type_: Any, name: str) -> NoReturn:
        """Say that a value is of another type than what is wanted."""
        self.fail(f"a {value.type.name} does not fit where a {type_.name} is{' kept in ' + name if name else ''}")

    def number(self, value: Value, type_: Any, name: str) -> Value:
        """A number, or one per lane, of another kind: any as a float, a bool as a whole one, a constant as a uint64;
        anything else does not fit (`name` is the variable that it would be kept in)."""
        have, want, source, target = value.item, Value(type_).item, value.type.llvm, type_.llvm
        if want is F8 and have is not F8:
            op = {"i8": "sitofp", "u8": "uitofp", "b1": "uitofp"}[have.name]
            return Value(type_, (self.let(f"{op} {source} {value.one} to {target}"),))
        if want in (I8, U8) and have is B1:
            return Value(type_, (self.let(f"zext {source} {value.one} to {target}"),))
        if want is U8 and have is I8 and value.constant is not None:
            if value.constant < 0:
                self.fail(f"{value.constant} is no unsigned number")
            return Value(U8, value.parts)
        self.unfit(value, type_, name)

    def broadcast(self, value: Value) -> Value:
        """One number in all lanes."""
        wide = spread(value.type, LANE)
        if not value.one.startswith("%"):
            return Value(wide, (everywhere(value.type.llvm, value.one),))
        first = self.let(f"insertelement {wide.llvm} poison, {value.type.llvm} {value.one}, i64 0")
        zero = f"<{lane_count()} x i32> zeroinitializer"
        return Value(wide, (self.let(f"shufflevector {wide.llvm} {first}, {wide.llvm} poison, {zero}"),))

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Both values as the smallest type that holds both."""
        if a.type == b.type and a.type is not LANE:
            return a, b
        type_ = self.common(a, b)
        return self.convert(a, type_), self.convert(b, type_)

    def common(self, a: Value, b: Value) -> Any:
        """The smallest type that holds both values."""
        kinds = [I8 if v.type is LANE else v.item for v in (a, b)]
        if not all(isinstance(k, Number) for k in kinds):
            self.fail("the two sides differ in type")
        item = next(k for k in (F8, U8, I8, B1) if k in kinds)
        return spread(item, a.type, b.type)

    def floats(self, args: list[Value]) -> tuple[Any, list[str]]:
        """All arguments as floats, side by side if one of them is."""
        type_ = spread(F8, *(a.type for a in args))
        return type_, [self.convert(a, type_).one for a in args]

    def intrinsic(self, name: str, args: list[Value]) -> Value:
        """A function that LLVM knows for vectors too."""
        type_, parts = self.floats(args)
        full = f"llvm.{name}.{'f64' if type_ is F8 else f'v{lane_count()}f64'}"
        self.module.declare(full, f"declare {type_.llvm} @{full}({', '.join([type_.llvm] * len(parts))})")
        given = ", ".join(f"{type_.llvm} {p}" for p in parts)
        return Value(type_, (self.let(f"call {type_.llvm} @{full}({given})"),))

    def libm(self, name: str, args: list[Value]) -> Value:
        """A function of the C library, lane by lane."""
        type_, parts = self.floats(args)
        arguments = ", ".join(["double"] * len(parts))
        self.module.declare(name, f"declare double @{name}({arguments}) nounwind willreturn readnone")
        if type_ is F8:
            return Value(F8, (self.let(f"call double @{name}({', '.join(f'double {p}' for p in parts)})"),))
        out = "poison"
        for lane in range(lane_count()):
            given = [self.let(f"extractelement {VF.llvm} {p}, i64 {lane}") for p in parts]
            one = self.let(f"call double @{name}({', '.join(f'double {p}' for p in given)})")
            out = self.let(f"insertelement {VF.llvm} {out}, double {one}, i64 {lane}")
        return Value(VF, (out,))
