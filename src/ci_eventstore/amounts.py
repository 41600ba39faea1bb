"""Durations and sizes as people write them. Pure."""

import re

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB|TiB)?")


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
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def parse_size(text: str) -> int:
    """Return the bytes of `500MiB`, `10GiB` or `1024`; ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size: write it as 500MiB, 10GiB or 2TiB")
    return int(found[1]) * UNITS[found[2] or "B"]


def format_size(size: int) -> str:
    """Write a size with the biggest unit of which it is a whole number."""
    unit = next(name for name in reversed(UNITS) if size % UNITS[name] == 0 and (size or name == "B"))
    return f"{size // UNITS[unit]}{unit}"


def about_duration(seconds: float) -> str:
    """Write roughly how long something takes, such as `0.4s`, `12s`, `3m 07s`, `2h 05m`, `3d 04h`."""
    whole = int(seconds)
    if whole < 10:
        return f"{seconds:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def about_size(size: float) -> str:
    """Write a size roughly, such as `712 B`, `1.5 MiB` or `38 GiB`."""
    unit = next(name for name in reversed(UNITS) if abs(size) >= UNITS[name] or name == "B")
    value = size / UNITS[unit]
    return f"{value:.1f} {unit}" if unit != "B" and value < 10 else f"{value:.0f} {unit}"
