"""A pytest plugin: what takes longest starts first, lest at the end all workers but one be idle.

It needs a scheduler that hands tests out in their order: `--dist load --maxschedchunk 1`.
"""

from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: Folders whose tests take seconds, as those of others don't.
LONG = [HERE / "integration" / "store", HERE / "acceptance", HERE / "integration"]


# After fixtures with parameters have had their say.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort; tests of one rank stay in their order."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[bool, int]:
    return item.get_closest_marker("slow") is None, _place(item.path)


@cache
def _place(path: Path) -> int:
    return next((place for place, folder in enumerate(LONG) if path.is_relative_to(folder)), len(LONG))
