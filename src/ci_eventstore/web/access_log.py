"""One record for each request that was answered, when its answer has ended; without queries, headers and bodies.

The records go to the logger `ci_eventstore.web.access`, with what they say as attributes too; `serve --access-log`
writes them as JSON.
"""

import json
import logging
import re
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ci_common.models import to_rfc3339, utc_now

logger = logging.getLogger("ci_eventstore.web.access")

FIELDS: Final = ("client", "user", "method", "path", "status", "bytes", "seconds")
#: The entry of a request's scope that holds the user.
USER: Final = "ci_eventstore.user"
_KEY = re.compile(r"ci_[A-Za-z0-9_-]{16,}")


class AccessLog:
    """An application around another one that logs its answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, and log the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, size = time.monotonic(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            client = scope.get("client")
            fields = {
                "client": client[0] if client else None,
                "user": scope.get(USER),
                "method": scope["method"],
                # A key in an address is a mistake, which the log mustn't make worse.
                "path": _KEY.sub("ci_***", scope["path"]),
                # 0: the client left before there was an answer.
                "status": status,
                "bytes": size,
                "seconds": round(time.monotonic() - began, 6),
            }
            logger.info("%(method)s %(path)s %(status)d", fields, extra=fields)


class AsJSON(logging.Formatter):
    """Writes each record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of JSON."""
        fields: dict[str, Any] = {"time": to_rfc3339(utc_now())}
        fields |= {name: getattr(record, name) for name in FIELDS}
        return json.dumps(fields)
