"""`make demo` does what it says, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import wait_until

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def processes_of(text: bytes) -> list[str]:
    """Return the processes whose command line has a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if text in line:
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.slow
def test_the_demo_finds_no_difference(tmp_path: Path) -> None:
    """All of its comparisons hold, it says what to try next, and its server is gone when it ends."""
    done = subprocess.run(
        [sys.executable, DEMO], env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    assert done.stdout.count(b"\033[32mok\033[0m") == 15
    assert b"Now you" in done.stdout
    wait_until(lambda: not processes_of(str(tmp_path).encode()), "the end of the demo's server")
