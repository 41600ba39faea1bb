"""Find and kill the processes that work in a data directory."""

import os
import signal
from pathlib import Path

from tests.servers import wait_until


def processes_in(directory: Path) -> set[int]:
    """Return all processes that work in a directory or have a file below it open; zombies have none."""
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _uses(entry, directory)}


def servers_of(directory: Path) -> list[int]:
    """Return the servers of a data directory, without the children that rewrite a server's file."""
    return sorted(
        pid for pid in _background(directory) if "-server" in _name(pid) and "-server" not in _parents_name(pid)
    )


def watchdogs_of(directory: Path) -> list[int]:
    """Return the watchdogs of a data directory."""
    return sorted(pid for pid in _background(directory) if "-server" not in _name(pid))


def has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open."""
    return str(path.resolve()) in _links(Path(f"/proc/{pid}"))


def kill(pid: int) -> None:
    """Kill a process, which may be gone already, and wait until all its files and connections are closed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_until(lambda: _is_dead(Path(f"/proc/{pid}")), f"the end of process {pid}")


def freeze(pid: int) -> None:
    """Stop a process until it gets SIGCONT; other signals wait for that too once all its threads stand still."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    wait_until(lambda: all(_state(thread) == "T" for thread in threads.iterdir()), f"process {pid} to stand still")


def _is_dead(process: Path) -> bool:
    """Return whether nothing but the entry for its parent is left; the main thread may end before others."""
    try:
        return _state(process) == "Z" and len(list((process / "task").iterdir())) == 1
    except OSError:
        return True


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def _background(directory: Path) -> list[int]:
    return [pid for pid in processes_in(directory) if _link(Path(f"/proc/{pid}/cwd")) == str(directory.resolve())]


def _uses(process: Path, directory: Path) -> bool:
    if int(process.name) == os.getpid():
        return False
    inside = str(directory.resolve())
    return any(link == inside or link.startswith(f"{inside}/") for link in _links(process))


def _links(process: Path) -> list[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return []
    return [link for path in (process / "cwd", *descriptors) if (link := _link(path))]


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _parents_name(pid: int) -> str:
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""
    return _name(int(parent))
