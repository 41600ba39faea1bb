"""Lua scripts: read from the file beside the module that calls them, with the limits that Python gives them."""

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ci_eventstore.connection.call_names import CallNames, Value

_LIBRARIES = re.compile("^( *)-- Libraries: (.*)$", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
_COMMENT, _NAME = re.compile("--.*"), re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 that the server knows it by."""

    name: str
    source: str
    sha: str
    names: CallNames | None = None

    def order(self, call: tuple[Any, ...]) -> tuple[list[str | bytes], list[Value]]:
        """Return the keys and the arguments of a call, which is of the tuple that the script was loaded with."""
        assert self.names is not None
        return self.names.order(call)


def load_script(
    package: str,
    name: str,
    constants: Mapping[str, int | Sequence[str]] | None = None,
    *,
    call: type[tuple[Any, ...]] | None = None,
) -> Script:
    """Return the script `<name>.lua` of a package, after the check of its deadline, its constants and its arguments.

    `call` is a NamedTuple of its keys and arguments: `call_names.py` says how Lua has them.

    Where it says "-- Libraries: telling, standing", the functions of `ci_eventstore/lua/telling.lua` and `standing.lua`
    stand instead, as far as the script uses them. A server makes a script's functions anew for each call: a script has
    them no earlier than it needs, if need be in the block alone that the line is in.
    """
    names = CallNames(call) if call else None
    head = "".join(f"local {constant} = {_as_lua(value)}\n" for constant, value in (constants or {}).items())
    script = _read(package, f"{name}.lua")
    if names:
        script = names.expand(script)
    for line in reversed(list(_LIBRARIES.finditer(script))):
        indent, after = line[1], script[line.end() :]
        end = re.search(rf"^ {{0,{len(indent) - 1}}}\S", after, re.MULTILINE) if indent else None
        library = _without_unused(load_libraries(line[2]), after[: end.start()] if end else after)
        script = script[: line.start()] + textwrap.indent(library, indent) + after
    head += names.head(script) if names else ""
    source = _read("ci_eventstore.connection", "deadline.lua") + head + script
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), names)


def load_libraries(names: str) -> str:
    """Return the text of libraries, whose names are joined by ", "."""
    return "".join(_read("ci_eventstore", f"lua/{name}.lua") for name in names.split(", "))


def _as_lua(constant: int | Sequence[str]) -> str:
    """Return a number, or a list of names, as Lua has them."""
    return str(constant) if isinstance(constant, int) else "{" + ", ".join(f"'{name}'" for name in constant) + "}"


def _without_unused(library: str, script: str) -> str:
    """Return a library without the functions that neither the script after it names nor a function that stays."""
    named = _names(script) | _names(_FUNCTION.sub("", library))
    for function in reversed(list(_FUNCTION.finditer(library))):
        if function[1] in named:
            named |= _names(function[0])
        else:
            library = library[: function.start()] + library[function.end() :]
    return library


def _names(text: str) -> set[str]:
    return set(_NAME.findall(_COMMENT.sub("", text)))


@cache
def _read(package: str, path: str) -> str:
    return files(package).joinpath(path).read_text("utf-8")
