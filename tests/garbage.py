"""A pytest plugin: what is collected as tests isn't looked at as garbage, over and over.

Thousands of tests are made at once and stay; looking for garbage among them took as long as making them.
"""

import gc
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, and at none of them later."""
    gc.disable()
    try:
        result = yield
    finally:
        gc.freeze()
        gc.enable()
    return result
