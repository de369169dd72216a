"""The symbols that stand for a rule's arguments while its function runs, and what a rule may not ask of them.

A letter is a Symbol whose name ends in a mark that nobody types, so that a state called `g`, a hyperparameter called
`theta` or a global symbol of the user's never is the gradient by accident. Marks sort below every visible character:
terms stand in the order that the plain names would give them. Hyperparameters are real and of no known sign.
"""

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sympy as sp

from minidyn.common.errors import InputError
from minidyn.common.locks import fork_safe_lock
from minidyn.graph import walk

_ARGUMENT, _NAMED = "\x02", "\x01"
K = sp.Symbol("k")  # the step number, in rules and in schedules
THETA, G = sp.Symbol("theta" + _ARGUMENT), sp.Symbol("g" + _ARGUMENT)
NORMAL = sp.Symbol("x\x02")  # a standard normal: the noise in units of its spread
NODES = 32  # of the quadrature over it
VARIANCE = sp.Symbol("_q\x02", positive=True)  # of the noise in one coordinate of the gradient
_LATEX = {"lr": r"\eta", "momentum": r"\beta", "eps": r"\epsilon", "std": r"\sigma_y", "weight_decay": r"\lambda"}
_ONE_AT_A_TIME = fork_safe_lock()


def state(name: str) -> sp.Symbol:
    """The letter of a state."""
    return sp.Symbol(name + _NAMED)


def hyper(name: str, value: Any = None) -> sp.Symbol:
    """The letter of a hyperparameter; with a number it also knows that number's sign."""
    return sp.Symbol(name + _NAMED, **({"real": True} if value is None else _sign(value)))


def public(name: str, value: Any) -> sp.Symbol:
    """The symbol by which formulas show a hyperparameter: positive where its number is."""
    return sp.Symbol(name, **_sign(value))


def _sign(value: Any) -> dict[str, bool]:
    """A schedule's sign is taken for positive: a rate, or a weight between 0 and 1."""
    if isinstance(value, sp.Expr) or value > 0:
        return {"positive": True}
    return {"negative": True} if value < 0 else {"nonnegative": True}


@contextmanager
def unbranched(name: str, shown: Mapping[sp.Symbol, str]) -> Iterator[None]:
    """While the function of the rule `name` runs, `if eps == 0`, `if lr > 0` and `if g` are refused.

    sympy answers `Symbol == 0` by False and takes every symbol for true, silently; and it compares symbols itself at
    every turn. So the comparison is looked at where it is asked: by a frame of sympy's own, or of anyone else.
    """
    owner, letters = threading.get_ident(), set(shown)

    def foreign(*values: Any) -> bool:
        if threading.get_ident() != owner or sys._getframe(2).f_globals.get("__name__", "").split(".")[0] == "sympy":
            return False
        return any(isinstance(v, sp.Basic) and not letters.isdisjoint(v.free_symbols) for v in values)

    def refuse(what: str) -> None:
        raise InputError(
            f"the rule {name} asks whether {spoken(what, shown)}, but states, gradient, step and hyperparameters are "
            "symbols when a rule is made: write sp.Piecewise((this, condition), (that, True)) with sp.Eq, < or >, or "
            "give the choice as True, False or text, which reach the function as they are."
        )

    def comparison(compare: Any, sign: str) -> Any:
        def compared(self: Any, other: Any) -> Any:
            if foreign(self, other):
                refuse(f"{self} {sign} {other}")
            return compare(self, other)

        return compared

    def truth(self: Any) -> bool:
        if foreign(self):
            refuse(f"{self} is true")
        return len(self) != 0 if hasattr(type(self), "__len__") else True

    with _ONE_AT_A_TIME:
        before = {at: vars(sp.Expr).get(at) for at in ("__eq__", "__ne__", "__bool__")}
        asked = comparison(sp.Expr.__eq__, "=="), comparison(sp.Expr.__ne__, "!="), truth
        try:
            for at, function in zip(before, asked, strict=True):
                setattr(sp.Expr, at, function)
            yield
        except TypeError as e:
            if "truth value" in str(e):
                refuse(str(e).split(": ")[-1])
            raise
        finally:
            for at, function in before.items():
                if function is None:
                    delattr(sp.Expr, at)
                else:
                    setattr(sp.Expr, at, function)


def spoken(text: str, shown: Mapping[sp.Symbol, str]) -> str:
    """A printed expression with the names that the user gave."""
    for letter, name in shown.items():
        text = text.replace(letter.name, name)
    return text


def foreign_symbols(exprs: Iterable[sp.Expr], known: Iterable[sp.Symbol]) -> list[str]:
    """Names of the symbols in expressions that are not among the known ones."""
    return sorted(str(s) for s in set().union(*(e.free_symbols for e in exprs)) - set(known))


def in_papers(names: Iterable[str]) -> dict[str, str]:
    """Names in LaTeX, hyperparameters by the letters of papers where no other of these names has that letter."""
    own = {n: walk.letter(n) for n in names}
    paper = {n: _LATEX[n] for n in own if n in _LATEX and _LATEX[n] not in own.values()}
    return own | {n: tex for n, tex in paper.items() if list(paper.values()).count(tex) == 1}


def in_latex(e: Any, beside: Iterable[str] = ()) -> str:
    """An expression in LaTeX, with the letters that papers use for hyperparameters where nothing `beside` has them."""
    symbols = sp.sympify(e).free_symbols
    named = in_papers({*beside, *(s.name for s in symbols)})
    return walk.latex(e, {s: named[s.name] for s in symbols if s.name in _LATEX})


def number_in_latex(value: float) -> str:
    """A number with powers of ten: `1e-08` is `10^{-8}`."""
    digits, _, power = f"{value:.10g}".partition("e")
    if not power:
        return digits
    return f"{'' if digits == '1' else digits + chr(92) + 'cdot '}10^{{{int(power)}}}"
