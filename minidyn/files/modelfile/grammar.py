"""Text to nested tuples: a tokenizer and the arithmetic part of Python's grammar.

`+ - * / @ **`, parentheses, calls `f(a, b)`, subscripts `a[j]`, `W[j, k]` and `W[:3, k]`, `.T`, and, inside a
call, comparisons and tuples. Nothing else exists. Length, size and depth are limited while reading.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from minidyn.common.errors import ExpressionError
from minidyn.files.modelfile.wording import shorten

MAX_LENGTH = 20_000  # characters
MAX_DEPTH = 50  # nested parentheses, calls, signs and powers
MAX_LEAVES = 5_000  # numbers, names, calls and subscripts

RELATIONS = ("<", "<=", ">", ">=", "==", "!=")

_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[^\W\d]\w*")
_OPERATOR = re.compile(r"\*\*|<=|>=|==|!=|[-+*/@()\[\],<>]|\.T\b")
_HINTS = {
    "^": "a power is written **",
    "=": "a comparison is written ==",
    ".": "there are no attributes but .T, of a matrix",
}


def read_tree(text: str, names: Iterable[str]) -> tuple:
    """The nested tuples `(kind, ...)` that `text` spells.

    Each of `names` is one token wherever it stands, even where Python would not take it for a name.
    Raises `ExpressionError`, one sentence, for anything outside the grammar or over a limit.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"An expression is text in quotes, not {type(text).__name__}.")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"The expression has {len(text)} characters; {MAX_LENGTH} is the most.")
    return _Grammar(_tokenize(text, names)).parse()


class _Token(NamedTuple):
    kind: str  # "number", "name", an operator's own text, or "end"
    text: str


def _tokenize(text: str, names: Iterable[str]) -> list[_Token]:
    """Tokens of `text`; a declared name is one token even where Python would not take it for one."""
    unusual = sorted((n for n in names if n and not _NAME.fullmatch(n)), key=len, reverse=True)
    tokens: list[_Token] = []
    at = inside = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _Token(":", ":") if inside and text[at] == ":" else _next_token(text, at, unusual)
        inside += (token.kind == "[") - (token.kind == "]")
        tokens.append(token)
        at += len(token.text)
    return [*tokens, _Token("end", "the end")]


def _next_token(text: str, at: int, unusual: list[str]) -> _Token:
    for name in unusual:
        end = at + len(name)
        if text.startswith(name, at) and not (_is_word(name[-1:]) and _is_word(text[end : end + 1])):
            return _Token("name", name)
    for kind, pattern in (("number", _NUMBER), ("name", _NAME), ("operator", _OPERATOR)):
        match = pattern.match(text, at)
        if match is None:
            continue
        found = match.group()
        if kind == "number" and _is_word(text[match.end() : match.end() + 1]):
            near = shorten(text[at:])
            raise ExpressionError(f"After the number {found} in {near} an operator was expected, as in 2*x.")
        return _Token(found if kind == "operator" else kind, found)
    hint = f": {_HINTS[text[at]]}" if text[at] in _HINTS else ""
    raise ExpressionError(f"Character {at + 1} of {shorten(text)}, {text[at]!r}, has no meaning here{hint}.")


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


