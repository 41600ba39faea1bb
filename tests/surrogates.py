"""A pytest plugin: what a test logs or fails with reaches xdist's controller, whatever characters it has.

A lone surrogate can't be sent; by itself it would end the whole run.
"""

from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Any:
    """Let surrogates be shown as escapes."""
    return without_surrogates((yield))


def without_surrogates(value: Any) -> Any:
    """Return a value of plain types with escapes where its texts have surrogates."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {without_surrogates(name): without_surrogates(each) for name, each in value.items()}
        case list() | tuple():
            return type(value)(map(without_surrogates, value))
        case _:
            return value
