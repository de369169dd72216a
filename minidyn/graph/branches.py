"""Where a node is zero because of a branch: masks, and the condition outside of which nothing is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from minidyn.graph.functions import FUNCTIONS

if TYPE_CHECKING:
    from minidyn.graph.nodes import Node

_MOST_MASKS = 4
_LOGIC, _COMPARED = ("and", "or", "not"), ("lt", "le", "gt", "ge", "eq", "ne")
_ZERO_AT_ZERO = {"neg", "sum", "div"} | {name for name, f in FUNCTIONS.items() if f.zero}


def masked(x: Node) -> bool:
    """Whether a node is zero outside one branch of a condition."""
    return x.op == "select" and any(is_zero(arm) for arm in x.args[1:])


def buried(x: Node) -> bool:
    """Whether a masked value lies under so many masks that a product is not carried inwards through all of them."""
    for _ in range(_MOST_MASKS):
        if not masked(x):
            return False
        x = x.args[2] if is_zero(x.args[1]) else x.args[1]
    return True


def is_zero(x: Node) -> bool:
    """Whether a node is the number 0."""
    return x.op == "const" and x.data == 0.0


def same_mask(a: Node, b: Node) -> bool:
    """Whether two nodes are zero outside branches of one condition."""
    return masked(a) and masked(b) and a.args[0] is b.args[0]


def is_partial(n: Node) -> bool:
    """Whether a node may be exactly zero because of a branch; `support` says where it is not."""
    if n.op in ("add", "sub"):
        return all(a.partial for a in n.args)
    if n.op == "select":
        return any(a.partial or is_zero(a) for a in n.args[1:])
    if n.op in ("max", "min"):
        return any(is_zero(a) for a in n.args)
    if n.op in _ZERO_AT_ZERO or (n.op == "powi" and n.data > 0):
        return n.args[0].partial
    return n.op == "heaviside" or (n.op == "mul" and any(a.partial for a in n.args))


def support(node: Node) -> Node | bool:
    """The condition outside of which a node is zero, whatever stands in branches not taken; True if there is none.

    Derivatives multiply by slopes, and a slope in a branch that is not taken may be infinite or NaN. The other
    factor is then a zero *of the branches*: a sum of masked terms with different conditions is not zero where any
    of the conditions holds, a sum over a loop where any turn has a term.
    """
    known = node.graph.supports
    todo = [node]
    while todo:
        n = todo[-1]
        missing = [a for a in n.args if n.partial and a.id not in known]
        if missing:
            todo.extend(missing)
            continue
        todo.pop()
        known[n.id] = _support(n, [known[a.id] for a in n.args]) if n.partial else not is_zero(n)
    return known[node.id]


def _support(n: Node, of: Sequence[Node | bool]) -> Node | bool:
    """The support of a node from those of its arguments; conditions are such that NaN stays NaN."""
    g, zero = n.graph, n.graph.const(0.0)
    if n.op == "select":
        return _either(_both(n.args[0], of[1]), _both(_opposite(n.args[0]), of[2]))
    if n.op in ("max", "min"):
        other = n.args[0] if is_zero(n.args[1]) else n.args[1]
        return _opposite(g.binary("le" if n.op == "max" else "ge", other, zero))
    if n.op == "heaviside":
        return _opposite(g.binary("lt", n.args[0], zero))
    if n.op == "sum":
        if isinstance(of[0], bool) or n.data not in of[0].indices:
            return of[0]
        return g.binary("gt", g.sum(g.select(of[0], 1.0, 0.0), n.data), zero)
    if n.op in ("add", "sub"):
        return _either(*of)
    return _both(*of) if n.op == "mul" else of[0]


def guarded(value: Node, asked: Iterable[Node], of: Iterable[Node]) -> Node:
    """A value that was chosen by conditions, or as the largest of some, among nodes: NaN, as all its derivatives are,
    where one of those that were asked is NaN, which every comparison calls false."""
    decided: Node | bool = True
    parts = list(of)
    for condition in asked:
        decided = _both(decided, _known(condition))
        parts += _sides(condition)
    if isinstance(decided, bool):
        return value
    undefined = parts[0]
    for part in parts:  # one by one, since terms of one sum might cancel
        undefined = value.graph.unary("undefined", undefined + part)
    return value.graph.select(decided, value, undefined)


def _sides(condition: Node) -> list[Node]:
    """What a condition compares and may be NaN."""
    if condition.op in _LOGIC:
        return [side for a in condition.args for side in _sides(a)]
    return [a for a in (condition.args if condition.op in _COMPARED else (condition,)) if not a.finite]


def _known(condition: Node) -> Node | bool:
    """Where a condition is decided although something in it is NaN: "and" by what is false, "or" by what is true."""
    if condition.op == "not":
        return _known(condition.args[0])
    if condition.op in _LOGIC:
        both = [_known(a) for a in condition.args]
        if all(k is True for k in both):
            return True
        sure = [
            _both(k, a if condition.op == "or" else _opposite(a)) for k, a in zip(both, condition.args, strict=True)
        ]
        return _either(_both(*both), _either(*sure))
    decided: Node | bool = True
    for side in _sides(condition):
        decided = _both(decided, side.graph.binary("eq", side, side))
    return decided


def _opposite(a: Node) -> Node:
    return a.args[0] if a.op == "not" else a.graph.unary("not", a)


def _both(a: Node | bool, b: Node | bool) -> Node | bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return False if a is False or b is False else b if a is True else a
    return a if a is b else False if _opposite(a) is b else a.graph.binary("and", a, b)


def _either(a: Node | bool, b: Node | bool) -> Node | bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return True if a is True or b is True else b if a is False else a
    return a if a is b else True if _opposite(a) is b else a.graph.binary("or", a, b)
