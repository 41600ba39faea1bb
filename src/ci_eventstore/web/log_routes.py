"""`GET /jobs/{id}/log` and `…/export`: a job's log as text, whole or in ranges, and in formats of other programs."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, NoReturn

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ci_eventstore.jobs.state import to_job
from ci_eventstore.replay.exports import FORMATS, FormatName, pieces_of
from ci_eventstore.replay.replay import History
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import JobId, headers
from ci_eventstore.web.errors import ANSWERED, ResponseCutError, WebError, error_response
from ci_eventstore.web.log_text import LogText, gzipped

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.IGNORECASE)
MEDIA_TYPE = "text/plain; charset=utf-8"
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", "Vary": "Accept-Encoding, Authorization"}
#: The header that says that a running job's log has outgrown its budget.
OUTGROWN = "Log-Truncated"


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a `Range` and the one after its last, None for the whole log; WebError 416.

    Several ranges, other units and malformed ones are ignored, as RFC 9110 allows or demands.
    """
    found = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if not found:
        return None
    first_text, last_text, suffix = found.groups()
    if suffix is not None:
        first, end = max(size - int(suffix), 0), size
    else:
        first, end = int(first_text), min(int(last_text) + 1, size) if last_text else size
        if last_text and int(last_text) < first:
            return None
    if first >= size:
        raise WebError(
            416, "range", f"the log has {size} bytes", {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
        )
    return first, end


def accepts_gzip(header: str | None) -> bool:
    """Return whether a client takes gzip, by its `Accept-Encoding`."""
    weights = {}
    for part in (header or "").lower().split(","):
        name, _, parameters = part.partition(";")
        weight = parameters.replace(" ", "")
        weights[name.strip()] = not re.fullmatch(r"q=0(\.0{0,3})?", weight)
    return weights.get("gzip", weights.get("*", False))


class LogResponse(StreamingResponse):
    """Sends pieces of a log: an error if the first can't be read, and no regular end if a later one can't.

    So a client sees that a log was cut off, whatever stands between it and the server.
    """

    def __init__(self, pieces: AsyncGenerator[bytes], status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(pieces, status_code, headers, MEDIA_TYPE)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or the answer to an error that came before its first byte."""
        try:
            first = await anext(self._pieces, b"")
        except ANSWERED as error:
            await error_response(error)(scope, receive, send)
            return
        async with aclosing(self._pieces), aclosing(self._all(first)) as self.body_iterator:
            await super().__call__(scope, receive, send)

    async def _all(self, first: bytes) -> AsyncGenerator[Any]:
        try:
            if first:
                yield first
            async for piece in self._pieces:
                yield piece
        except ANSWERED as error:
            cut = ResponseCutError(f"a log was cut off: {error}")
            cut.__cause__ = error
            yield _Broken(cut)
            raise cut from error


class _Broken(bytes):
    """A piece of a body that raises an error in whoever tries to send it.

    Middleware such as Starlette's `BaseHTTPMiddleware` runs the application in a task, and ends the response regularly
    when that fails. A piece of a body reaches the code that sends it.
    """

    def __new__(cls, error: Exception) -> "_Broken":
        """Return one that isn't empty."""
        return super().__new__(cls, b"?")

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __len__(self) -> NoReturn:
        """Raise the error."""
        raise self._error

    def __bool__(self) -> NoReturn:
        """Raise the error."""
        raise self._error


class LogRoutes:
    """The routes of a job's log."""

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
        # A client whose range has a condition gets all: versions of a log have no names that it could know.
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

    async def export(
        self,
        request: Request,
        job_id: JobId,
        name: Annotated[FormatName, Query(alias="format", description="what to write")],
    ) -> Response:
        """Send the job's visible events as they stand, in a format of other programs; gzip as asked for."""
        caller = await self._web.caller(request)
        reader, keys = self._web.log(job_id)
        history = await History.of(reader, keys, caller.user_id)
        form = FORMATS[name](to_job(job_id, await self._web.state(job_id, caller.user_id)))
        headers = {OUTGROWN: "true"} if history.extent.is_outgrown else {}
        headers["Content-Type"] = f"{form.media_type}; charset=utf-8"
        return _respond(request, pieces_of(history, form, facts=False), headers)


def _respond(request: Request, pieces: AsyncGenerator[bytes], headers: dict[str, str]) -> Response:
    """Return all pieces as a response, compressed if the client takes gzip."""
    if not accepts_gzip(request.headers.get("accept-encoding")):
        return _send(pieces, headers)
    rest = {name: value for name, value in headers.items() if name != "Content-Length"}
    return _send(gzipped(pieces), {**rest, "Content-Encoding": "gzip"})


def _send(pieces: AsyncGenerator[bytes], headers: dict[str, str], status: int = 200) -> Response:
    return LogResponse(pieces, status, {**HEADERS, **headers})
