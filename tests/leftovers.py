"""What this process has: to see that nothing is left behind, whatever was cancelled."""

import os
from contextlib import suppress
from pathlib import Path

from tests.waiting import wait_until


def descriptors() -> set[str]:
    """Return what this process has open, but for what the asking itself opens."""
    found = set[str]()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {one for one in found if "/proc/" not in one}


def children() -> set[int]:
    """Return the processes that this one has started and not collected."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == str(os.getpid()):
                found.add(int(path.parent.name))
    return found


async def nothing_is_left(before: tuple[set[str], set[int]], what: str) -> None:
    """Wait until no more is open than before, and no other child is left, dead or alive."""
    try:
        await wait_until(lambda: descriptors() <= before[0] and children() <= before[1], 10)
    except TimeoutError:
        raise AssertionError(f"{what}: {descriptors() - before[0]}, {children() - before[1]}") from None
