"""What changes about jobs, read once for all who listen in a process.

Each process that has listeners is a group of readers of facts for itself: it begins with the first listener, and is
dropped some time after the last one has gone. Jobs that have changed are read once, and their frames made once.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from ci_common.errors import RepositoryError
from ci_common.models import utc_now
from ci_eventstore.connection.absence import ask_each
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.engine import Engine
from ci_eventstore.errors import FactReaderReplacedError, GroupDroppedError, StoreUnavailableError
from ci_eventstore.facts.facts import facts_in
from ci_eventstore.facts.points import Entry, entry_of, text_of, write_points
from ci_eventstore.facts.reader import FactBatch, FactReader
from ci_eventstore.following.incarnation import Incarnation
from ci_eventstore.jobs.records import Record, read_records
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.keys import JobKeys
from ci_eventstore.tasks import begin
from ci_eventstore.web.changes.listeners import PENDING_FRAMES, Audience, ChangeMessage, Frame, Listener, Owner
from ci_eventstore.web.changes.ring import Change, ChangeRing, Changes, changes_in, merge
from ci_eventstore.web.job_view import summary
from ci_eventstore.web.streams import sse

logger = logging.getLogger("ci_eventstore.web")

#: What the names of the groups begin with, and after what time without a look a group's process must have ended.
GROUPS = "changes."
LEFT_AFTER = timedelta(minutes=10)
LEASE_SECONDS = 30.0
BATCH_ENTRIES = 500
#: Changes that come together are read together: jobs are read no more often than this.
GATHER_SECONDS = 0.2
#: How long changes are read on when nobody listens, for clients that come back.
LINGER_SECONDS = 60.0
AWAY_SECONDS = 1.0
STOPPING_SECONDS = 2.0


class ChangeHub:
    """Reads changes for all listeners of one event loop."""

    def __init__(self, engine: Engine, outage: OutageLog) -> None:
        self._engine = engine
        self._outage = outage
        #: All listeners.
        self.audience = Audience()
        self._ring = ChangeRing(len(engine.keys.tags))
        #: What was read of facts, and not of jobs yet.
        self._dirty: Changes = {}
        self._has_dirty = asyncio.Event()
        self._reader: FactReader | None = None
        #: Earlier groups of its own that couldn't be dropped yet.
        self._left = set[str]()
        self._ending: asyncio.TimerHandle | None = None
        #: Why it reads no more.
        self.failure: RepositoryError | None = None
        self._task = begin(self._run(), logger, "reading what changes about jobs")
        self._task.add_done_callback(lambda _: self._wake())

    @property
    def is_ready(self) -> bool:
        """Whether changes are read from here on, of all partitions that are there."""
        unbegun = 0 if self._reader is None else self._reader.partitions_unbegun
        return self._reader is not None and self._ring.begun + unbegun >= len(self._engine.keys.tags)

    @property
    def has_ended(self) -> bool:
        """Whether it reads no more."""
        return self._task.done()

    def is_of(self, engine: Engine) -> bool:
        """Return whether it reads an open store, and goes on doing so."""
        return self._engine is engine and not self._task.done() and not self._task.cancelling()

    def join(self, listener: Listener) -> None:
        """Tell a listener of changes from now on."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self.audience.add(listener)

    def leave(self, listener: Listener) -> None:
        """Forget a listener; after the last one, go on for a while."""
        self.audience.remove(listener)
        if not self.audience.all() and self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._task.cancel)

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Wait until the group is dropped, but not for long."""
        if self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._task], timeout=2 * STOPPING_SECONDS)

    async def missed(self, listener: Listener, points: Sequence[Entry]) -> bool:
        """Send a listener what has changed since it was at some entries; False if that isn't known. StoreError."""
        await self._read_before(points)
        changes = self._ring.since(points)
        if changes is None or len(changes) > PENDING_FRAMES:
            return False
        now = self.audience.points
        if any(change.is_unknown for change in changes.values()):
            return False
        listener.needs_all, listener.points = False, now
        records = await self._read(list(changes))
        if len(records) < len(changes):
            return False
        store = await self._engine.incarnation.read()
        for job_id, record in records.items():
            message = self._message_of(job_id, record, changes[job_id], store)
            if message is not None and message.is_for(listener):
                listener.put(job_id, message.frame, now)
        return True

    async def _read_before(self, points: Sequence[Entry]) -> None:
        """Read what a client lacks that comes from another process, if the store has it still. StoreError."""
        tags, limit = self._engine.keys.tags, PENDING_FRAMES
        for partition, (point, base) in self._ring.lacks(points).items():
            if limit < 2:
                return
            found = await self._engine.facts.between(tags[partition], text_of(point), text_of(base), limit)
            entries = [(entry_of(entry.id), changes_in(facts_in(partition, *entry))) for entry in found]
            if not self._ring.extend(partition, entries):
                return
            limit -= len(entries)

    def _wake(self) -> None:
        for listener in self.audience.all():
            listener.news.set()

    async def _run(self) -> None:
        """Read until nobody listens any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_facts())
                tasks.create_task(self._tell_changes())
        except* RepositoryError as errors:
            # The store was closed, or this process may not read facts.
            [self.failure, *_] = [error for error in errors.exceptions if isinstance(error, RepositoryError)]

    async def _read_facts(self) -> None:
        while True:
            group = GROUPS + secrets.token_hex(6)
            try:
                await self._read_as(group)
            except (GroupDroppedError, FactReaderReplacedError):
                logger.info("the group %s was dropped; another one begins", group)
            except StoreUnavailableError as error:
                self._outage.failed(error)
                await asyncio.sleep(AWAY_SECONDS)

    async def _read_as(self, group: str) -> None:
        """Read as a new group, which is dropped in the end."""
        engine = self._engine
        with contextlib.suppress(StoreUnavailableError):
            await self._drop_left()
        self._reader = FactReader(engine.nodes, engine.facts, group, LEASE_SECONDS, BATCH_ENTRIES, from_now=True)
        try:
            async with aclosing(self._reader.batches()) as batches:
                async for batch in batches:
                    self._outage.worked()
                    self._take(batch)
                    await batch.acknowledge()
                    if len(batch.facts) < BATCH_ENTRIES:
                        # Jobs are read no more often either, and facts that come together cost one read.
                        await asyncio.sleep(GATHER_SECONDS / len(engine.keys.tags))
        finally:
            if not await _is_dropped(engine, group):
                self._left.add(group)

    async def _drop_left(self) -> None:
        """Drop the groups of processes that couldn't do so themselves."""
        for group in await self._engine.facts.all():
            is_left = group.name.startswith(GROUPS) and utc_now() - group.looked_at > LEFT_AFTER
            if (is_left or group.name in self._left) and await _is_dropped(self._engine, group.name):
                self._left.discard(group.name)

    def _take(self, batch: FactBatch) -> None:
        if batch.has_gap:
            self._ring.begin(batch.partition, batch.entry)
            self.audience.begin_again(write_points(self._ring.points).encode())
            return
        changes = changes_in(batch.facts)
        self._ring.add(batch.partition, batch.entry, changes)
        merge(self._dirty, changes)
        self._has_dirty.set()

    async def _tell_changes(self) -> None:
        while True:
            await self._has_dirty.wait()
            self._has_dirty.clear()
            begun_at = time.monotonic()
            changes, self._dirty = self._dirty, {}
            points = write_points(self._ring.points).encode()
            store: str | None = None
            try:
                records = await self._read(list(changes))
                store = await self._engine.incarnation.read()
            except StoreUnavailableError:
                # The facts' reader reports it.
                records = {}
            left = [(job_id, change) for job_id, change in changes.items() if job_id not in records]
            if not left:
                self.audience.points = points
            if any(change.is_unknown for change in changes.values()):
                self.audience.begin_again(self.audience.points)
            for job_id, record in records.items():
                if (message := self._message_of(job_id, record, changes[job_id], store)) is not None:
                    self.audience.notify(message)
            if left:
                merge(self._dirty, left)
                self._has_dirty.set()
                await asyncio.sleep(AWAY_SECONDS)
            await asyncio.sleep(max(begun_at + GATHER_SECONDS - time.monotonic(), 0))

    async def _read(self, job_ids: Sequence[str]) -> dict[str, Record]:
        """Return the records of some jobs, without those of partitions that are away; StoreUnavailableError."""
        nodes, source = self._engine.nodes, self._engine.reader.source
        by_tag: dict[str, list[JobKeys]] = {}
        for job_id in job_ids:
            keys = self._engine.keys.job(job_id)
            by_tag.setdefault(keys.tag, []).append(keys)

        async def ask(tag: str) -> list[Record]:
            return await read_records(nodes, source, by_tag[tag])

        answers = await ask_each(nodes, list(by_tag), ask)
        found: dict[str, Record] = {}
        for tag, records in answers.given.items():
            found |= zip((keys.job_id for keys in by_tag[tag]), records, strict=True)
        return found

    def _message_of(self, job_id: str, record: Record, change: Change, store: str | None) -> ChangeMessage | None:
        """Return the message about a job; None if there is none."""
        if isinstance(record, JobState):
            shown = summary(to_job(job_id, record), str(Incarnation(record.incarnation, store)))
            frame = _frame("job", {"job": shown})
            owner = Owner(record.user_id, record.queue)
            return ChangeMessage(job_id, owner, record.status, change, frame)
        if change.is_deleted:
            return ChangeMessage(job_id, None, None, change, _frame("deleted", {"job_id": job_id}))
        # It was deleted, which another fact reports, or can't be read.
        return None


def _frame(name: str, fields: dict[str, Any]) -> Frame:
    first, newline, rest = sse.named(name, fields).partition(b"\n")
    return Frame(first + newline, rest)


async def _is_dropped(engine: Engine, group: str) -> bool:
    """Drop a group; False if a part of the store is away, so that it is to be dropped later, if need be by others."""
    try:
        async with asyncio.timeout(STOPPING_SECONDS):
            return await engine.facts.drop_where_possible(group)
    except (RepositoryError, TimeoutError):
        return False
