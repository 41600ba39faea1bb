"""`GET /jobs/{id}/log` and `…/export`: a job's log as text, whole or in ranges, and in formats of other programs."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ci_eventstore.jobs.state import to_job
from ci_eventstore.lines.line_reader import Log
from ci_eventstore.replay.exports import FORMATS, FormatName, pieces_of
from ci_eventstore.replay.replay import History
from ci_eventstore.web.conditions import PRIVATE, disposition, has_tag, tag_of
from ci_eventstore.web.context import Web, check_same
from ci_eventstore.web.document import JobId, KnownIncarnation, headers
from ci_eventstore.web.errors import ANSWERED, ResponseCutError, WebError, error_response
from ci_eventstore.web.json_answer import accepts_gzip
from ci_eventstore.web.logs.text import LogText, gzipped, made_plain

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.IGNORECASE)
MEDIA_TYPE = "text/plain; charset=utf-8"
#: A log that a browser opens is text, and nothing in it may do anything.
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    **PRIVATE,
}
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
    """A piece of a body that raises an error in the code that tries to send it.

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


@dataclass(frozen=True, slots=True)
class LogAsked:
    """Which part of a log is asked for, and in which form."""

    tail: Annotated[int | None, Query(ge=0, description="at most this many lines, from the end")] = None
    first: Annotated[int | None, Query(alias="from", ge=1, description="from this line on")] = None
    last: Annotated[int | None, Query(alias="to", ge=1, description="up to this line, which is included")] = None
    timestamps: Annotated[bool, Query(description="each line begins with the time at which it was printed")] = False
    provisional: Annotated[
        bool, Query(description="of a running job whose log has outgrown its budget: its end so far, too")
    ] = True
    download: Annotated[bool, Query(description="as a file to be kept")] = False
    plain: Annotated[bool, Query(description="as a terminal shows each line: without escapes")] = False

    @property
    def has_lines(self) -> bool:
        """Whether some lines are asked for by their numbers."""
        return self.first is not None or self.last is not None

    def pieces_of(self, text: LogText) -> AsyncGenerator[bytes] | None:
        """Return what is asked for, unless it is the bytes as they are, which have ranges."""
        if self.has_lines:
            first, last = self.first or 1, self.last
            return text.lines(first, last if last is None else max(last, first - 1), with_times=self.timestamps)
        if self.tail is not None or self.timestamps or self.plain:
            return text.last_lines(self.tail, with_times=self.timestamps)
        return None


class LogRoutes:
    """The routes of a job's log."""

    #: What the document says of headers.
    READ_HEADERS = headers(
        ("Range", "`bytes=…`, one range; not together with parameters that choose lines"),
        ("If-Range", "the `ETag` of the bytes that are there already; if the log has changed, all is sent"),
        ("If-None-Match", "the `ETag` of what is there already; 304 if the log hasn't changed"),
    )

    def __init__(self, web: Web) -> None:
        self._web = web

    async def log(
        self,
        request: Request,
        job_id: JobId,
        asked: Annotated[LogAsked, Depends()],
        incarnation: KnownIncarnation = None,
    ) -> Response:
        """Send the log as it stands, byte for byte, or lines of it; `Range` and gzip as asked for."""
        caller = await self._web.caller(request)
        reader, keys = self._web.log(job_id)
        extent, ring = await reader.head_and_ring(keys, caller.user_id)
        found = await self._web.incarnation(extent)
        check_same(found, incarnation)
        if asked.tail is None and "range" not in request.headers:
            extent.check_deleted(job_id, 0)
        shown_ring = ring if asked.provisional and not asked.has_lines else None
        text = LogText(reader, self._web.engine.lines, Log(keys, extent, found), shown_ring)
        headers = {OUTGROWN: "true"} if extent.is_outgrown else {}
        if asked.download:
            headers["Content-Disposition"] = disposition(f"{job_id}.{'txt' if asked.plain else 'log'}")
        tag = None
        if not text.has_ring:
            tag = tag_of(found, extent.position, extent.deleted_to)
            headers["ETag"] = tag
            if has_tag(request.headers.get("if-none-match"), tag):
                return Response(status_code=304, headers={**HEADERS, **headers})
        # Ranges are of `GET`, and under their condition, if they have one.
        condition = request.headers.get("if-range")
        is_whole = request.method == "HEAD" or (condition is not None and condition.strip() != tag)
        wanted = None if is_whole else request.headers.get("range")
        pieces = asked.pieces_of(text)
        if pieces is None and text.has_ring and wanted is None:
            pieces = text.last_lines(None, with_times=False)
        if pieces is not None:
            if asked.plain:
                pieces = made_plain(pieces, with_times=asked.timestamps)
            return _respond(request, pieces, {**headers, "Accept-Ranges": "none"})
        headers["Accept-Ranges"] = "bytes"
        place = parse_range(wanted, extent.bytes)
        if place is None:
            headers["Content-Length"] = str(extent.bytes)
            return _respond(request, text.between(0, extent.bytes), headers)
        first, end = place
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
    if "ETag" in rest:
        # Other bytes, which stand for the same.
        rest["ETag"] = f"W/{rest['ETag']}"
    return _send(gzipped(pieces), {**rest, "Content-Encoding": "gzip"})


def _send(pieces: AsyncGenerator[bytes], headers: dict[str, str], status: int = 200) -> Response:
    return LogResponse(pieces, status, {**HEADERS, **headers})
