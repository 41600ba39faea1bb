"""Lua scripts: read from the file beside the module that calls them, with the limits that Python gives them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 that the server knows it by."""

    name: str
    source: str
    sha: str


def load_script(
    package: str, name: str, constants: Mapping[str, int] | None = None, functions: Sequence[str] = ()
) -> Script:
    """Return the script `<name>.lua` of a package, after the check of its deadline, its constants and its libraries.

    A library is a file in `ci_eventstore/lua`; one that uses another stands after it.
    """
    head = "".join(f"local {constant} = {value}\n" for constant, value in (constants or {}).items())
    shared = "".join(_read("ci_eventstore", f"lua/{library}.lua") for library in functions)
    source = _read("ci_eventstore.server", "deadline.lua") + head + shared + _read(package, f"{name}.lua")
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _read(package: str, path: str) -> str:
    return files(package).joinpath(path).read_text("utf-8")
