"""Every key of the store is named in one module."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.unit.structure.source import SRC, Module, parse, source_modules

KEYS = parse(SRC / "ci_eventstore" / "keys.py", SRC)
#: What stands between the colons of keys, as the docstring of `keys.py` lists them.
KINDS = set(re.findall(r"^ {4}\{ci:0\}:(\w+)", ast.get_docstring(KEYS.tree, clean=False) or "", re.MULTILINE))
NAMED = re.compile(rf"(\}}|^):({'|'.join(sorted(KINDS))})(:|$)")


def texts(tree: ast.AST) -> Iterable[tuple[ast.expr, str]]:
    """Return all texts with where they stand; in those that are put together, `}` ends what is filled in."""
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node, node.value


def named_outside(modules: Iterable[Module]) -> list[str]:
    """Return where keys are named in other modules than `keys.py`; docstrings may show them."""
    return [
        f"{module.path.name}:{node.lineno}: {text}"
        for module in modules
        if module.name != KEYS.name
        for node, text in texts(module.tree)
        if NAMED.search(text) and "\n" not in text
    ]


def test_all_kinds_of_keys_are_known() -> None:
    """The list is read, and has all of them."""
    assert {"job", "events", "calls", "ids", "owned", "leases"} <= KINDS


def test_keys_are_named_in_one_module() -> None:
    """Nobody else puts the name of a key together, not even that of one partition or one job."""
    assert named_outside(source_modules()) == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ('key = f"{tag}:job:{job_id}"', True),
        ('key = f"{tag}:ids"', True),
        ('key = tag + ":events:" + job_id', True),
        ('key = tag + ":ids"', True),
        ('key = f"{prefix}:other"', False),
        ('text = f"the job:{job_id}"', False),
        ('text = "ids: 1, 2"', False),
    ],
)
def test_a_name_is_found(tmp_path: Path, line: str, is_found: bool) -> None:
    """The rule tells names of keys from other texts."""
    file = tmp_path / "module.py"
    file.write_text(line)
    assert bool(named_outside([parse(file, tmp_path)])) == is_found