class _Grammar:
    """Recursive descent over tokens; the result is nested tuples `(kind, ...)`.

    Long sums and products are one flat node, so only what is written nested is nested here.
    """

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.at = tokens, 0
        self.depth = self.leaves = 0

    def parse(self) -> tuple:
        if self.peek() == "end":
            raise ExpressionError("The expression is empty.")
        tree = self.sum()
        if self.peek() in RELATIONS:
            raise ExpressionError(f"A comparison ({self.peek()}) may only be a condition of Piecewise.")
        self.expect("end")
        return tree

    def sum(self) -> tuple:
        self.enter()
        tree = self.chain(self.product, "+", "-")
        self.depth -= 1
        return tree

    def product(self) -> tuple:
        return self.chain(self.signed, "*", "/@")

    def chain(self, part: Callable[[], tuple], joins: str, others: str) -> tuple:
        """Parts with operators between them; a part behind another one than the first is a node of its own."""
        parts = [part()]
        while self.peek() in (joins, *others):
            operator = self.take().text
            parts.append(part() if operator == joins else (operator, part()))
        return parts[0] if len(parts) == 1 else (joins, parts)

    def signed(self) -> tuple:
        self.enter()
        if self.peek() in ("+", "-"):
            negative = self.take().text == "-"
            operand = self.signed()
            tree = ("-", operand) if negative else operand
        else:
            tree = self.power()
        self.depth -= 1
        return tree

    def power(self) -> tuple:
        base = self.with_places()
        if self.peek() != "**":
            return base
        self.take()
        return ("**", base, self.signed())

    def with_places(self) -> tuple:
        """An atom, and what stands behind it: `.T`, places in brackets."""
        tree, before = self.atom(), self.depth
        while self.peek() in (".T", "["):
            self.enter()
            tree = ("entry", tree, self.items("[", "]", self.place)) if self.peek() == "[" else (self.take().kind, tree)
        self.depth = before
        return tree

    def place(self) -> tuple:
        """An index, or a range of them, `start:stop:step`."""
        first = None if self.peek() == ":" else self.sum()
        ends = [first]
        while self.peek() == ":":
            self.take()
            ends.append(None if self.peek() in (":", ",", "]") else self.sum())
        return first if first is not None and len(ends) == 1 else ("range", *ends)

    def atom(self) -> tuple:
        self.leaves += 1
        if self.leaves > MAX_LEAVES:
            raise ExpressionError(f"The expression has more than {MAX_LEAVES} numbers and names; use Sum.")
        token = self.take()
        if token.kind == "number":
            return ("number", token.text)
        if token.kind == "(":
            inner = self.sum()
            self.expect(")")
            return inner
        if token.kind != "name":
            near = shorten(token.text) + self.where()
            raise ExpressionError(f"A number, a name or ( was expected, not {near}.")
        if self.peek() == "(":
            return ("call", token.text, self.items("(", ")"))
        if self.peek() == "[":
            return ("index", token.text, self.items("[", "]", self.place))
        return ("name", token.text)

    def items(self, opening: str, closing: str, item: Callable[[], tuple] | None = None) -> list[tuple]:
        """A list between brackets; an item is an expression, a comparison or a tuple of those, if nothing else."""
        self.expect(opening)
        found: list[tuple] = []
        while self.peek() != closing:
            found.append((item or self.item)())
            if self.peek() != ",":
                break
            self.take()
        self.expect(closing)
        return found

    def item(self) -> tuple:
        if self.peek() == "(" and self.is_tuple():
            self.enter()
            inner = ("tuple", self.items("(", ")"))
            self.depth -= 1
            return inner
        left = self.sum()
        if self.peek() not in RELATIONS:
            return left
        relation = self.take().text
        return ("compare", relation, left, self.sum())

    def is_tuple(self) -> bool:
        """Whether the bracket that opens here holds a comma of its own."""
        level = 0
        for token in self.tokens[self.at :]:
            level += (token.kind in ("(", "[")) - (token.kind in (")", "]"))
            if level == 0:
                return False
            if level == 1 and token.kind == ",":
                return True
        return False

    def enter(self) -> None:
        self.depth += 1
        if self.depth > 2 * MAX_DEPTH:  # a parenthesis passes through `sum` and `signed`
            raise ExpressionError(f"The expression is nested more than {MAX_DEPTH} deep.")

    def peek(self) -> str:
        return self.tokens[self.at].kind

    def take(self) -> _Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def expect(self, kind: str) -> None:
        token = self.take()
        if token.kind != kind:
            wanted = "an operator or the end" if kind == "end" else f"`{kind}`"
            raise ExpressionError(f"Expected {wanted}, found {shorten(token.text)}{self.where()}.")

    def where(self) -> str:
        before = " ".join(token.text for token in self.tokens[max(0, self.at - 6) : self.at])
        return f" near {shorten(before)}" if before else ""
