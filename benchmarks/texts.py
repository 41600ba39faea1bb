"""Lines of logs to measure with: generated ones, always the same, and those of a real test run."""

import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from benchmarks.scale import EVENT_BYTES
from ci_common.models import JobEvent

#: Tests of Python's own that print some hundred lines and need nothing.
REAL_COMMAND = [sys.executable, "-m", "unittest", "-v", "test.test_textwrap", "test.test_fractions", "test.test_bisect"]

#: Some that print 4,000 lines in a few seconds.
_LONG = ("argparse", "array", "enum", "collections", "re", "ipaddress", "configparser", "json")
LONG_COMMAND = [*REAL_COMMAND, *(f"test.test_{name}" for name in _LONG)]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_WORDS = (
    "build",
    "cache",
    "config",
    "fetch",
    "index",
    "layer",
    "module",
    "parser",
    "queue",
    "runner",
    "socket",
    "worker",
)
_RESULTS = ("ok", "ok", "ok", "ok", "FAIL", "skipped 'needs network'")


def generated_lines(count: int, seed: int = 1) -> list[str]:
    """Return lines as a build prints them: steps with times, tests, downloads, warnings with paths."""
    choose = random.Random(seed)
    return [_line(choose, place) for place in range(count)]


def events(count: int) -> list[JobEvent]:
    """Return log events of EVENT_BYTES bytes of text, each with a time of its own."""
    step = timedelta(milliseconds=1)
    width = EVENT_BYTES - 1
    lines = (f"{line:<{width}.{width}}\n" for line in generated_lines(count))
    return [JobEvent("log", line, timestamp=_START + place * step) for place, line in enumerate(lines)]


def large_events(count: int, size: int) -> list[JobEvent]:
    """Return log events of many lines each."""
    log = generated_log(count * size)
    return [JobEvent("log", log[place * size : (place + 1) * size], timestamp=_START) for place in range(count)]


def generated_log(size: int) -> str:
    """Return generated lines of at least so many bytes."""
    return "\n".join(generated_lines(size // 40 + 1))


def real_log() -> str:
    """Return what a run of Python's own tests prints; "" if this Python comes without them."""
    found = subprocess.run(REAL_COMMAND, capture_output=True, text=True, check=False)
    return found.stderr if found.returncode == 0 else ""


def real_lines(count: int) -> list[str]:
    """Return up to so many lines of a longer run of Python's own tests; none if this Python comes without them."""
    command = REAL_COMMAND if count < 1000 else LONG_COMMAND
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stderr.splitlines()[:count] if found.returncode == 0 else []


def _line(choose: random.Random, place: int) -> str:
    """Return one line of some 40 to 110 characters."""
    word, other = choose.choice(_WORDS), choose.choice(_WORDS)
    milliseconds = place * 7 + choose.randrange(7)
    match choose.randrange(10):
        case 0 | 1 | 2 | 3 | 4:
            result = choose.choice(_RESULTS)
            return f"tests/{word}/test_{other}.py::test_{word}_{choose.randrange(400)} ... {result} ({milliseconds} ms)"
        case 5 | 6 | 7:
            digest = f"{choose.getrandbits(64):016x}"
            return f"[{milliseconds / 1000:10.3f}] step {place}: {word} {other} sha256:{digest} done"
        case 8:
            size = choose.randrange(1_000, 90_000)
            return f"Downloading {word}-{other}-{choose.randrange(20)}.{choose.randrange(20)}.tar.gz ({size} kB)"
    return f"warning: src/{word}/{other}.py:{choose.randrange(900)}: unused variable '{word}_{other}'"
