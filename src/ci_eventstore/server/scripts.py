"""Lua scripts: read from the file beside the module that calls them, with the limits that Python gives them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 that the server knows it by."""

    name: str
    source: str
    sha: str


def load_script(
    package: str, name: str, constants: Mapping[str, int] | None = None, functions: tuple[str, str] | None = None
) -> Script:
    """Return the script `<name>.lua` of a package, behind the check of its deadline, constants and shared functions."""
    head = "".join(f"local {constant} = {value}\n" for constant, value in (constants or {}).items())
    shared = _read(*functions) if functions else ""
    source = _read("ci_eventstore.server", "deadline") + head + shared + _read(package, name)
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _read(package: str, name: str) -> str:
    return files(package).joinpath(f"{name}.lua").read_text("utf-8")
