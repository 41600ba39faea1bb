"""The project's Python files, parsed, as the tests of its structure see them."""

import ast
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SRC = ROOT / "src"
PACKAGES = ("ci_common", "ci_eventstore")


@dataclass(frozen=True)
class Module:
    """One Python file."""

    #: Dotted; that of a package is its folder's.
    name: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is an `__init__.py`."""
        return self.path.name == "__init__.py"

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree."""
        return tuple(ast.walk(self.tree))

    def where(self, node: ast.stmt | None = None) -> str:
        """Return `file:line`, to begin a message with."""
        file = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{file}:{node.lineno if node else 1}"


def parse(path: Path, root: Path) -> Module:
    """Read one file, named by its place under `root`."""
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(), filename=str(path)))


@cache
def source_modules() -> tuple[Module, ...]:
    """Return every module of both packages."""
    modules = tuple(parse(path, SRC) for package in PACKAGES for path in sorted((SRC / package).rglob("*.py")))
    assert modules, "there is no source to look at"
    return modules


@cache
def modules_of_tests() -> tuple[Module, ...]:
    """Return every file of tests."""
    return tuple(parse(path, ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py")))


def is_public(name: str) -> bool:
    """Return whether a name is offered to others; magic methods are not, since Python calls them."""
    return not name.startswith("_")
