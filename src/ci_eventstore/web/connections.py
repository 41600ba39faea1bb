"""HTTP/1 as uvicorn speaks it on httptools, with what it lacks: bodies for HTTP/1.0, and responses that break off."""

import logging
import socket
import struct
import sys
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.web.errors import ResponseCutError

logger = logging.getLogger("ci_eventstore.web")
#: Of all logs that break off.
_OUTAGES = Outages()

#: Close at once, with a reset: SO_LINGER on, for no time.
_RESET = struct.pack("ii", 1, 0)


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
