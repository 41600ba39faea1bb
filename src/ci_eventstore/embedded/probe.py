"""Ask whether a server answers on a socket."""

import socket
from enum import Enum
from pathlib import Path

_ANSWER_SECONDS = 2.0
_LONGEST_REPLY = 512


class Answer(Enum):
    """What became of a PING."""

    #: Nobody listens.
    ABSENT = "absent"
    #: Somebody listens, but gave no answer in time.
    SILENT = "silent"
    #: The server reads its data and takes no commands yet.
    LOADING = "loading"
    READY = "ready"


def probe(socket_path: Path) -> Answer:
    """Send a PING and say what came back. OSError if the socket is there but can't be used."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ANSWER_SECONDS)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return answer_of(client.recv(_LONGEST_REPLY))
        except (BlockingIOError, TimeoutError):
            return Answer.SILENT
        except (FileNotFoundError, ConnectionError):
            return Answer.ABSENT


def answer_of(reply: bytes) -> Answer:
    """Read a reply to PING. Even one that isn't PONG comes from a server at work, such as `-BUSY` beside a script."""
    if not reply:
        return Answer.ABSENT
    return Answer.LOADING if reply.startswith(b"-LOADING") else Answer.READY
