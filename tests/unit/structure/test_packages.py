"""Every package says what it is for and what it offers."""

import ast
import importlib

import pytest

from tests.unit.structure.source import SRC, Module, source_modules

EXPORTED_NAMES = 20
PACKAGES = tuple(module for module in source_modules() if module.is_package)


def exports_something(module: Module) -> bool:
    """Return whether a package has more than a docstring: an import or a definition."""
    return any(not isinstance(node, ast.Expr) for node in module.tree.body)


def test_every_folder_is_a_package() -> None:
    """A folder with modules has an `__init__.py`, and so appears below."""
    folders = {path.parent for path in SRC.rglob("*.py")}
    assert sorted(str(folder.relative_to(SRC)) for folder in folders if not (folder / "__init__.py").exists()) == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda module: module.name)
def test_a_package_has_a_docstring(package: Module) -> None:
    """An `__init__.py` begins with what the package is for."""
    assert ast.get_docstring(package.tree)


@pytest.mark.parametrize("package", [module for module in PACKAGES if exports_something(module)], ids=lambda m: m.name)
def test_a_package_lists_what_it_exports(package: Module) -> None:
    """`__all__` has at most twenty names, all of which are there; that it is sorted, ruff checks (RUF022)."""
    imported = importlib.import_module(package.name)
    names = getattr(imported, "__all__", None)
    assert names, "it exports something and has no __all__"
    assert len(names) <= EXPORTED_NAMES
    assert [name for name in names if not hasattr(imported, name)] == []
