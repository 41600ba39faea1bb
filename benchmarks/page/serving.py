"""The server that shows the jobs, and what it answers without any page: lines from anywhere, and searches."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from urllib.parse import quote
from urllib.request import urlopen

from benchmarks.page.loading import Loaded
from benchmarks.results import Row, Target

PATIENCE_SECONDS = 120.0
#: As many as the page asks for at a time.
PAGE_LINES = 500
PLACES = 20


@contextmanager
def serving(url: str) -> Iterator[str]:
    """Run `ci-eventstore serve` for a store, open to this machine, and yield its address."""
    command = [sys.executable, "-m", "ci_eventstore.cli", "serve", "--no-auth", "--port", "0", "--url", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            while not (found := re.search(r"serving on (http://\S+)", said)):
                line = process.stderr.readline()
                if not line:
                    raise RuntimeError(f"the server ended: {said}")
                said += line
            yield found[1]
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


def answer_rows(server: str, loaded: Loaded, most_seconds: float | None) -> list[Row]:
    """Ask for lines all over a log, and search it from its beginning to its end."""
    job = f"{server}/jobs/{loaded.job_id}"
    total = loaded.log.lines
    places = [1 + step * (total - PAGE_LINES) // PLACES for step in range(PLACES)]
    waits = [_seconds(f"{job}/lines?from={place}&count={PAGE_LINES}") for place in places]
    first, done = _search(f"{job}/search?q={quote(loaded.log.rare)}", loaded.log.rare_line)
    limit = None if most_seconds is None else Target(most_seconds, is_most=True)
    return [
        Row(f"HTTP: {PAGE_LINES} lines from anywhere", "ms", [1000 * median(waits)]),
        Row(f"HTTP: {PAGE_LINES} lines from anywhere, the slowest", "ms", [1000 * max(waits)]),
        Row("HTTP: the end", "ms", [1000 * _seconds(f"{job}/lines?tail={PAGE_LINES}")]),
        Row("HTTP: search, first message", "s", [first]),
        Row("HTTP: search, all lines", "s", [done], target=limit),
    ]


def _seconds(address: str) -> float:
    begun = time.perf_counter()
    with urlopen(address, timeout=PATIENCE_SECONDS) as answer:
        json.load(answer)
    return time.perf_counter() - begun


def _search(address: str, line: int) -> tuple[float, float]:
    """Return after how long the first message came, and the last one; RuntimeError unless that line alone was found."""
    begun, first, found = time.perf_counter(), 0.0, list[int]()
    start = 1
    while start:
        with urlopen(f"{address}&from={start}", timeout=PATIENCE_SECONDS) as answer:
            message: dict[str, object] = {}
            for text in answer:
                message = json.loads(text)
                first = first or time.perf_counter() - begun
                if "n" in message:
                    found.append(int(str(message["n"])))
        start = 0 if message.get("done") else int(str(message["next"]))
    if found != [line]:
        raise RuntimeError(f"found lines {found}, not {line}")
    return first, time.perf_counter() - begun
