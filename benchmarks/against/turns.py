"""Let both sides take their figures in turn, in each round by new processes on new servers."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from benchmarks.against.checkouts import ROOT, Checkout
from benchmarks.against.figures import Figure
from benchmarks.against.judging import Comparison
from benchmarks.peers.__main__ import FIGURES as PEER_FIGURES
from benchmarks.peers.__main__ import Part
from benchmarks.peers.__main__ import measure as measure_peer
from benchmarks.servers import FILE_SETTINGS, running, server_binaries

#: How many jobs are created and run, and of how many the start is timed.
PEER_JOBS, PEER_SENT = 5_000, 400
PEER_NAMES = ("created, awaited", "created, 50 at once", "no-op jobs", "start, median", "start, p99")

#: Returns a figure's value by its name, or why there is none.
Take = Callable[[str], float | str]
#: Makes a side ready for a round, after which its processes end.
Opening = Callable[[Checkout, ExitStack], Take]


@dataclass(slots=True)
class Found:
    """All that was taken."""

    comparisons: list[Comparison]
    #: Figures that a side couldn't take, by the side's name: the figure's name, and why.
    missing: dict[str, dict[str, str]] = field(default_factory=lambda: {"here": {}, "there": {}})


def take_turns(sides: Sequence[Checkout], figures: Sequence[Figure], opening: Opening, rounds: int) -> Found:
    """Take each figure of both sides, one after the other, in every round; the sides begin in turn.

    A figure that a side couldn't take once is left out from then on.
    """
    taken: dict[str, dict[str, list[float]]] = {side.name: {figure.name: [] for figure in figures} for side in sides}
    found = Found([])
    began, total = time.monotonic(), rounds * len(figures)
    for number in range(rounds):
        with ExitStack() as stack:
            players = [(side.name, opening(side, stack)) for side in sides]
            for place, figure in enumerate(figures):
                _show_progress(began, number * len(figures) + place, total, f"round {number + 1}: {figure.name}")
                for side, take in players if (number + place) % 2 == 0 else players[::-1]:
                    if not any(figure.name in missing for missing in found.missing.values()):
                        _note(take(figure.name), taken[side][figure.name], found.missing[side], figure.name)
    found.comparisons = [
        Comparison(one.name, one.unit, one.is_more_better, *(taken[side.name][one.name] for side in sides))
        for one in figures
        if not any(one.name in missing for missing in found.missing.values())
    ]
    return found


def _note(value: float | str, values: list[float], missing: dict[str, str], name: str) -> None:
    if isinstance(value, str):
        missing[name] = value
    else:
        values.append(value)


def _show_progress(began: float, done: int, total: int, what: str) -> None:
    passed = time.monotonic() - began
    left = f" ({passed / done * (total - done) / 60:.1f} min left)" if done else ""
    print(f"{passed:5.0f} s  {what}{left}", file=sys.stderr, flush=True)


def in_processes(kind: str) -> Opening:
    """Return what starts a server without an append-only file, and a process of a side that takes figures on it."""

    def opening(side: Checkout, stack: ExitStack) -> Take:
        url = stack.enter_context(running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False))
        process = stack.enter_context(_player(side, kind, url))

        def take(name: str) -> float | str:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
                answer: dict[str, Any] = json.loads(process.stdout.readline())
            except (BrokenPipeError, json.JSONDecodeError):
                return f"its process ended with {process.wait()}"
            value: float | str = answer["value"] if "value" in answer else answer["why"]
            return value

        return take

    return opening


@contextmanager
def _player(side: Checkout, kind: str, url: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a process; it is killed if it doesn't end by itself."""
    command = [str(side.python), "-m", "benchmarks.against.play", kind, url, str(side.source)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=side.environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def running_jobs(side: Checkout, _stack: ExitStack) -> Take:
    """Take the figures of jobs and controllers, all at once, as `make bench-peers` does of ours."""

    @cache
    def measured() -> dict[str, Any]:
        return measure_peer(Part("ours", side.python, side.environment), PEER_JOBS, PEER_SENT)

    def take(name: str) -> float | str:
        try:
            value: float = measured()[list(PEER_FIGURES)[PEER_NAMES.index(name)]]
        except (IndexError, json.JSONDecodeError, subprocess.TimeoutExpired) as error:
            return f"its process ended: {error!r}"
        return value

    return take
