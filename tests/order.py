"""A pytest plugin: files are mixed, those that wait with those that compute, and slow tests start first.

It needs a scheduler that gives each worker a part of the list, and later what others haven't begun: `--dist worksteal`.
So, as a rule, a file has one worker and one server.
"""

import zlib
from functools import cache
from pathlib import Path

import pytest


# After fixtures with parameters have had their say.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort; the tests of a file stay in their order."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[bool, int]:
    return item.get_closest_marker("slow") is None, _place(item.path)


@cache
def _place(path: Path) -> int:
    # Tests of structure share what they have parsed.
    name = path.parent.name if path.parent.name == "structure" else path.name
    return zlib.crc32(name.encode())
