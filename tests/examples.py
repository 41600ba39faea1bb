"""A pytest plugin: how many examples hypothesis tries, fewer on a developer's machine than in CI's slow tests.

`--hypothesis-profile=thorough` chooses their number elsewhere.
"""

from typing import Any

import pytest
from hypothesis import settings

from tests.no_skips_in_ci import is_ci

# An example may take long where the machine has other things to do.
settings.register_profile("quick", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None)
settings.load_profile("thorough" if is_ci() else "quick")


def examples(thorough: int) -> int:
    """Return a number of examples that each take long: this one in CI, an eighth of it in the profile `quick`."""
    return thorough if is_thorough() else thorough // 8


def slow(*values: object) -> Any:
    """Return a case of a matrix that `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


def is_thorough() -> bool:
    """Return whether this run is one that leaves nothing out, as CI's are."""
    return settings.get_current_profile_name() == "thorough"
