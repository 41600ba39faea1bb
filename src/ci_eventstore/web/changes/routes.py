"""`GET /changes`: the caller's jobs, and what changes about them, as they change."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Annotated

from fastapi import Header, Query, Request, Response

from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.facts.points import read_points
from ci_eventstore.web.authentication import Caller
from ci_eventstore.web.changes.hub import ChangeHub
from ci_eventstore.web.changes.listeners import Filter, Listener
from ci_eventstore.web.changes.listing import Queue, Statuses, wanted_of
from ci_eventstore.web.context import Web
from ci_eventstore.web.job_view import summary
from ci_eventstore.web.streams import sse
from ci_eventstore.web.streams.response import IDLE, LAST, StreamPiece, StreamResponse, unavailable

#: A snapshot has at most this many jobs: the newest ones.
NEWEST_JOBS = 1_000
#: A client gets snapshots no more often than this.
SNAPSHOT_SECONDS = 2.0
AWAY_SECONDS = 1.0
#: A client is kept waiting for the beginning of its answer no longer than this.
PATIENCE_SECONDS = 1.0


class ChangeStream:
    """What one client gets: all its jobs, unless it has those up to a known place; then changes."""

    def __init__(self, web: Web, shared: Callable[[], ChangeHub], caller: Caller, wanted: Filter, last_id: str) -> None:
        """Begin after the id that a client brings; "" if it has none. Nothing is read before `begin`."""
        self._web = web
        self._shared = shared
        self._joined: ChangeHub | None = None
        self.user_id = caller.user_id
        self.is_allowed = caller.is_still_allowed
        self._listener = Listener(caller.user_id, wanted)
        self._last_id = last_id
        self._may_list_at = 0.0

    async def begin(self) -> None:
        """Listen from now on; errors of `ANSWERED` if changes can't be read, as without the right to write."""
        self._joined = self._shared()
        self._joined.join(self._listener)
        await self._has_news(PATIENCE_SECONDS)
        if self._hub.failure is not None:
            raise self._hub.failure

    async def read(self, seconds: float) -> StreamPiece:
        """Return all jobs, or what has changed since the piece before."""
        if not await self._has_news(seconds):
            return IDLE
        if self._hub.has_ended:
            # The client comes back, and another hub begins.
            if self._hub.failure is not None:
                raise self._hub.failure
            return LAST
        listener = self._listener
        try:
            if listener.needs_all and not await self._resume():
                self._may_list_at = asyncio.get_running_loop().time() + SNAPSHOT_SECONDS
                return StreamPiece(await self._hub.audience.all_jobs(listener, self._all_jobs))
        except StoreUnavailableError:
            listener.begin_again()
            await asyncio.sleep(AWAY_SECONDS)
            return IDLE
        return StreamPiece(listener.take() if listener.frames else b"")

    def close(self) -> None:
        """Listen no more."""
        if self._joined is not None:
            self._joined.leave(self._listener)

    @property
    def _hub(self) -> ChangeHub:
        assert self._joined is not None
        return self._joined

    async def _has_news(self, seconds: float) -> bool:
        """Wait until there is something to send, but no longer than that."""
        hub, listener, loop = self._hub, self._listener, asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        while not hub.has_ended:
            waits_until = ends_at
            if listener.needs_all and hub.is_ready:
                if loop.time() >= self._may_list_at:
                    return True
                waits_until = min(ends_at, self._may_list_at)
            elif listener.frames:
                return True
            listener.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(waits_until):
                    await listener.news.wait()
            if loop.time() >= ends_at:
                return False
        return True

    async def _resume(self) -> bool:
        """Send the client what has changed since its id; False if that isn't known. StoreUnavailableError."""
        points = read_points(self._last_id, len(self._web.engine.keys.tags))
        if points is not None and await self._hub.missed(self._listener, points):
            self._last_id = ""
            return True
        self._last_id = ""
        return False

    async def _all_jobs(self, points: bytes) -> bytes:
        """Return the frame of all jobs that the client wants."""
        statuses, queue = self._listener.wanted
        page = await self._web.engine.listings.page(self.user_id, statuses, NEWEST_JOBS, None, is_partial=True)
        jobs = [job for job in page.jobs if queue in (None, job.queue)]
        incarnations = await self._web.incarnations([job.id for job in jobs])
        fields = {
            "jobs": list(map(summary, jobs, incarnations)),
            "is_all": len(page.jobs) < NEWEST_JOBS and not page.unavailable,
            "unavailable": list(page.unavailable),
        }
        return sse.named("jobs", fields, points.decode())


class ChangeRoutes:
    """The route of changes, and what its streams share."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._hub: ChangeHub | None = None

    async def changes(
        self,
        request: Request,
        status: Statuses = None,
        queue: Queue = None,
        last_event_id: Annotated[str | None, Query(description="the newest id that the client has got")] = None,
        last_event_id_header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    ) -> Response:
        """Stream the caller's jobs (`text/event-stream`): the newest 1,000 at once, then each one that changes."""
        last_id = (last_event_id_header or "").strip() or (last_event_id or "").strip()
        try:
            caller = await self._web.caller(request)
        except StoreUnavailableError as error:
            return unavailable(request, error)
        stream = ChangeStream(self._web, self._shared, caller, wanted_of(status, queue), last_id)
        return StreamResponse(stream, self._web.streams, self._web.settings.heartbeat_seconds)

    def stop(self) -> None:
        """Read changes no more; the next listener begins that again."""
        if self._hub is not None:
            self._hub.stop()

    async def stopped(self) -> None:
        """Wait until the store knows, but not for long."""
        if self._hub is not None:
            await self._hub.stopped()

    def _shared(self) -> ChangeHub:
        engine = self._web.engine
        if self._hub is None or not self._hub.is_of(engine):
            self._hub = ChangeHub(engine, self._web.streams.waiting)
        return self._hub
