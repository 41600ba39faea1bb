"""`make demo` and `ci-eventstore demo` do what they say, and leave nothing behind."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine
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
@pytest.mark.timeout(300)
def test_the_demo_finds_no_difference(tmp_path: Path) -> None:
    """All of its comparisons hold, it says what to try next, and its server is gone when it ends."""
    done = subprocess.run(
        [sys.executable, DEMO], env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    assert done.stdout.count(b"\033[32mok\033[0m") == 15
    assert b"Now you" in done.stdout
    wait_until(lambda: not processes_of(str(tmp_path).encode()), "the end of the demo's server")


@pytest.mark.slow
@pytest.mark.parametrize("taken", [False, True])
def test_the_demo_with_the_page_runs_until_ctrl_c(cli: CommandLine, tmp_path: Path, taken: bool) -> None:
    """It says where the page is and who may log in, its user sees the jobs, and it leaves neither process nor file."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if taken:
            # Another program has it if this one can't; then it is taken all the same.
            with suppress(OSError):
                holder.bind(("127.0.0.1", 8000))
                holder.listen()
        cli.environment = {**cli.environment, "TMPDIR": str(tmp_path)}
        running = cli.start("demo", *([] if taken else ["--port", "0"]))
        running.wait_for_output(b"Ctrl-C")
        found = re.search(
            r"^page +(http://127\.0\.0\.1:(\d+)/)\nAPI key +(ci_\S+)$", running.shown.decode(), re.MULTILINE
        )
        assert found
        assert (found[2] != "8000") or not taken
    request = urllib.request.Request(f"{found[1]}jobs", headers={"Authorization": f"Bearer {found[3]}"})
    with urllib.request.urlopen(request) as answer:
        assert len(json.load(answer)) == 6
    running.send(signal.SIGINT)
    ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: not processes_of(str(tmp_path).encode()), "the end of the demo's server")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_with_the_page_ends_by_itself_for_scripts(cli: CommandLine, tmp_path: Path) -> None:
    """Its jobs end as they should: all but one of those that are taken pass."""
    cli.environment = {**cli.environment, "TMPDIR": str(tmp_path)}
    running = cli.start("demo", "--exit", "--port", "0")
    out, err = running.process.communicate(timeout=290)
    assert (running.process.returncode, err) == (0, b"")
    results = [line.split()[-2:] for line in out.decode().splitlines()[-6:]]
    assert sorted(map(tuple, results)) == [("completed", "failed")] + [("completed", "passed")] * 4 + [("queued", "-")]
