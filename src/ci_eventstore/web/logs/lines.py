"""`GET /jobs/{id}/lines` and `…/lines/{n}`: a job's log by its lines."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from pydantic import AfterValidator, BeforeValidator

from ci_common.models import as_utc, to_rfc3339
from ci_eventstore.jobs.state import JobState
from ci_eventstore.lines.cutting import Line
from ci_eventstore.lines.line_reader import ANSWER_BYTES, LineReader, Log, Wanted
from ci_eventstore.web.context import Web, check_same
from ci_eventstore.web.document import JobId, KnownIncarnation
from ci_eventstore.web.errors import WebError
from ci_eventstore.web.json_answer import json_answer
from ci_eventstore.web.logs.routes import HEADERS, MEDIA_TYPE
from ci_eventstore.web.streams.resume import last_position
from ci_eventstore.web.streams.sse import MAX_NUMBER

#: At most this many lines are in one answer.
MOST_LINES = 1000
#: Bytes of a line in an answer: unless the client says so, and at most. JSON may make six times as many of them.
MAX_LINE = 16 * 1024
LONGEST_MAX_LINE = 128 * 1024


def _no_number(text: str) -> str:
    """Return the text of a time; ValueError for a number, which would be taken for seconds since 1970."""
    try:
        float(text)
    except ValueError:
        return text
    raise ValueError("a time like 2030-01-02T03:04:05Z is expected")


def _in_utc(time: datetime) -> datetime:
    """Return a time in UTC; ValueError if there is none."""
    try:
        return as_utc(time)
    except OverflowError:
        raise ValueError("it is before the first year, or after the last one") from None


Time = Annotated[datetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]
LineNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="the line's number, from 1")]


@dataclass(frozen=True, slots=True)
class LinesAsked:
    """Which lines are asked for: by at most one of these."""

    first: Annotated[int | None, Query(alias="from", ge=1, le=MAX_NUMBER, description="from this line on")] = None
    tail: Annotated[int | None, Query(ge=0, le=MOST_LINES, description="the last lines")] = None
    time: Annotated[Time | None, Query(description="from the line on that was written then, or next")] = None


def line_json(line: Line) -> dict[str, Any]:
    """Return a line as clients get it. Pure."""
    shown: dict[str, Any] = {"n": line.n, "t": to_rfc3339(line.time), "text": line.text}
    return shown if line.size == len(line.data) else {**shown, "bytes": line.size}


class LineRoutes:
    """The routes of a log's lines."""

    def __init__(self, web: Web) -> None:
        self._web = web

    @property
    def _reader(self) -> LineReader:
        return self._web.engine.lines

    async def lines(
        self,
        request: Request,
        job_id: JobId,
        asked: Annotated[LinesAsked, Depends()],
        count: Annotated[int, Query(ge=1, le=MOST_LINES)] = MOST_LINES,
        max_line: Annotated[
            int, Query(ge=4, le=LONGEST_MAX_LINE, description="bytes after which a line is cut")
        ] = MAX_LINE,
        incarnation: KnownIncarnation = None,
    ) -> Response:
        """Return lines of the log; fewer than asked for if they have more than a mebibyte together.

        From its beginning, from a line or a time on, or from its end.
        """
        first, tail, time = asked.first, asked.tail, asked.time
        if sum(given is not None for given in (first, tail, time)) > 1:
            raise WebError(400, "invalid", "`from`, `tail` and `time` exclude each other")
        log, state = await asked_log(self._web, request, job_id, incarnation)
        is_open = await self._web.engine.reader.has_open_end(log.keys, log.extent)
        total = state.lines + is_open
        if tail is not None:
            found = await self._reader.last(log, total, Wanted(tail, max_line))
            first = found[0].n if found else total + 1
        else:
            if time is not None:
                first = await self._reader.line_at(log, time, total)
            first = first or 1
            found = await self._reader.from_line(log, first, Wanted(count, max_line)) if first <= total else []
        shown = {"first": first, "lines": list(map(line_json, found)), "total": total, "is_open": is_open}
        shown |= {"position": last_position(state), "ended": state.end_position is not None}
        outgrown = {"log_truncated": True} if log.extent.is_outgrown else {}
        return await json_answer(request, {**shown, "incarnation": log.incarnation, **outgrown})

    async def line(
        self,
        request: Request,
        job_id: JobId,
        n: LineNumber,
        offset: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="the first byte of the line that is sent")] = 0,
        incarnation: KnownIncarnation = None,
    ) -> Response:
        """Send a line without its newline, from a byte on, a mebibyte at most."""
        log, _ = await asked_log(self._web, request, job_id, incarnation)
        span = await self._reader.span(log, n)
        size = 0 if span is None else span[1] - span[0]
        if span is None or offset > size:
            says = f"there is no line {n}" if span is None else f"the line has {size} bytes"
            raise WebError(416, "range", says, {"Content-Range": f"bytes */{size}"})
        first = span[0] + offset
        data = await self._reader.between(log, first, min(span[1], first + ANSWER_BYTES))
        return Response(data, headers=HEADERS, media_type=MEDIA_TYPE)


async def asked_log(web: Web, request: Request, job_id: str, known: str | None) -> tuple[Log, JobState]:
    """Return the log that a request asks for, as it stands; WebError 409, LogDeletedError."""
    caller = await web.caller(request)
    state = await web.state(job_id, caller.user_id)
    incarnation = await web.incarnation(state)
    check_same(incarnation, known)
    state.extent.check_deleted(job_id, 0)
    _, keys = web.log(job_id)
    return Log(keys, state.extent, incarnation), state
