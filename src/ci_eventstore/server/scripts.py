"""Lua scripts: read from the file beside the module that calls them, with the limits that Python gives them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

_LIBRARIES = re.compile("^-- Libraries: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 that the server knows it by."""

    name: str
    source: str
    sha: str


def load_script(package: str, name: str, constants: Mapping[str, int] | None = None) -> Script:
    """Return the script `<name>.lua` of a package, after the check of its deadline and its constants.

    Where it says "-- Libraries: telling, standing", the functions of `ci_eventstore/lua/telling.lua` and `standing.lua`
    stand instead. A server makes a script's functions anew for each call: a script has them no earlier than it needs.
    """
    head = "".join(f"local {constant} = {value}\n" for constant, value in (constants or {}).items())
    script = _LIBRARIES.sub(lambda names: load_libraries(names[1]), _read(package, f"{name}.lua"))
    source = _read("ci_eventstore.server", "deadline.lua") + head + script
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def load_libraries(names: str) -> str:
    """Return the text of libraries, whose names are joined by ", "."""
    return "".join(_read("ci_eventstore", f"lua/{name}.lua") for name in names.split(", "))


def _read(package: str, path: str) -> str:
    return files(package).joinpath(path).read_text("utf-8")
