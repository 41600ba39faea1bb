"""Routes of a job's events: as a live stream, and in pages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from pydantic import BeforeValidator, WithJsonSchema

from ci_common.models import JobEvent, to_rfc3339
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.events.reader import START, Milestone
from ci_eventstore.events.records import log_text, text_size
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.records import Page
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.lines.indexes import Measure, last_at_most
from ci_eventstore.lines.line_reader import Log
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import POSITION_SCHEMA, JobId, KnownIncarnation
from ci_eventstore.web.job_view import JobViews
from ci_eventstore.web.jobs.stream import DetailedFrames, JobStream, StatesAgain, StreamRequest
from ci_eventstore.web.json_answer import json_answer
from ci_eventstore.web.streams import sse
from ci_eventstore.web.streams.response import StreamResponse, unavailable, whole
from ci_eventstore.web.streams.resume import AddedEnd, Answer, Asked, EndAdding, Start, decide_start, parse_asked
from ci_eventstore.web.streams.sse import readable

PAGE_EVENTS = 1000
#: The document's schema of a position, which a request has as text.
POSITION = WithJsonSchema(dict(POSITION_SCHEMA))
#: Clients of a stream may also send a blank one.
POSITION_OR_BLANK = WithJsonSchema({"anyOf": [POSITION_SCHEMA, {"type": "string", "pattern": r"^\s*$"}]})


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event, and the line of the log that its text begins in, counted from 1."""

    event: JobEvent
    line: int
    #: The line of its last character.
    last_line: int


def number(events: Sequence[JobEvent], start: Milestone) -> list[Numbered]:
    """Return events, which follow a milestone, with their lines."""
    lines, numbered = start.lines, []
    for event in events:
        text = event.data or "" if event.type == "log" else ""
        before, lines = lines, lines + text.count("\n")
        numbered.append(Numbered(event, before + 1, lines if text.endswith("\n") else lines + bool(text)))
    return numbered


def milestone_after(events: Sequence[Numbered], start: Milestone) -> Milestone:
    """Return the milestone after some events, which follow another milestone."""
    sizes = [text_size(log_text(numbered.event)) for numbered in events]
    return Milestone(
        events[-1].event.id or start.position,
        start.lines + sum(lines for _, lines in sizes),
        start.bytes + sum(size for size, _ in sizes),
    )


def to_page(events: Sequence[Numbered], after: int) -> dict[str, Any]:
    """Return a page, with the position after which the next one begins."""
    shown = [_to_dict(numbered) for numbered in events]
    return {"events": shown, "next": (events[-1].event.id or after) if events else after}


def _to_dict(numbered: Numbered) -> dict[str, Any]:
    event = numbered.event
    shown = {"id": event.id, **event.to_dict(), "time": to_rfc3339(event.timestamp)}
    if event.data is not None:
        shown["data"] = readable(event.data)
    if event.type == "log":
        shown["line"] = numbered.line
    return shown


def _unless_blank(value: object) -> object:
    """Return False for a parameter without a value: it counts as absent."""
    return False if isinstance(value, str) and not value.strip() else value


def _encoded(page: Page) -> bytes:
    """Return a page's frames, made once for all who share it."""
    return page.encoded(sse.encode)


