"""Uses a server again and again, and has its own child or the watchdog killed some lines later each time.

Arguments: the data directory, `user` or `watchdog`, and how many lines to go on each time. It prints the number of each
line at which somebody died, and `done` when there are no further lines; it fails if anything isn't as before.
"""

import os
import sys
from itertools import count
from pathlib import Path

import ci_eventstore.embedded
from ci_eventstore.embedded import EmbeddedServer
from tests.integration.embedded.line_killer import kill_at
from tests.integration.embedded.processes import processes_in
from tests.integration.embedded.sockets import ask
from tests.servers import wait_until

SOURCE = str(Path(ci_eventstore.embedded.__file__).parent)
KILLER = Path(__file__).with_name("line_killer.py")


class Uses:
    """Uses of one data directory, counted there; all that belongs to one must have ended behind it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0

    def use(self) -> None:
        """Use the server once more; it may have to be started twice for that, but must remember what was written."""
        server = EmbeddedServer(self._directory)
        while not self._count(server):
            pass
        self._number += 1
        server.release()
        wait_until(lambda: not processes_in(self._directory), "the end of the server")

    def _count(self, server: EmbeddedServer) -> bool:
        server.ensure_running()
        try:
            found = int(ask(server, "INCRBY uses 0").removeprefix(":"))
            if found not in {self._number, self._number + 1}:
                raise AssertionError(f"{found} uses instead of {self._number}")
            return ask(server, f"SET uses {self._number + 1}") == "+OK"
        except (OSError, ValueError):
            return False


def user_dies(directory: Path, line: int) -> bool:
    """Have a child use the server and be killed at a line; return False if it came to its end."""
    child = os.fork()
    if child == 0:
        kill_at(line, SOURCE)
        server = EmbeddedServer(directory)
        server.ensure_running()
        server.release()
        sys.settrace(None)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def watchdog_dies(directory: Path, line: int, uses: Uses) -> bool:
    """Use the server while its first watchdog is killed at a line; return False if that came to its end."""
    order = directory.with_name("order")
    order.write_text(str(line))
    python = directory.with_name("python")
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" -I -S "{KILLER}" "{order}" "$@"\n')
    python.chmod(0o755)
    real, sys.executable = sys.executable, str(python)
    uses.use()
    sys.executable = real
    return not order.exists()


def main() -> None:
    """Go through the lines."""
    directory, who, pace = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    uses = Uses(directory)
    uses.use()
    for line in count(1, pace):
        somebody_died = user_dies(directory, line) if who == "user" else watchdog_dies(directory, line, uses)
        uses.use()
        print(line if somebody_died else "done", flush=True)  # noqa: T201 - what the test reads
        if not somebody_died:
            return


if __name__ == "__main__":
    main()
