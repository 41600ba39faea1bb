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
#: One log for all responses that break off.
_OUTAGES = Outages()

#: Close at once, with a reset: SO_LINGER on, for no time.
_RESET = struct.pack("ii", 1, 0)
#: For how long a connection stays open after a response: longer than proxies keep one that they may use again (nginx
#: and AWS: 60 seconds), or the next request over it meets its end, and is answered with 502.
KEEP_ALIVE_SECONDS = 75
#: Requests that run when the server is to stop have this long; live streams end at once.
GRACE_SECONDS = 5
#: Proxies on this machine.
TRUSTED_PROXIES = ("127.0.0.1", "::1")
#: The address of a client that came over a Unix socket.
UNIX_CLIENT = "unix"
#: At most this many connections wait to be accepted.
BACKLOG = 2048
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Connection(HttpToolsProtocol):
    """A client's connection, over which responses to HTTP/1.0 have bodies and a response can break off."""

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
    """Return a `send` for a client that knows no chunks: a body without a length ends with the connection."""
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
    """Reset a connection, so that its client sees a cut response even if that has neither chunks nor a length."""
    connection = cycle.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    cycle.transport.abort()
    # uvicorn then neither sends nor logs anything more.
    cycle.disconnected = True


class WebServer(uvicorn.Server):
    """A uvicorn server that ends live streams before it waits for connections to close."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM, at once at a second SIGINT; uvicorn itself would die of the signal afterwards."""
        loop = asyncio.get_running_loop()
        for number in STOPPING_SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in STOPPING_SIGNALS:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, end live streams, and wait for other requests."""
        self._app.state.router.stop()
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How clients reach a server."""

    #: The prefix that a proxy in front removes from paths: "" or /some/path.
    root_path: str = ""
    keep_alive_seconds: int = KEEP_ALIVE_SECONDS
    #: Addresses and networks of proxies that may name the client and its scheme.
    trusted_proxies: Sequence[str] = TRUSTED_PROXIES
    has_access_log: bool = False


def server_config(app: ASGIApp, service: Service | None = None) -> uvicorn.Config:
    """Return uvicorn's configuration: it logs nothing but warnings and errors."""
    service = service or Service()
    if service.has_access_log:
        app = AccessLog(app)
    # Every client of the Unix socket counts as a proxy.
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
        # On httptools, which sends small frames at once.
        http=Connection,
        ws="none",
    )


def _named_client(app: ASGIApp) -> ASGIApp:
    """Give clients of a Unix socket, which have no address, one that can be trusted."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("client"):
            scope["client"] = (UNIX_CLIENT, 0)
        await app(scope, receive, send)

    return named


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that its address is known before the server runs; OSError."""
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
    """Listen on a Unix socket, and remove it at the end; OSError, also if another server listens there.

    Everybody who may enter its folder may connect.
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
    """Return whether a path is the socket of a server that is gone."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
