"""Kill the own process when it comes to its n-th line of one folder, counted by first visits.

It imports nothing else from here, since it also runs in the bare interpreter of a watchdog: as a program it takes a
file with the number n, which it removes before it kills, and the watchdog's file and arguments.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


def kill_at(number: int, folder: str, prepare: Callable[[], object] = bool) -> None:
    """Have this process killed at its n-th line of a folder; `prepare` is called right before."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == number:
                prepare()
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def main() -> None:
    """Run the watchdog; it is killed only if the file is there, so that its successor lives."""
    order, program, *arguments = sys.argv[1:]
    sys.argv = [program, *arguments]
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), program, "exec")
    if os.path.exists(order):
        with open(order, encoding="utf-8") as file:
            number = int(file.read())
        kill_at(number, os.path.dirname(program), lambda: os.unlink(order))
    exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    main()
