"""Programs that tests run beside themselves."""

import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.integration.embedded.processes import kill

_ROOT = Path(__file__).resolve().parents[3]


class Child:
    """One of the programs of this folder, talked to by lines."""

    def __init__(self, program: str, directory: Path, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.integration.embedded.{program}", str(directory), *arguments],
            cwd=_ROOT,
            env=environment or None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def send(self, command: str) -> Self:
        """Send a command without waiting for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self

    def answer(self) -> str:
        """Read the next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        """Send a command and return its answer."""
        return self.send(command).answer()

    def number_from(self, smallest: int) -> int:
        """Read lines up to one that is a number of this size."""
        while (number := int(self.answer())) < smallest:
            pass
        return number

    def rest(self) -> list[str]:
        """Read what is left, up to the end of the program."""
        assert self._process.stdout is not None
        return self._process.stdout.read().split()

    def kill(self) -> None:
        """Kill it, if it still runs."""
        kill(self._process.pid)
        self._process.wait()

    def close(self) -> None:
        """Kill it and close the pipes to it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
