"""`GET /jobs/{id}/log`: a job's log as text."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Query, Request, Response

from ci_eventstore.events.ring import Ring
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import JobId, headers
from ci_eventstore.web.log_range import accepts_gzip, parse_range
from ci_eventstore.web.log_response import LogResponse
from ci_eventstore.web.log_text import LogText, gzipped, is_outgrown

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
        tail: Annotated[int | None, Query(ge=0, description="only so many lines from the end")] = None,
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
        state, ring = await self._find(job_id, caller.user_id)
        await self._web.check_incarnation(state, incarnation)
        text = LogText(*self._web.log(job_id), state, ring if provisional else None)
        headers = {OUTGROWN: "true"} if is_outgrown(state) else {}
        # A client that has a condition for its range gets all: no version of a log has a name that it could know.
        is_whole = "if-range" in request.headers or request.method == "HEAD"
        asked = None if is_whole else request.headers.get("range")
        if tail is not None or timestamps or (text.has_ring and asked is None):
            pieces = text.lines(tail, with_times=timestamps)
            return _respond(request, pieces, {**headers, "Accept-Ranges": "none"})
        headers["Accept-Ranges"] = "bytes"
        found = parse_range(asked, state.bytes)
        if found is None:
            headers["Content-Length"] = str(state.bytes)
            return _respond(request, text.between(0, state.bytes), headers)
        first, end = found
        headers |= {"Content-Range": f"bytes {first}-{end - 1}/{state.bytes}", "Content-Length": str(end - first)}
        return _send(text.between(first, end), headers, 206)

    async def _find(self, job_id: str, user_id: str | None) -> tuple[JobState, Ring | None]:
        """Return a job's state, and what its ring has if its log has outgrown its budget and it runs."""
        state = await self._web.state(job_id, user_id)
        if not is_outgrown(state):
            return state, None
        reader, keys = self._web.log(job_id)
        ring = await reader.ring(keys)
        # If it has ended meanwhile, its stream has all.
        state = await self._web.state(job_id, user_id)
        return state, ring if is_outgrown(state) else None


def _respond(request: Request, pieces: AsyncGenerator[bytes], headers: dict[str, str]) -> Response:
    """Return the whole of something, compressed if the client takes that."""
    if not accepts_gzip(request.headers.get("accept-encoding")):
        return _send(pieces, headers)
    rest = {name: value for name, value in headers.items() if name != "Content-Length"}
    return _send(gzipped(pieces), {**rest, "Content-Encoding": "gzip"})


def _send(pieces: AsyncGenerator[bytes], headers: dict[str, str], status: int = 200) -> Response:
    return LogResponse(pieces, status, {**HEADERS, **headers})
