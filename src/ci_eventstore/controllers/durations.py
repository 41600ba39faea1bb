"""Durations as people write them. Pure."""

import re

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")


def parse_duration(text: str) -> float:
    """Return the seconds of `30s`, `15m`, `1.5h`, `2d` or `90`; ValueError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no duration: write it as 30s, 15m, 1h or 2d")
    return float(found[1]) * SECONDS[found[2] or "s"]


def format_duration(seconds: float) -> str:
    """Write a duration with the biggest unit of which it is a whole number, as `90s`, `2m` or `1h`."""
    for unit in "dhm":
        if seconds >= SECONDS[unit] and seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"
