"""Lua scripts, read from the file beside the module that calls them, and the deadline that each of them carries.

Every script carries a deadline in the server's time and refuses to run after it. So a command that was held up
somewhere in the network can't take effect after its caller was told that its outcome is unknown.
"""

import hashlib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.resources import files
from typing import Any

from ci_eventstore.connection.call_names import CallNames, Value, is_named

#: Clocks that nobody sets run apart by less than this in a second (500 ppm is what NTP corrects at most).
DRIFT = 0.0005
#: How old a reading may be, in seconds, before the clock is read again.
READING_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One reading of the server's clock, and the local monotonic times, in seconds, between which it was taken."""

    server_ms: int
    asked_at: float
    answered_at: float

    def is_fresh(self, now: float) -> bool:
        """Tell whether the reading is still good enough."""
        return now - self.answered_at <= READING_SECONDS

    def deadline_ms(self, now: float, seconds: float) -> int:
        """Return the server's time at which `seconds` have passed here for certain."""
        return self.server_ms + int((now - self.asked_at + seconds) * (1 + DRIFT) * 1000)

    def seconds_until_past(self, deadline_ms: int, now: float) -> float:
        """Return how long to wait until the server's clock is past a deadline for certain."""
        wanted = (deadline_ms + 1 - self.server_ms) / 1000 / (1 - DRIFT)
        return max(0.0, wanted - (now - self.answered_at))


_LIBRARIES = re.compile("^( *)-- Libraries: (.*)$", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
_COMMENT, _CONSTANT = re.compile("--(?! Libraries: ).*"), re.compile(r"\b[A-Z_]+\b")


Constants = Mapping[str, int | Sequence[str]]


class Expression(str):
    """Lua that stands in a list in place of a text that only the script knows."""

    __slots__ = ()


def placed(fields: Mapping[str, str], **expressions: str) -> list[str]:
    """Return names and values by turns, as a list for a script; in place of some values stands Lua that has them."""
    unknown = expressions.keys() - fields.keys()
    if unknown:
        raise ValueError(f"there is no field {', '.join(unknown)}")
    known = {name: Expression(lua) for name, lua in expressions.items()}
    return [text for name, value in fields.items() for text in (name, known.get(name, value))]


@dataclass(frozen=True)
class Script:
    """A script's text, and the SHA-1 that the server knows it by."""

    name: str
    #: Puts the text together, which is done when it is first needed: most programs need few of all scripts.
    make: Callable[[], str]
    names: CallNames | None = None
    constants: Constants = field(default_factory=dict, compare=False)

    @cached_property
    def source(self) -> str:
        """The text."""
        return self.make()

    @cached_property
    def sha(self) -> str:
        """The hash of the text."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def sharded(self) -> "Script":
        """The same for a cluster: messages go out on sharded channels, and the last key that is named isn't used."""
        return replace(self, make=lambda: _in_a_cluster(self.source))

    def order(self, call: tuple[Any, ...]) -> tuple[list[str | bytes], list[Value]]:
        """Return the keys and the arguments of a call, which is of the tuple that the script was loaded with."""
        assert self.names is not None
        return self.names.order(call)


#: What stands in the Lua of scripts, and what stands there in a cluster.
_IN_A_CLUSTER = {
    "'PUBLISH'": "'SPUBLISH'",
    "'NUMSUB'": "'SHARDNUMSUB'",
    "ARGV[last] = nil\n": "ARGV[last], KEYS[#KEYS] = nil, nil\n",
}


def _in_a_cluster(source: str) -> str:
    for plain, sharded in _IN_A_CLUSTER.items():
        source = source.replace(plain, sharded)
    return source


def load_script(
    package: str,
    name: str,
    constants: Constants | None = None,
    *,
    call: type[tuple[Any, ...]] | None = None,
) -> Script:
    """Return the script `<name>.lua` of a package, after the check of its deadline, its constants and its arguments.

    `call` is a NamedTuple of its keys and arguments: `call_names.py` says how Lua has them. A constant is a number, or
    a list of texts, which stand where it is named: `{FIELDS}` is a table of them, `call('HSET', hash, FIELDS)` has them
    as arguments.

    Where it says "-- Libraries: telling, standing", the functions of `ci_eventstore/lua/telling.lua` and `standing.lua`
    stand instead, as far as the script uses them. A server makes a script's functions anew for each call: a script has
    them no earlier than it needs, if need be in the block alone that the line is in.
    """
    names, known, text = CallNames(call) if call else None, constants or {}, _read(package, f"{name}.lua")
    # Read now: later there may be the files of another version.
    libraries = {line[2]: load_libraries(line[2]) for line in _LIBRARIES.finditer(text)}
    return Script(name, partial(_put_together, text, libraries, names, known), names, known)


def _put_together(text: str, libraries: Mapping[str, str], names: CallNames | None, constants: Constants) -> str:
    head = "".join(f"local {constant} = {value}\n" for constant, value in constants.items() if isinstance(value, int))
    script = with_lists(text, constants)
    if names:
        script = names.expand(script)
    for line in reversed(list(_LIBRARIES.finditer(script))):
        indent, after = line[1], script[line.end() :]
        end = re.search(rf"^ {{0,{len(indent) - 1}}}\S", after, re.MULTILINE) if indent else None
        library = _without_unused(with_lists(libraries[line[2]], constants), after[: end.start()] if end else after)
        script = script[: line.start()] + textwrap.indent(library, indent) + after
    head += names.head(script) if names else ""
    return _DEADLINE + head + script


def with_lists(lua: str, constants: Constants) -> str:
    """Return a text of Lua in which lists stand in place of their names."""
    lists = {
        constant: ", ".join(text if isinstance(text, Expression) else f"'{text}'" for text in value)
        for constant, value in constants.items()
        if not isinstance(value, int)
    }
    return _CONSTANT.sub(lambda found: lists.get(found[0], found[0]), lua) if lists else lua


def load_libraries(names: str) -> str:
    """Return the text of libraries, whose names are joined by ", "."""
    return "".join(_read("ci_eventstore", f"lua/{name}.lua") for name in names.split(", "))


def _without_unused(library: str, script: str) -> str:
    """Return a library without the functions that neither the script after it names nor a function that stays."""
    naming = _FUNCTION.sub("", library) + script
    for function in reversed(list(_FUNCTION.finditer(library))):
        if is_named(function[1], naming):
            naming += function[0]
        else:
            library = library[: function.start()] + library[function.end() :]
    return library


@cache
def _read(package: str, path: str) -> str:
    """Return a file's text without its comments, but for those that name libraries.

    Their lines stay, empty: errors of the server name lines.
    """
    return _COMMENT.sub("", files(package).joinpath(path).read_text("utf-8"))


_DEADLINE = _read("ci_eventstore.connection", "deadline.lua")
