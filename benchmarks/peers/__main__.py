"""Measure the queues in turn, each in its own virtual environment, each job on a new server."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.progress import show_progress
from benchmarks.servers import FILE_SETTINGS, running, server_binaries

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / "build" / "peers"

#: What each queue needs beside uvloop.
PEERS: dict[str, list[str]] = {
    "ours": ["--editable", str(ROOT)],
    "saq": ["saq[redis]", "typing_extensions"],
    "taskiq": ["taskiq-redis"],
    "arq": ["arq"],
    "docket": ["pydocket"],
    "streaq": ["streaq"],
}
#: Figures by name, with whether more is better.
FIGURES = {"awaited": True, "at_once": True, "drain": True, "median_ms": False, "p99_ms": False}
HEADINGS = {
    "awaited": "created/s, awaited",
    "at_once": "created/s, 50 at once",
    "drain": "no-op jobs/s",
    "median_ms": "start, median ms",
    "p99_ms": "start, p99 ms",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A queue, and what its processes run in."""

    peer: str
    python: Path
    #: Variables beside those of this process.
    environment: Mapping[str, str] = field(default_factory=dict)


def python_of(peer: str) -> Path | None:
    """Return the interpreter of a queue's environment, made if needed; None if the queue can't be installed."""
    python = ENVIRONMENTS / peer / "bin" / "python"
    if not python.exists():
        print(f"installing {peer}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / peer], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "uvloop", "hiredis", *PEERS[peer]]
        if subprocess.run(install, check=False).returncode:
            print(f"{peer} can't be installed, and is left out", file=sys.stderr)
            python.unlink()
            return None
    return python


def play(part: Part, role: str, url: str, count: int) -> "subprocess.Popen[str]":
    """Start a process that plays a role."""
    command = [str(part.python), str(HERE / "harness.py"), part.peer, role, url, str(count)]
    environment = {**os.environ, **part.environment}
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(command, stdout=pipe, stderr=nothing, text=True, cwd=HERE, env=environment)


def figures_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a process and return the figures that it prints last."""
    printed, _ = process.communicate(timeout=60)
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return figures


@contextmanager
def server() -> Iterator[str]:
    """Run a new server without an append-only file."""
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=True) as url:
        yield url


def measure(part: Part, jobs: int, sent: int) -> dict[str, Any]:
    """Measure one queue once."""
    with server() as url:
        created = figures_of(play(part, "create", url, jobs))
        drained = figures_of(play(part, "drain", url, jobs))
    with server() as url:
        listener = play(part, "listen", url, sent)
        assert listener.stdout is not None
        listener.stdout.readline()
        figures_of(play(part, "send", url, sent))
        waited = figures_of(listener)
    return {**created, **drained, **waited}


def main() -> None:
    """Measure all queues in turn, and print medians, and ours beside the best of the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--sent", type=int, default=400, help="jobs whose start is timed")
    parser.add_argument("--peers", default=",".join(PEERS), help="which queues")
    options = parser.parse_args()
    pythons = {peer: python for peer in options.peers.split(",") if (python := python_of(peer)) is not None}
    rounds: dict[str, list[dict[str, Any]]] = {peer: [] for peer in pythons}
    for number in range(options.rounds):
        # Nobody is always first: that may be a disadvantage.
        first = number % max(len(pythons), 1)
        for peer, python in [*pythons.items()][first:] + [*pythons.items()][:first]:
            show_progress(f"round {number + 1} of {options.rounds}: {peer}")
            rounds[peer].append(measure(Part(peer, python), options.jobs, options.sent))
    report(rounds)


def report(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Print the medians of all rounds, and ours by the best of the others."""
    medians = {peer: {name: median(one[name] for one in found) for name in FIGURES} for peer, found in rounds.items()}
    print("  ".join([f"{'':8}", *(f"{HEADINGS[name]:>21}" for name in FIGURES)]))
    for peer, figures in medians.items():
        print("  ".join([f"{peer:8}", *(f"{figures[name]:>21,.2f}" for name in FIGURES)]))
    others = {peer: figures for peer, figures in medians.items() if peer != "ours"}
    if others and "ours" in medians:
        ratios = []
        for name, more_is_better in FIGURES.items():
            best = (max if more_is_better else min)(figures[name] for figures in others.values())
            ratios.append(f"{medians['ours'][name] / best:>21.2f}")
        print("  ".join([f"{'by best':8}", *ratios]))
    for found in rounds.values():
        print(found[0]["versions"])


if __name__ == "__main__":
    main()
