"""Wait for the output that comes after a command's end, and report a cut."""

import asyncio
import os
import time
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from ci_eventstore.processes.command import CommandOutput

#: The output ends when nothing has come for QUIET_SECONDS, and after ALL_SECONDS in any case.
QUIET_SECONDS = 2.0
ALL_SECONDS = 30.0
#: The limit when the command was stopped with everything it had started.
STOPPED_SECONDS = 2.0
#: At most this many processes are named.
NAMED = 5


class Cut(Enum):
    """Why the wait for output is over."""

    QUIET = f"nothing came for {QUIET_SECONDS:.0f}s"
    LATE = f"its output went on for {ALL_SECONDS:.0f}s"
    STOPPED = "the job was to end"


class Holder(NamedTuple):
    """A process that may still print to an output."""

    process_id: int
    name: str
    #: Its process group.
    group: int

    def __str__(self) -> str:
        """Return its name and number, as in `sleep (4711)`."""
        return f"{self.name} ({self.process_id})"


async def wait_for_rest(
    output: CommandOutput, carrying: "asyncio.Task[None]", *, was_stopped: bool = False
) -> Cut | None:
    """Wait until the output ends, and with it the task that carries it on; tell why, if it is cut off before.

    Whoever doesn't want to wait any longer says so to the output: `stop_waiting`.
    """
    now = time.monotonic
    began, all_seconds = now(), STOPPED_SECONDS if was_stopped else ALL_SECONDS
    while not carrying.done():
        # Unread output may have come a moment ago.
        last = now() if output.has_unread() else max(output.read_at, began)
        left = min(last + QUIET_SECONDS, began + all_seconds) - now()
        if left <= 0:
            return Cut.STOPPED if was_stopped else Cut.QUIET if now() < began + all_seconds else Cut.LATE
        await asyncio.wait({carrying}, timeout=left)
    return Cut.STOPPED if output.was_cut_off else None


def find_holders(output: CommandOutput) -> list[Holder]:
    """Return the processes that have the other end of an output open, as far as the system shows them.

    It looks at all open files of this user's processes, so it belongs into a thread.
    """
    target, found = output.other_end, list[Holder]()
    for name in _list("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        if any(_link(f"/proc/{name}/fd/{number}") == target for number in _list(f"/proc/{name}/fd")):
            holder = _describe(int(name))
            found += [holder] if holder is not None else []
    return sorted(found)


def cut_line(cut: Cut, killed: Sequence[Holder], left: Sequence[Holder]) -> str:
    """Return a log's last line: why its output ends there, and which processes could still have printed.

    They were killed for it, or go on.
    """
    parts = [f"the command has ended, and {cut.value}: its output is cut off here"]
    if killed:
        parts.append(f"killed, as they could still print: {_names(killed)}")
    if left:
        parts.append(f"what these print from here on isn't stored: {_names(left)}")
    if not killed and not left:
        parts.append("which processes could still print isn't known")
    return f"[{'; '.join(parts)}]\n"


def _names(holders: Sequence[Holder]) -> str:
    named, more = list(map(str, holders[:NAMED])), len(holders) - NAMED
    return ", ".join([*named, f"{more} more"] if more > 0 else named)


def _describe(process_id: int) -> Holder | None:
    try:
        with open(f"/proc/{process_id}/comm", "rb") as file:
            name = file.read().strip().decode("utf-8", "replace")
        return Holder(process_id, "".join(c if c.isprintable() else "?" for c in name), os.getpgid(process_id))
    except OSError:
        return None


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
