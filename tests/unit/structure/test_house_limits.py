"""Nothing grows past the limits of the house style, and nothing has a name that says nothing."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.unit.structure.source import ROOT, Module, is_public, source_modules

MODULE_LINES = 400
FUNCTION_LINES = 50
CLASS_LINES = 250
PUBLIC_METHODS = 12
EMPTY_NAMES = frozenset({"util", "utils", "helper", "helpers", "manager", "managers", "base", "bases"})


def lines(node: ast.stmt) -> int:
    """Return how many lines a definition takes, without its decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def public_methods(node: ast.ClassDef) -> set[str]:
    """Return the methods that others call; those of a contract suite, called by pytest, are not among them."""
    functions = (child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))
    return {
        function.name for function in functions if is_public(function.name) and not function.name.startswith("test_")
    }


def oversized(module: Module) -> Iterator[str]:
    """Say what in a module is too big; the repository contract may have as many methods as it must."""
    if (length := len(module.path.read_text().splitlines())) > MODULE_LINES:
        yield f"{module.where()} has {length} lines"
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines(node) > FUNCTION_LINES:
            yield f"{module.where(node)} {node.name} has {lines(node)} lines"
        if isinstance(node, ast.ClassDef) and not node.name.endswith("JobRepository"):
            if lines(node) > CLASS_LINES:
                yield f"{module.where(node)} {node.name} has {lines(node)} lines"
            if (count := len(public_methods(node))) > PUBLIC_METHODS:
                yield f"{module.where(node)} {node.name} has {count} public methods"


def words(name: str) -> set[str]:
    """Split a name in snake or camel case into its words, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}


def badly_named(module: Module, root: Path) -> Iterator[str]:
    """Say which folder, module or class of a file has an empty name."""
    for part in module.path.relative_to(root).with_suffix("").parts:
        if words(part) & EMPTY_NAMES:
            yield f"{module.where()} is named {part}"
    for node in module.nodes:
        if isinstance(node, ast.ClassDef) and words(node.name) & EMPTY_NAMES:
            yield f"{module.where(node)} is named {node.name}"


def found_in(modules: Iterable[Module]) -> list[str]:
    """Return what is too big in all modules."""
    return [message for module in modules for message in oversized(module)]


def test_nothing_in_the_source_is_too_big() -> None:
    """Modules, functions and classes keep within the limits."""
    assert found_in(source_modules()) == []


def test_no_test_module_is_too_long() -> None:
    """Tests, benchmarks and examples keep within the limit of lines, too."""
    paths = (path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))
    assert [str(path) for path in paths if len(path.read_text().splitlines()) > MODULE_LINES] == []


def test_names_say_what_things_are_for() -> None:
    """No folder, module or class is called utils, helpers, manager or base."""
    assert [message for module in source_modules() for message in badly_named(module, ROOT)] == []


def laid(folder: Path, text: str, name: str = "module") -> Module:
    """Write one module and return it."""
    path = folder / f"{name}.py"
    path.write_text(text)
    return Module(name, path, ast.parse(text))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("pass\n" * 400, 0),
        ("pass\n" * 401, 1),
        ("async def run():\n" + "    pass\n" * 49, 0),
        ("async def run():\n" + "    pass\n" * 50, 1),
        ("class A:\n" + "    a = 1\n" * 250, 1),
        ("class A:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(12)), 0),
        ("class A:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(13)), 1),
        ("class MyJobRepository:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(13)), 0),
        ("class A:\n" + "".join(f"    def _m{n}(self): ...\n" for n in range(13)), 0),
    ],
)
def test_the_limits(tmp_path: Path, text: str, messages: int) -> None:
    """What is over a limit is found, what just keeps it isn't."""
    assert len(found_in([laid(tmp_path, text)])) == messages


@pytest.mark.parametrize(
    ("module", "text", "messages"),
    [
        ("redis_utils", "", 1),
        ("base", "class BaseStore: ...", 2),
        ("pool", "class PoolManager: ...", 1),
        ("database", "class HTTPDatabase: ...\nbase = 1", 0),
    ],
)
def test_empty_names(tmp_path: Path, module: str, text: str, messages: int) -> None:
    """An empty word anywhere in a name is found, as part of another word it isn't."""
    assert len(list(badly_named(laid(tmp_path, text, module), tmp_path))) == messages
