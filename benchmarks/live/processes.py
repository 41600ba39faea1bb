"""Processes that play the parts of a measurement, each of which prints its figures as a line of JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0

Process = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process is to do."""

    #: Of the store.
    url: str
    #: The ids of the jobs.
    jobs: tuple[str, ...]
    #: How many of the first of them are followed, by how many.
    followed: int
    followers: int
    #: Of all jobs together.
    events: int
    events_per_second: int
    #: Of the HTTP server.
    port: int = 0

    @property
    def events_per_job(self) -> int:
        """How many events each job gets beside its end."""
        return self.events // len(self.jobs)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `start` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "jobs": tuple(fields["jobs"])})


@contextmanager
def start(part: str, plan: Plan, *arguments: str) -> Iterator[Process]:
    """Start a process that plays a part; it is killed if it doesn't end by itself."""
    command = [sys.executable, "-m", f"benchmarks.live.{part}", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(plan)) + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: Process) -> None:
    """Let a process go on that waits for it."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def read_plan() -> Plan:
    """Return what this process is to do."""
    return Plan.parse(sys.stdin.readline())


def say(**figures: Any) -> None:
    """Tell the process that started this one."""
    print(json.dumps(figures), flush=True)


def said(process: Process) -> dict[str, Any]:
    """Wait for the next line of a process; RuntimeError if it died."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended without a word: {process.wait(PATIENCE_SECONDS)}")
    figures: dict[str, Any] = json.loads(line)
    return figures


def cpu_seconds(pid: int) -> float:
    """Return how much CPU time a process has taken with all its threads, by the kernel's clock of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
