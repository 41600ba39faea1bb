"""Reads the part of Prometheus' language that rules here are written in; anything else is a SyntaxError."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r'\s*(?:(\d+(?:\.\d+)?)|([a-zA-Z_:][\w:]*)|("(?:[^"\\]|\\.)*")|(\[\d+[smhd]\])|([=!><]=|[-+*/(){},<>=]))'
)
#: By how tightly they bind, the loosest first.
_BINARY: tuple[frozenset[str], ...] = (
    frozenset({"and", "or", "unless"}),
    frozenset({"==", "!=", "<", ">", "<=", ">="}),
    frozenset({"+", "-"}),
    frozenset({"*", "/"}),
)
AGGREGATIONS = frozenset({"sum", "max", "min", "avg", "count"})
#: They look at a time, and so have to be given one.
OVER_TIME = frozenset({"rate", "increase"})


@dataclass(frozen=True)
class Selector:
    """A metric in an expression, and what is around it, the nearest first."""

    name: str
    labels: tuple[str, ...]
    has_range: bool
    inside: tuple[str, ...]


@dataclass
class _Reader:
    tokens: list[str]
    selectors: list[Selector] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)

    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, *expected: str) -> str:
        if not self.tokens or (expected and self.tokens[0] not in expected):
            raise SyntaxError(f"{self.next()!r} where {expected} is expected")
        return self.tokens.pop(0)

    def expression(self, level: int = 0) -> None:
        if level == len(_BINARY):
            self.operand()
            return
        self.expression(level + 1)
        while self.next() in _BINARY[level]:
            self.take()
            if self.next() in {"on", "ignoring"}:
                self.take()
                self.names()
            self.expression(level + 1)

    def names(self) -> str:
        self.take("(")
        found: list[str] = []
        while self.next() != ")":
            found.append(self.take())
            if self.next() == ",":
                self.take()
        self.take(")")
        return ", ".join(found)

    def operand(self) -> None:
        token = self.take()
        if token == "(":
            self.expression()
            self.take(")")
        elif token in AGGREGATIONS:
            by = f"{token} by {self.names()}" if self.next() == "by" and self.take() else token
            self.call(by)
        elif token in OVER_TIME:
            self.call(token)
        elif token[0].isdigit():
            pass
        elif re.fullmatch(r"[a-zA-Z_:][\w:]*", token) and self.next() != "(":
            self.selector(token)
        else:
            raise SyntaxError(f"{token!r} isn't known here")

    def call(self, name: str) -> None:
        self.take("(")
        self.inside.insert(0, name)
        self.expression()
        self.inside.pop(0)
        self.take(")")

    def selector(self, name: str) -> None:
        labels: list[str] = []
        if self.next() == "{":
            self.take()
            while self.next() != "}":
                labels.append(self.take())
                self.take("=", "!=")
                if not self.take().startswith('"'):
                    raise SyntaxError(f"the value of {labels[-1]} isn't in quotes")
                if self.next() == ",":
                    self.take()
            self.take("}")
        has_range = self.next().startswith("[") and bool(self.take())
        self.selectors.append(Selector(name, tuple(labels), has_range, tuple(self.inside)))


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            raise SyntaxError(f"{text[place:]!r} can't be read")
        place = found.end()
        yield found.group().strip()


def read_expression(text: str) -> list[Selector]:
    """Return the metrics in an expression; SyntaxError."""
    reader = _Reader(list(_tokens(text)))
    reader.expression()
    if reader.tokens:
        raise SyntaxError(f"{reader.next()!r} comes after the end")
    return reader.selectors
