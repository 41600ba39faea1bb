"""A process that uses an embedded server: it reads commands and answers each with a line."""

import os
import signal
import sys
from pathlib import Path

from ci_eventstore.embedded import EmbeddedServer
from ci_eventstore.errors import StoreError


def obey(server: EmbeddedServer, command: str) -> str:
    """Do what a line says and return the answer."""
    if command == "use":
        try:
            server.ensure_running()
        except StoreError as error:
            return repr(str(error))
    if command == "release":
        server.release()
    if command == "fork":
        child = os.fork()
        if child == 0:
            signal.pause()
        return str(child)
    return "ok"


def main() -> None:
    """Serve commands until the standard input ends."""
    server = EmbeddedServer(Path(sys.argv[1]))
    for line in sys.stdin:
        print(obey(server, line.strip()), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
