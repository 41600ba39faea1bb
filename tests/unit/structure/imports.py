"""What a module imports, and from where in its code."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tests.unit.structure.source import Module, source_modules


@dataclass(frozen=True)
class Import:
    """One imported module."""

    importer: Module
    statement: ast.stmt
    #: Dotted name; of `from package import name`, the module `package.name` if there is one, else `package`.
    target: str
    in_function: bool
    #: Stands in a `try` with an `except` behind it.
    may_fail: bool

    @property
    def root(self) -> str:
        """The first part of the target."""
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer.where(self.statement)} imports {self.target}"


def all_imports(modules: Iterable[Module]) -> list[Import]:
    """Return the imports of all modules."""
    modules = list(modules)
    known = frozenset(module.name for module in modules)
    return [found for module in modules for found in imports_of(module, known)]


@cache
def imports_of_sources() -> list[Import]:
    """Return the imports of both packages."""
    return all_imports(source_modules())


def imports_of(module: Module, known: frozenset[str]) -> Iterator[Import]:
    """Find all imports of a module; `known` are the names of all modules of the project."""
    yield from _imports_in(module.tree, module, known, in_function=False, may_fail=False)


def modules_run_by(found: Import) -> set[str]:
    """Return the target and its packages, whose `__init__.py` run first, but for those the importer is in itself."""
    parts = found.target.split(".")
    packages = {".".join(parts[:length]) for length in range(1, len(parts))}
    return {found.target} | {name for name in packages if not f"{found.importer.name}.".startswith(f"{name}.")}


def _imports_in(
    node: ast.AST, module: Module, known: frozenset[str], *, in_function: bool, may_fail: bool
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            # Most of the code is expressions, which have no statements.
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in _targets(child, module, known):
                yield Import(module, child, target, in_function, may_fail)
        else:
            yield from _imports_in(
                child,
                module,
                known,
                in_function=in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef),
                may_fail=may_fail or (isinstance(child, ast.Try) and bool(child.handlers)),
            )


def _targets(statement: ast.Import | ast.ImportFrom, module: Module, known: frozenset[str]) -> set[str]:
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names}
    origin = statement.module or ""
    if statement.level:
        package = module.name.split(".")
        kept = len(package) - statement.level + (1 if module.is_package else 0)
        origin = ".".join([*package[:kept], *([origin] if origin else [])])
    submodules = {f"{origin}.{alias.name}" for alias in statement.names}
    found = submodules & known
    return found if found == submodules else found | {origin}
