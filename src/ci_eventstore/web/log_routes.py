"""`GET /jobs/{id}/log`: a job's log as text."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Query, Request, Response

from ci_eventstore.web.context import Web
from ci_eventstore.web.document import JobId, headers
from ci_eventstore.web.log_range import accepts_gzip, parse_range
from ci_eventstore.web.log_response import LogResponse
from ci_eventstore.web.log_text import LogText, gzipped

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", "Vary": "Accept-Encoding, Authorization"}
#: The header that says that a running job's log has outgrown its budget.
OUTGROWN = "Log-Truncated"


class LogRoutes:
    """The route of a job's log."""

    #: What the document says of headers.
    READ_HEADERS = headers(
        ("Range", "`bytes=…`, one range; not with `tail` or `timestamps`"), ("If-Range", "is never met: all is sent")
    )

    def __init__(self, web: Web) -> None:
        self._web = web

    async def log(
        self,
        request: Request,
        job_id: JobId,
        tail: Annotated[int | None, Query(ge=0, description="at most this many lines, from the end")] = None,
        timestamps: Annotated[
            bool, Query(description="each line begins with the time at which it was printed")
        ] = False,
        incarnation: Annotated[str | None, Query(description="that the job has to have; another one: 409")] = None,
        provisional: Annotated[
            bool, Query(description="of a running job whose log has outgrown its budget: its end so far, too")
        ] = True,
    ) -> Response:
        """Send the log as it stands, byte for byte; `Range` and gzip as asked for, `Range` only without `tail`."""
        caller = await self._web.caller(request)
        reader, keys = self._web.log(job_id)
        extent, ring = await reader.head_and_ring(keys, caller.user_id)
        await self._web.check_incarnation(extent, incarnation)
        text = LogText(reader, keys, extent, ring if provisional else None)
        headers = {OUTGROWN: "true"} if extent.is_outgrown else {}
        # A client that has a condition for its range gets all: no version of a log has a name that it could know.
        is_whole = "if-range" in request.headers or request.method == "HEAD"
        asked = None if is_whole else request.headers.get("range")
        if tail is not None or timestamps or (text.has_ring and asked is None):
            pieces = text.lines(tail, with_times=timestamps)
            return _respond(request, pieces, {**headers, "Accept-Ranges": "none"})
        headers["Accept-Ranges"] = "bytes"
        found = parse_range(asked, extent.bytes)
        if found is None:
            headers["Content-Length"] = str(extent.bytes)
            return _respond(request, text.between(0, extent.bytes), headers)
        first, end = found
        headers |= {"Content-Range": f"bytes {first}-{end - 1}/{extent.bytes}", "Content-Length": str(end - first)}
        return _send(text.between(first, end), headers, 206)


def _respond(request: Request, pieces: AsyncGenerator[bytes], headers: dict[str, str]) -> Response:
    """Return the whole of something, compressed if the client takes that."""
    if not accepts_gzip(request.headers.get("accept-encoding")):
        return _send(pieces, headers)
    rest = {name: value for name, value in headers.items() if name != "Content-Length"}
    return _send(gzipped(pieces), {**rest, "Content-Encoding": "gzip"})


def _send(pieces: AsyncGenerator[bytes], headers: dict[str, str], status: int = 200) -> Response:
    return LogResponse(pieces, status, {**HEADERS, **headers})
