"""`GET /jobs/{id}/log`: a job's log as text."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from ci_eventstore.web.log_range import accepts_gzip, parse_range
from ci_eventstore.web.log_text import LogText, gzipped
from ci_eventstore.web.state import Web

MEDIA_TYPE = "text/plain; charset=utf-8"
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", "Vary": "Accept-Encoding, Authorization"}


class LogRoutes:
    """The route of a job's log."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def log(
        self,
        request: Request,
        job_id: str,
        tail: Annotated[int | None, Query(ge=0, description="only so many lines from the end")] = None,
        timestamps: Annotated[
            bool, Query(description="each line begins with the time at which it was printed")
        ] = False,
        incarnation: Annotated[str | None, Query(description="that the job has to have; another one: 409")] = None,
    ) -> Response:
        """Send the log as it stands, byte for byte; `Range` and gzip as asked for, `Range` only without `tail`."""
        caller = await self._web.caller(request)
        state = await self._web.state(job_id, caller.user_id)
        await self._web.check_incarnation(state, incarnation)
        store = self._web.repository.parts
        text = LogText(store.reader, store.keys.job(job_id), state)
        if tail is not None or timestamps:
            return _respond(request, text.lines(tail, with_times=timestamps), {"Accept-Ranges": "none"})
        # A client that has a condition for its range gets all: no version of a log has a name that it could know.
        is_whole = "if-range" in request.headers or request.method == "HEAD"
        found = parse_range(None if is_whole else request.headers.get("range"), state.bytes)
        if found is None:
            headers = {"Accept-Ranges": "bytes", "Content-Length": str(state.bytes)}
            return _respond(request, text.between(0, state.bytes), headers)
        first, end = found
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {first}-{end - 1}/{state.bytes}",
            "Content-Length": str(end - first),
        }
        return _send(text.between(first, end), headers, 206)


def _respond(request: Request, pieces: AsyncIterator[bytes], headers: dict[str, str]) -> Response:
    """Return the whole of something, compressed if the client takes that."""
    if not accepts_gzip(request.headers.get("accept-encoding")):
        return _send(pieces, headers)
    rest = {name: value for name, value in headers.items() if name != "Content-Length"}
    return _send(gzipped(pieces), {**rest, "Content-Encoding": "gzip"})


def _send(pieces: AsyncIterator[bytes], headers: dict[str, str], status: int = 200) -> Response:
    return StreamingResponse(pieces, status, {**HEADERS, **headers}, MEDIA_TYPE)
