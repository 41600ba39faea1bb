"""A fixture that overrides `find_server`: the tests of a module run once with each binary."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


def finding(binaries: Sequence[Any]) -> Any:
    """Return a fixture for a module to have as `find_server`."""

    @pytest.fixture(params=binaries, name="find_server")
    def find(request: pytest.FixtureRequest) -> Callable[[], Path]:
        found: Callable[[], Path] = request.param
        return found

    return find
