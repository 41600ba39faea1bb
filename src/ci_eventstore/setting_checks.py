"""Refuse settings that can't be, each by its name."""

import math
from typing import Any

from ci_common.validation import is_number
from ci_eventstore.errors import ConfigurationError


def check_number(settings: Any, name: str, least: float, most: float = math.inf, *, is_whole: bool = False) -> None:
    """Raise ConfigurationError unless a setting is a number between two limits, both included."""
    value = getattr(settings, name)
    if not is_number(value, -math.inf, is_whole=is_whole):
        raise ConfigurationError(f"{name}={value!r} must be a {'whole ' if is_whole else ''}number")
    if not least <= value <= most:
        limits = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise ConfigurationError(f"{name}={value} must be {limits}")
