"""Talk to an embedded server without a client."""

import socket

from ci_eventstore.embedded import EmbeddedServer


def ask(server: EmbeddedServer, command: str) -> str:
    """Send a command of one line and return the first line of its reply."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket_path))
        connection.sendall(f"{command}\r\n".encode())
        return connection.makefile().readline().strip()
