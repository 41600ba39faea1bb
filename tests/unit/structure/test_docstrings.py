"""What is public is described, and every test says what it shows.

Ruff asks for the docstrings of modules, classes and functions (D100 to D104). Methods are looked at here, because the
docstring of one that the contract defines is the contract's, and repeating it in each implementation would say nothing.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator

from tests.unit.structure.source import Module, is_public, modules_of_tests, source_modules


def undescribed_methods(owner: type) -> Iterator[str]:
    """Find public methods and properties of a class that have no docstring, not even an inherited one."""
    for name, member in vars(owner).items():
        is_method = inspect.isfunction(member) or isinstance(member, classmethod | staticmethod | property)
        if is_public(name) and is_method and not inspect.getdoc(getattr(owner, name)):
            yield f"{owner.__module__}.{owner.__qualname__}.{name}"


def undescribed_tests(module: Module) -> Iterator[str]:
    """Find test functions without a docstring."""
    nodes = module.nodes
    for function in (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        if function.name.startswith("test_") and not ast.get_docstring(function):
            yield f"{module.where(function)} {function.name}"


def owners_in(module: Module) -> Iterator[type]:
    """Find the classes that a module defines."""
    for member in vars(importlib.import_module(module.name)).values():
        if inspect.isclass(member) and member.__module__ == module.name:
            yield member


def test_public_methods_are_described() -> None:
    """Every public method has a docstring, its own or that of the method it overrides."""
    owners = [owner for module in source_modules() for owner in owners_in(module)]
    assert [message for owner in owners for message in undescribed_methods(owner)] == []


def test_tests_are_described() -> None:
    """Every test has a sentence that says what it shows."""
    assert [message for module in modules_of_tests() for message in undescribed_tests(module)] == []


class Described:
    """A class to inherit docstrings from."""

    def method(self) -> None:
        """Do nothing."""


class Heir(Described):
    """One inherited docstring and three missing ones."""

    def method(self) -> None: ...

    def other(self) -> None: ...

    @classmethod
    def build(cls) -> None: ...

    @property
    def size(self) -> int:
        return 0

    def _private(self) -> None: ...


def test_missing_docstrings_are_found() -> None:
    """An inherited docstring counts, a missing one is found on all kinds of methods."""
    assert [message.rpartition(".")[2] for message in undescribed_methods(Heir)] == ["other", "build", "size"]
