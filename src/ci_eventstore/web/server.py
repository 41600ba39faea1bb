"""Run the web server with uvicorn so that it stops without loss: live streams end first, and clients come back."""

import asyncio
import errno
import logging
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.web.access_log import AccessLog
from ci_eventstore.web.errors import ResponseCutError

logger = logging.getLogger("ci_eventstore.web")
#: Of all logs that break off.
_OUTAGES = Outages()

#: Close at once, with a reset: SO_LINGER on, for no time.
_RESET = struct.pack("ii", 1, 0)
#: For how long a connection stays open after a response: longer than proxies keep one that they may use again (nginx
#: and AWS: 60 seconds), or the next request over it meets its end, and is answered with 502.
KEEP_ALIVE_SECONDS = 75
#: How long requests may take that run when the server is told to stop; live streams end at once.
GRACE_SECONDS = 5
#: Proxies on this machine.
TRUSTED_PROXIES = ("127.0.0.1", "::1")
#: The address of a client that came over a Unix socket.
UNIX_CLIENT = "unix"
#: How many connections may wait to be taken.
BACKLOG = 2048
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Connection(HttpToolsProtocol):
    """A client's connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._inner: ASGIApp = self.app
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        is_old = scope["http_version"] == "1.0"
        try:
            await self._inner(scope, receive, _until_closed(cycle, send) if is_old else send)
        except ResponseCutError as error:
            # An outage is one cause, damage is one for each job.
            kind = "" if isinstance(error.__cause__, StoreUnavailableError) else str(error)
            _OUTAGES.of(logger, "%s", kind=kind).failed(error)
            _break_off(cycle)
        except BaseException:
            if is_old and cycle.response_started:
                _break_off(cycle)
            raise


def _until_closed(cycle: RequestResponseCycle, send: Send) -> Send:
    """Return how to send to a client that doesn't know chunks: what has no length ends with the connection."""
    has_length = True

    async def send_plainly(message: Message) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not has_length:
                # So uvicorn sends neither chunks nor a length, and takes a body of any.
                cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
        elif not has_length and not message.get("more_body", False):
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_plainly


def _break_off(cycle: RequestResponseCycle) -> None:
    """End a connection so that its client sees that the response isn't whole, even one without chunks or a length."""
    connection = cycle.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    cycle.transport.abort()
    # Nothing more is to be sent, and nothing to be logged.
    cycle.disconnected = True


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a server is reached."""

    #: What a proxy in front takes off paths: "" or /some/path.
    root_path: str = ""
    keep_alive_seconds: int = KEEP_ALIVE_SECONDS
    #: Addresses and networks of proxies that are believed what they say of clients.
    trusted_proxies: Sequence[str] = TRUSTED_PROXIES
    has_access_log: bool = False


def server_config(app: ASGIApp, service: Service | None = None) -> uvicorn.Config:
    """Return how uvicorn is run: it logs what goes wrong."""
    service = service or Service()
    if service.has_access_log:
        app = AccessLog(app)
    # Whoever may use the socket is a proxy.
    trusted = [*service.trusted_proxies, UNIX_CLIENT]
    return uvicorn.Config(
        _named_client(cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))),
        root_path=service.root_path,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=service.keep_alive_seconds,
        # On httptools: frames are small, and wait for nothing.
        http=Connection,
        ws="none",
    )


def _named_client(app: ASGIApp) -> ASGIApp:
    """Give clients of a Unix socket, who have no address, one that can be trusted."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("client"):
            scope["client"] = (UNIX_CLIENT, 0)
        await app(scope, receive, send)

    return named


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that it is known where before the server runs; OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


@contextmanager
def listen_at(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket, which is removed at the end; OSError, also if another server listens there.

    Whoever may enter its folder may connect.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            path.unlink()
            listening.bind(str(path))
        try:
            path.chmod(0o666)
            listening.listen(BACKLOG)
            yield listening
        finally:
            path.unlink(missing_ok=True)


def _is_left_over(path: Path) -> bool:
    """Tell whether a path is the socket of a server that is gone."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
