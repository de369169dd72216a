"""The text of a function with everything said that minidyn's compiler knows without being told.

    a*b + c, a*b - c, c - a*b   one rounding, in a function made with `fma=True`   muladd_, mulsub_, submul_
    x.view(t)                   the bits of a number                               view_
    a / b                       of whole numbers too, and never an error           divide_
    a**2, a**y                  products, the C library's `pow`                    square_, cube_, fourth_, power_
    min(a, b), max(a, b)        the first of two that are equal, or not ordered    min_, max_

A back end that is not minidyn's own gives these names a meaning, and one to what the text finds in its module.
Lines keep their numbers, so that a debugger shows the text itself.
"""

import ast
import builtins
import copy
import types
from collections.abc import Callable
from typing import Any

from minidyn.compiler.values import arithmetic, is_product, written_out

_POWERS = {2: "square_", 3: "cube_", 4: "fourth_"}

PLAIN: dict[str, Any] = {  # the helpers that mean the same everywhere
    "square_": lambda a: a * a,
    "cube_": lambda a: a * a * a,
    "fourth_": lambda a: a * a * a * a,
    "min_": lambda a, b: b if b < a else a,
    "max_": lambda a, b: b if b > a else a,
}


def call(name: str, *args: ast.expr, like: ast.AST) -> ast.expr:
    """`name(*args)`, where `like` stands."""
    made = ast.Call(ast.Name(name, ast.Load()), list(args), [])
    return ast.copy_location(made, like)


class Explicit(ast.NodeTransformer):
    """Rewrites the operations above as calls."""

    def __init__(self, fma: bool):
        self.fma = fma

    def visit_BinOp(self, e: ast.BinOp) -> ast.expr:
        """`left op right`, rewritten with its operands: a product and a sum may become one call."""
        number = arithmetic(e)
        if number is not None:
            return ast.copy_location(ast.Constant(number), e)
        return self.operation(e.op, e.left, e.right, e)

    def visit_AugAssign(self, s: ast.AugAssign) -> ast.stmt:
        """`x op= y` as `x = x op y`; an index in x is then computed twice."""
        here = copy.deepcopy(s.target)
        here.ctx = ast.Load()
        new = ast.Assign([self.visit(s.target)], self.operation(s.op, here, s.value, s))
        return ast.copy_location(new, s)

    def operation(self, op: ast.operator, left: ast.expr, right: ast.expr, like: ast.AST) -> ast.expr:
        """`left op right`, said in full."""
        if self.fma and isinstance(op, (ast.Add, ast.Sub)) and (is_product(left) or is_product(right)):
            adds = isinstance(op, ast.Add)
            whole = right if is_product(right) else left
            assert isinstance(whole, ast.BinOp)
            a, b = self.visit(whole.left), self.visit(whole.right)
            if whole is left:
                return call("muladd_" if adds else "mulsub_", a, b, self.visit(right), like=like)
            c = self.visit(left)
            return call("muladd_", a, b, c, like=like) if adds else call("submul_", c, a, b, like=like)
        a, b = self.visit(left), self.visit(right)
        if isinstance(op, ast.Div):
            return call("divide_", a, b, like=like)
        if isinstance(op, ast.Pow):
            power = b.value if isinstance(b, ast.Constant) and isinstance(b.value, int) else None
            if power == 1:
                return a
            return call(_POWERS[power], a, like=like) if power in _POWERS else call("power_", a, b, like=like)
        return ast.copy_location(ast.BinOp(a, op, b), like)

    def visit_Call(self, e: ast.Call) -> ast.expr:
        """`horner`, `x.view(t)`, `min` and `max` for two, from left to right; other calls stay calls."""
        if isinstance(e.func, ast.Name) and e.func.id == "horner" and (text := written_out(e)):
            made: ast.expr = self.visit(ast.copy_location(text, e))
            return made
        self.generic_visit(e)
        if isinstance(e.func, ast.Attribute) and e.func.attr == "view" and len(e.args) == 1:
            return call("view_", e.func.value, e.args[0], like=e)
        if isinstance(e.func, ast.Name) and e.func.id in ("min", "max"):
            out = e.args[0]
            for other in e.args[1:]:
                out = call(e.func.id + "_", out, other, like=e)
            return out
        return e

    def visit_Subscript(self, e: ast.Subscript) -> ast.expr:
        """Places are whole numbers: nothing there is fused."""
        e.value = self.visit(e.value)
        fma, self.fma = self.fma, False
        e.slice = self.visit(e.slice)
        self.fma = fma
        return e


def tree(function: Any) -> ast.FunctionDef:
    """The syntax tree of a compiled function's definition, said in full."""
    new = copy.deepcopy(function.tree)
    new.decorator_list = []
    Explicit(function.fma).generic_visit(new)
    made: ast.FunctionDef = ast.fix_missing_locations(new)
    return made


def made(function: Any, helpers: dict[str, Any], meaning: Callable[[Any], Any]) -> Any:
    """A plain function of the explicit text; `meaning` says what things of its module are here."""
    definition = tree(function)
    found = function.py_func.__globals__
    space = {"__builtins__": builtins, "__name__": function.__module__, **helpers}
    for name in {n.id for n in ast.walk(definition) if isinstance(n, ast.Name)}:
        if name in found:
            space[name] = meaning(found[name])
    code = compile(ast.Module([definition], []), function.py_func.__code__.co_filename, "exec")
    inner = next(c for c in code.co_consts if isinstance(c, types.CodeType))
    out = types.FunctionType(inner, space, function.name)
    out.__module__, out.__qualname__ = function.__module__, function.py_func.__qualname__
    return out


def check(array: Any) -> None:
    """Refuse what minidyn's own compiler refuses, in its words."""
    if not array.flags.c_contiguous:
        raise TypeError("compiled code takes C-contiguous arrays.")
