"""`GET /jobs/{id}/search` and `…/outline`: what is in a whole log, found by reading it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from ci_common.models import to_rfc3339
from ci_eventstore.events.reader import Ring
from ci_eventstore.events.sealed_log import lies_in_archive
from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.matching import MOST_CHARACTERS, matcher_of
from ci_eventstore.lines.outline import Group, Outline, Outlines
from ci_eventstore.lines.passages import PassageReader
from ci_eventstore.lines.provisional import hits_in, remarks_in
from ci_eventstore.lines.search import Ended, Hit, Progress, search
from ci_eventstore.lines.search import Query as Search
from ci_eventstore.web.access_log import USER
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import JobId, KnownIncarnation
from ci_eventstore.web.errors import WebError
from ci_eventstore.web.json_answer import json_answer
from ci_eventstore.web.limits import SearchLimits
from ci_eventstore.web.logs.lines import asked_log
from ci_eventstore.web.logs.routes import HEADERS, LogResponse
from ci_eventstore.web.streams.sse import MAX_NUMBER, readable

MOST_HITS = 10_000
MOST_CONTEXT = 20
#: An outline's index has at most about so many entries.
INDEX_ENTRIES = 2000
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]


class Searched(BaseModel):
    """What a request searches for."""

    q: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS, description="a text, or a pattern of RE2")]
    mode: Literal["text", "regex"] = "text"
    case: Annotated[bool, Field(description="upper and lower case differ")] = False
    first: Annotated[Number, Field(alias="from")] = 1
    last: Annotated[Number | None, Field(alias="to")] = None
    reverse: Annotated[bool, Field(description="from the last line to the first; `next` is then a `to`")] = False
    limit: Annotated[int, Field(ge=1, le=MOST_HITS, description="of lines with hits")] = 1000
    context: Annotated[int, Field(ge=0, le=MOST_CONTEXT, description="so many lines around each come without `at`")] = 0
    incarnation: KnownIncarnation = None


class SearchRoutes:
    """The routes that read a whole log."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._outlines = Outlines()
        self._limits = SearchLimits()

    @property
    def _reader(self) -> PassageReader:
        return PassageReader(self._web.engine.reader, self._web.engine.lines)

    async def search(self, request: Request, job_id: JobId, asked: Annotated[Searched, Query()]) -> Response:
        """Search all lines, or some, as a terminal shows them; hits come as they are found, one JSON object a line."""
        try:
            matcher = matcher_of(asked.q, asked.mode, has_case=asked.case)
        except ValueError as error:
            raise WebError(400, "invalid", f"q: {error}") from None
        if asked.reverse and asked.context:
            raise WebError(400, "invalid", "`reverse` and `context` exclude each other")
        log, state = await asked_log(self._web, request, job_id, asked.incarnation)
        is_archived = lies_in_archive(state.log)
        if is_archived:
            self._limits.check_archived(request.scope[USER], time.monotonic())
        query = Search(matcher, asked.first, asked.last, asked.limit, asked.context, asked.reverse)
        log, ring = await self._with_end(log)
        found = self._search(request.scope[USER], log, query, ring, is_archived=is_archived)
        return LogResponse(found, 200, {**HEADERS, "Content-Type": "application/x-ndjson"})

    async def _search(
        self, user_id: str | None, log: Log, query: Search, ring: Ring | None, *, is_archived: bool
    ) -> AsyncGenerator[bytes]:
        read, wants_end = 0, ring if query.last is None else None
        with self._limits.counted(user_id):
            if wants_end and query.is_reverse:
                yield await asyncio.to_thread(_provisional, wants_end, query)
            async with aclosing(search(self._reader, log, query)) as messages:
                async for found in messages:
                    if is_archived and not isinstance(found, Hit):
                        self._limits.note_archived(user_id, found.read - read, time.monotonic())
                        read = found.read
                    shown = _to_dict(found, log.extent.position)
                    if ring and isinstance(found, Ended):
                        shown["log_truncated"] = True
                        if wants_end and found.next is None and not query.is_reverse:
                            yield await asyncio.to_thread(_provisional, wants_end, query)
                    yield _as_line(shown)

    async def _with_end(self, log: Log) -> tuple[Log, Ring | None]:
        """Return a log as it stands, and its end so far if it has outgrown its budget."""
        if not log.extent.is_outgrown:
            return log, None
        extent, ring = await self._web.engine.reader.head_and_ring(log.keys)
        return replace(log, extent=extent), ring

    async def outline(
        self,
        request: Request,
        job_id: JobId,
        after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="only what changed after this event")] = 0,
        incarnation: KnownIncarnation = None,
    ) -> Response:
        """Show the log's groups and marked errors, and an index of its lines by time; a long one in several answers."""
        log, state = await asked_log(self._web, request, job_id, incarnation)
        log, ring = await self._with_end(log)
        outline = await self._outline(request.scope[USER], log, is_archived=lies_in_archive(state.log))
        index = await self._web.engine.lines.index(log)
        shown = {
            "groups": [_group(group) for group in outline.groups if group.changed > after],
            "marks": [
                {"line": one.line, "kind": one.remark.kind, "text": readable(one.remark.text)}
                for one in outline.remarks
                if one.position > after
            ],
            "index": [
                [entry.lines + 1, entry.bytes, to_rfc3339(datetime.fromtimestamp(entry.time / 1000, UTC))]
                for entry in index[:: 1 + len(index) // INDEX_ENTRIES]
                if entry.time and after < entry.position <= log.extent.position
            ],
            "total": state.lines,
            "position": outline.position,
            "is_whole": outline.position >= log.extent.position,
            "is_limited": outline.is_limited,
            **({} if ring is None else {"provisional": await asyncio.to_thread(_remarks, ring)}),
        }
        return await json_answer(request, shown)

    async def _outline(self, user_id: str | None, log: Log, *, is_archived: bool) -> Outline:
        """Return a log's outline as far as it could be read; what is read of an archived one counts as searched."""

        def note(characters: int) -> None:
            if is_archived:
                self._limits.note_archived(user_id, characters, time.monotonic())

        if is_archived and not self._outlines.has_all(log):
            self._limits.check_archived(user_id, time.monotonic())
        return await self._outlines.of(self._reader, log, note)


def _as_line(shown: dict[str, Any]) -> bytes:
    return (json.dumps(shown, ensure_ascii=False) + "\n").encode()


def _provisional(ring: Ring, query: Search) -> bytes:
    """Return the lines of an answer that are about the end so far."""
    hits = [_to_dict(hit, 0) for hit in hits_in(ring, query)]
    return b"".join(_as_line({"provisional": {name: hit[name] for name in hit if name != "n"}}) for hit in hits)


def _remarks(ring: Ring) -> list[dict[str, str]]:
    return [{"kind": remark.kind, "text": readable(remark.text)} for remark in remarks_in(ring)]


def _to_dict(found: Hit | Progress | Ended, position: int) -> dict[str, Any]:
    if isinstance(found, Hit):
        line = {"n": found.number, "t": to_rfc3339(found.time), "text": readable(found.text)}
        return line if found.places is None else {**line, "at": found.places}
    if isinstance(found, Progress):
        return {"progress": {"scanned": found.scanned}}
    is_done = found.next is None
    return {"done": is_done, "next": found.next, "hits": found.hits, "scanned": found.scanned, "position": position}


def _group(group: Group) -> dict[str, Any]:
    seconds = None if group.ended is None else round((group.ended - group.began).total_seconds(), 3)
    return {
        "line": group.line,
        "end": group.end,
        "title": readable(group.title),
        "depth": group.depth,
        "is_open": group.end is None,
        "t": to_rfc3339(group.began),
        "seconds": seconds,
    }