class EventRoutes:
    """The routes of one job's events."""

    def __init__(self, web: Web, views: JobViews) -> None:
        self._web = web
        self._views = views
        self._repository = web.repository

    async def stream(
        self,
        request: Request,
        job_id: JobId,
        from_beginning: Annotated[
            bool, Query(description="all events, not only those that are new"), BeforeValidator(_unless_blank)
        ] = False,
        last_event_id: Annotated[str | None, Query(description="events after this one"), POSITION_OR_BLANK] = None,
        incarnation: Annotated[str | None, Query(description="that the position belongs to, from `state`")] = None,
        detail: Annotated[
            bool, Query(description="times, lines, and `state` at each change"), BeforeValidator(_unless_blank)
        ] = False,
        last_event_id_header: Annotated[str | None, Header(alias="Last-Event-ID"), POSITION_OR_BLANK] = None,
    ) -> Response:
        """Stream a job's events as they come (`text/event-stream`), until the job ends."""
        # As `last_event_id`, and newer: polyfills add it. Generators of clients would take the two for one.
        of_polyfill = request.query_params.get("lastEventId")
        asked = parse_asked(last_event_id_header, last_event_id, from_beginning, incarnation, polyfill=of_polyfill)
        try:
            return await self._stream(request, job_id, asked, with_detail=detail)
        except StoreUnavailableError as error:
            return unavailable(request, error)

    async def _stream(self, request: Request, job_id: str, asked: Asked | None, *, with_detail: bool) -> Response:
        caller = await self._web.caller(request)
        state = await self._web.state(job_id, caller.user_id)
        found = await self._web.incarnation(state)
        start = decide_start(state, asked, found)
        if start.answer is Answer.NOTHING:
            return Response(status_code=204)
        opening = sse.encode_state(to_job(job_id, state), start.after, found)
        if with_detail:
            shown = await self._views.with_totals(job_id, state, found)
            opening = sse.named("state", {**shown, "position": start.after}, start.after)
        if start.answer is Answer.COMPLETE:
            return await self._complete(job_id, state, start, opening, with_detail=with_detail)
        state.extent.check_deleted(job_id, 0 if start.begins_again(state) else start.after)
        added = AddedEnd.of(state)
        after = start.after if added is None else added.to_store(start.after)

        async def follow(after: int, known: str | None) -> Follower:
            return await self._repository.follow(job_id, after, caller.user_id, incarnation=known)

        wanted = StreamRequest(
            user_id=caller.user_id,
            opening=opening,
            follow=follow,
            after=after,
            incarnation=asked.incarnation if asked is not None and start.is_another else found if start.after else None,
            begins_again=start.begins_again(state),
            encode=await self._encoder(job_id, state, start, after, with_detail=with_detail),
            before=StatesAgain(self._views, job_id, caller.user_id, state) if with_detail and added is None else None,
            is_allowed=caller.is_still_allowed,
        )
        stream = JobStream(wanted, self._web.streams.waiting)
        return StreamResponse(stream, self._web.streams, self._web.settings.heartbeat_seconds)

    async def _encoder(
        self, job_id: str, state: JobState, start: Start, after: int, *, with_detail: bool
    ) -> Callable[[Page], bytes]:
        """Return what writes pages of events after a position of the store."""
        lines = 0
        if with_detail and not start.begins_again(state):
            lines = await self._lines_before(job_id, state, after)
        added = AddedEnd.of(state)
        if added is not None:
            adding = EndAdding(added, start.after, sse.Detail(lines) if with_detail else sse.encode)
            return lambda page: b"".join(map(adding, page.records))
        return DetailedFrames(lines) if with_detail else _encoded

    async def _lines_before(self, job_id: str, state: JobState, position: int) -> int:
        """Return how many newlines a log has up to a position."""
        if position >= state.position:
            return state.lines
        if state.deleted_to is not None:
            # Only what came later can be read.
            later = await self._read(job_id, state, Milestone(position, 0, 0), state.position - position)
            return state.lines - milestone_after(later, START).lines
        start = await self._milestone(job_id, state, "position", position)
        if start.position == position:
            return start.lines
        return milestone_after(await self._read(job_id, state, start, position - start.position), start).lines

    async def _complete(
        self, job_id: str, state: JobState, start: Start, opening: bytes, *, with_detail: bool
    ) -> Response:
        """Return nothing but the end of a job that has ended."""
        end = sse.encode_completion(state.success, start.after + 1)
        if state.has_complete and start.after >= (state.deleted_to or 0):
            encode = sse.Detail(None) if with_detail else sse.encode
            end = b"".join(map(encode, await self._repository.read_events(job_id, start.after, 1)))
        return whole(opening + end)

    async def events(
        self,
        request: Request,
        job_id: JobId,
        after: Annotated[str, Query(description="events after this one, by its id"), POSITION] = "0",
        limit: Annotated[int, Query(ge=1, le=PAGE_EVENTS)] = PAGE_EVENTS,
        line: Annotated[int | None, Query(ge=1, description="from the event on that this line begins in")] = None,
        incarnation: KnownIncarnation = None,
    ) -> Response:
        """Return a page of events, with their times and line numbers."""
        caller = await self._web.caller(request)
        position = sse.parse_position(after)
        state = await self._web.state(job_id, caller.user_id)
        await self._web.check_incarnation(state, incarnation)
        outgrown = {"log_truncated": True} if state.extent.is_outgrown else {}
        if line is not None:
            numbered = await self._from_line(job_id, state, line, position, limit)
            return await json_answer(request, to_page(numbered, max(state.position, position)) | outgrown)
        page = to_page(await self._after(job_id, state, position, limit), position)
        return await json_answer(request, page | outgrown)

    async def _after(
        self, job_id: str, state: JobState, after: int, limit: int, start: Milestone | None = None
    ) -> list[Numbered]:
        """Return events after a position; read also those between a milestone and it, to count lines."""
        start = start or await self._milestone(job_id, state, "position", after)
        skipped = after - start.position
        return (await self._read(job_id, state, start, skipped + limit))[skipped:]

    async def _from_line(self, job_id: str, state: JobState, line: int, after: int, limit: int) -> list[Numbered]:
        """Return events after a position, from the one on that a line begins in; none if there is no such line."""
        start = await self._milestone(job_id, state, "lines", line - 2)
        while found := await self._read(job_id, state, start, PAGE_EVENTS):
            for entry in found:
                if entry.last_line >= line:
                    place = (entry.event.id or 1) - 1
                    if after > place:
                        return await self._after(job_id, state, after, limit)
                    return await self._after(job_id, state, place, limit, start)
            start = milestone_after(found, start)
            if start.lines >= line - 1:
                # The line before has ended: this skips only events without text.
                start = max(start, await self._milestone(job_id, state, "bytes", start.bytes))
        return []

    async def _milestone(self, job_id: str, state: JobState, what: Measure, limit: int) -> Milestone:
        _, keys = self._web.log(job_id)
        log = Log(keys, state.extent, await self._web.incarnation(state))
        return last_at_most(await self._web.engine.lines.index(log), what, limit)

    async def _read(self, job_id: str, state: JobState, start: Milestone, limit: int) -> list[Numbered]:
        reader, keys = self._web.log(job_id)
        return number(await reader.read(keys, start.position, state.extent, limit), start)
