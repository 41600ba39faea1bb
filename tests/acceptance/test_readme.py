"""The README as a newcomer types it: each line, in order, in an empty folder, home and virtual environment."""

import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: It installs the package with all that it needs, and waits for jobs as a reader would.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.needs("curl")]

PROMPT = "<<ready>>"
#: For the slowest line, which installs; and how long a program that is started in the background may need to speak up.
LINE_SECONDS = 200.0
STARTED_SECONDS = 30.0
ENDED_SECONDS = 10.0
PORT = "8000"


@dataclass(frozen=True)
class Block:
    """What stands between fences."""

    kind: str
    text: str


def blocks(document: str) -> list[Block]:
    """Return a document's blocks, in their order."""
    return [
        Block(kind, text) for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    ]


class Shell:
    """A bash on a terminal of its own, as someone has in front of them who types."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._terminal, end = pty.openpty()
        #: What programs in the background have printed after the prompt.
        self._early = ""
        hidden = {"PYTHONPATH", "MYPYPATH", "VIRTUAL_ENV", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "PROMPT_COMMAND"}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in hidden and not name.startswith(("CI_EVENTSTORE", "PYTEST", "COV_"))
        }
        path = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if ".venv" not in part)
        environment = {**kept, "HOME": str(home), "PATH": path, "PS1": PROMPT, "PS2": "", "TERM": "dumb"}
        self._bash = subprocess.Popen(
            # `setsid --ctty`: the terminal is the shell's, so that it has jobs.
            ["setsid", "--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i"],
            cwd=folder,
            env=environment,
            stdin=end,
            stdout=end,
            stderr=end,
        )
        os.close(end)
        self._read_to_prompt()
        # What was typed isn't repeated, and virtual environments leave the prompt alone.
        self.type("stty -echo; export VIRTUAL_ENV_DISABLE_PROMPT=1")

    def type(self, line: str) -> tuple[str, int]:
        """Type a line; return what it prints, and its exit code."""
        self._write(line)
        printed = self._read_to_prompt()
        if line.split("#", maxsplit=1)[0].rstrip().endswith("&"):
            printed += self._read_some()
        self._write('echo "<<ended $?>>"')
        # What runs in the background may speak up in between.
        before, code, after = re.split(r"<<ended (\d+)>>\n", self._read_to_prompt(), maxsplit=1)
        return printed + before + after, int(code)

    def look_at_page(self, line: str) -> tuple[str, str]:
        """Type a line that shows a page until Ctrl-C; return what it prints, and the page."""
        self._write(line)
        printed, deadline = "", time.monotonic() + LINE_SECONDS
        while "Ctrl-C" not in printed:
            assert PROMPT not in printed, printed
            assert time.monotonic() < deadline, printed
            printed += self._read(1.0)
        address = re.search(r"http://\S+", printed)
        assert address is not None, printed
        page = subprocess.run(
            ["curl", "-s", "-H", "Accept: text/html", address[0]], capture_output=True, text=True, check=True
        ).stdout
        os.write(self._terminal, b"\x03")
        return printed + self._read_to_prompt(), page

    def close(self) -> None:
        """Leave, with all that was started."""
        # As when its window is closed: the shell passes it on to what runs in the background.
        self._bash.send_signal(signal.SIGHUP)
        try:
            self._bash.wait(ENDED_SECONDS)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()
        os.close(self._terminal)

    def _write(self, line: str) -> None:
        os.write(self._terminal, line.encode() + b"\n")

    def _read_to_prompt(self) -> str:
        printed, deadline = self._early, time.monotonic() + LINE_SECONDS
        while PROMPT not in printed:
            assert time.monotonic() < deadline, f"no prompt after: {printed[-2000:]}"
            printed += self._read(1.0)
        printed, _, self._early = printed.partition(PROMPT)
        return printed

    def _read_some(self) -> str:
        """Wait until a program in the background has said something, as one does who types."""
        printed, deadline = self._early, time.monotonic() + STARTED_SECONDS
        self._early = ""
        while "\n" not in printed and time.monotonic() < deadline:
            printed += self._read(1.0)
        return printed

    def _read(self, seconds: float) -> str:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        return os.read(self._terminal, 65536).decode(errors="replace").replace("\r\n", "\n") if ready else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder beside which, as the README says, the checkout stands."""
    made = tmp_path_factory.mktemp("newcomer")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
    shutil.copytree(ROOT, made / "ci_eventstore", ignore=ignored)
    return made


@pytest.fixture
def shell(folder: Path, tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(folder, tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def free_port() -> str:
    """Return the port that the README names, or another one if somebody has it."""
    for port in (int(PORT), 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(probe.getsockname()[1])
    raise AssertionError("no port is free")


def is_shown(printed: str, shown: str) -> bool:
    """Tell whether all lines that are shown were printed, in their order; `…` stands for any."""
    rest = iter(printed.splitlines())
    return all(line in rest for line in shown.splitlines() if line != "…")


def test_the_readme_as_typed(shell: Shell, folder: Path) -> None:
    """Every line does what the README says: none fails but the one that says so, and what it shows is printed."""
    port, printed, all_printed = free_port(), "", ""
    for block in blocks(README):
        if block.kind == "sh":
            printed = ""
            for line in block.text.splitlines():
                if line.startswith("ci-eventstore demo"):
                    printed, page = shell.look_at_page(line)
                    assert '<script type="module"' in page, printed
                    continue
                typed = (
                    line
                    if port == PORT
                    else line.replace(f":{PORT}", f":{port}").replace("serve &", f"serve --port {port} &")
                )
                said, code = shell.type(typed)
                printed, all_printed = printed + said, f"{all_printed}$ {typed}\n{said}"
                assert code == (3 if "exit 3" in line else 0), all_printed
        elif block.kind == "python":
            (folder / "program.py").write_text(block.text)
            # Programs in the background say that they end.
            shell.type("wait")
            once, code = shell.type("python program.py")
            printed, code_again = shell.type("python program.py")
            assert (code, code_again) == (0, 0), once + printed
            assert is_shown(once, printed)
        else:
            assert is_shown(printed, block.text), f"{block.text}\nisn't what was printed:\n{printed}"
    said, _ = shell.type("ci-eventstore tail $(ci-eventstore jobs list | grep deploy- | cut -d' ' -f1)")
    assert "the token is ***\n" in said
    said, code = shell.type("ci-eventstore verify")
    assert code == 0, said


def test_a_wheel_is_made_as_the_readme_says(shell: Shell, folder: Path) -> None:
    """The command in its text makes one wheel, which has the program."""
    command = re.search(r"`(pip wheel [^`]*)`", README)
    assert command is not None
    said, code = shell.type(f"python3 -m venv other && . other/bin/activate && {command[1]}")
    assert code == 0, said
    assert len(list(folder.glob("ci_eventstore-*.whl"))) == 1
