"""Run the web server with uvicorn so that it stops without loss: live streams end first, and clients come back."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from ci_eventstore.web.connections import Connection

#: For how long a connection stays open after a response: longer than proxies keep one that they may use again (nginx
#: and AWS: 60 seconds), or the next request over it meets its end, and is answered with 502.
KEEP_ALIVE_SECONDS = 75
#: How long requests may take that run when the server is told to stop; live streams end at once.
GRACE_SECONDS = 5
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WebServer(uvicorn.Server):
    """A uvicorn that ends live streams before it waits for connections to close."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM, a second SIGINT at once; uvicorn itself would then die of the signal."""
        loop = asyncio.get_running_loop()
        for number in STOPPING_SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in STOPPING_SIGNALS:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, end live streams, wait for other requests."""
        self._app.state.router.stop()
        await super().shutdown(sockets)


def server_config(app: FastAPI, root_path: str = "", keep_alive_seconds: int = KEEP_ALIVE_SECONDS) -> uvicorn.Config:
    """Return how uvicorn is run: it logs what goes wrong, and trusts proxies on this machine."""
    return uvicorn.Config(
        app,
        root_path=root_path,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=keep_alive_seconds,
        # On httptools: frames are small, and wait for nothing.
        http=Connection,
        ws="none",
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that it is known where before the server runs; OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except BaseException:
        listening.close()
        raise
    return listening
