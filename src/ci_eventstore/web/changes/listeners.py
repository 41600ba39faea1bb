"""Listeners to changes of jobs: what each wants, what waits for it, and what they share."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import NamedTuple
from weakref import WeakValueDictionary

from ci_common.models import JobStatus
from ci_eventstore.facts.facts import owner_mark
from ci_eventstore.web.changes.ring import Change

#: A client that has more waiting for it gets a snapshot instead.
PENDING_FRAMES = 1_000
#: Listeners share a snapshot for a while, with what was sent since: at most this many messages and snapshots are kept.
MESSAGES_KEPT = 5_000
SHARED_SECONDS = 1.0
SNAPSHOTS_KEPT = 20


class Frame(NamedTuple):
    """A message in two parts, between which an id may stand."""

    name: bytes
    data: bytes


class Filter(NamedTuple):
    """Which jobs a client wants; None: all."""

    statuses: frozenset[JobStatus] | None = None
    queue: str | None = None

    def takes(self, status: JobStatus | None, queue: str | None, change: Change) -> bool:
        """Return whether a client gets a change of a job: it matches, or may have matched before.

        None is what nobody knows of a job that was deleted.
        """
        if self.queue is not None and queue not in (None, self.queue):
            return False
        return self.statuses is None or status is None or status in self.statuses or bool(change.left & self.statuses)


class Owner(NamedTuple):
    """Whose a job is, and which queue it is in: neither ever changes."""

    user_id: str | None
    queue: str


class ChangeMessage(NamedTuple):
    """A frame for listeners, and who is to get it."""

    job_id: str
    owner: Owner | None
    status: JobStatus | None
    change: Change
    frame: Frame

    def is_seen_by(self, user_id: str | None) -> bool:
        """Return whether the job is, or was, a user's; None sees all."""
        if user_id is None:
            return True
        if self.owner is not None:
            return self.owner.user_id == user_id
        mark = self.change.owner_mark
        return bool(mark) and mark == owner_mark(self.job_id, user_id)

    def is_for(self, listener: "Listener") -> bool:
        """Return whether a listener gets it."""
        if not self.is_seen_by(listener.user_id):
            return False
        return listener.wanted.takes(self.status, None if self.owner is None else self.owner.queue, self.change)


class Snapshot(NamedTuple):
    """All jobs that a user wants, as they were at one moment."""

    frame: bytes
    #: How many messages had been sent before, and when, by the monotonic clock.
    messages: int
    read_at: float


class Listener:
    """One client, and what waits for it."""

    def __init__(self, user_id: str | None, wanted: Filter) -> None:
        self.user_id = user_id
        self.wanted = wanted
        #: By the job's id, in the order of their last changes.
        self.frames: dict[str, Frame] = {}
        #: How far the client is when it has the frames.
        self.points = b""
        #: Whether it needs all jobs before anything else.
        self.needs_all = True
        self.news = asyncio.Event()

    def put(self, job_id: str, frame: Frame, points: bytes) -> None:
        """Have a job's frame sent instead of an older one, unless all jobs will be."""
        if not self.needs_all:
            self.frames.pop(job_id, None)
            self.frames[job_id] = frame
            self.points = points
            if len(self.frames) > PENDING_FRAMES:
                self.begin_again()
            self.news.set()

    def begin_again(self) -> None:
        """Have all jobs sent, instead of what waits."""
        self.frames, self.needs_all = {}, True
        self.news.set()

    def take(self) -> bytes:
        """Return what waits, the last frame with the id."""
        frames, self.frames = list(self.frames.values()), {}
        *others, last = frames
        sent = b"".join(frame.name + frame.data for frame in others)
        return sent + last.name + b"id: " + self.points + b"\n" + last.data


#: Who asks for a snapshot, and which jobs it has.
Asked = tuple[str | None, Filter]


class Audience:
    """All listeners of one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str | None, set[Listener]] = {}
        #: How far listeners have been notified.
        self.points = b""
        #: The last messages; how many there have been, and how often all were sent anew.
        self._messages: deque[ChangeMessage] = deque(maxlen=MESSAGES_KEPT)
        self._message_count = self._gaps = 0
        self._snapshots: dict[Asked, Snapshot] = {}
        self._reading: WeakValueDictionary[Asked, asyncio.Lock] = WeakValueDictionary()

    def add(self, listener: Listener) -> None:
        """Tell a listener of changes from now on."""
        self._listeners.setdefault(listener.user_id, set()).add(listener)

    def remove(self, listener: Listener) -> None:
        """Forget a listener."""
        its = self._listeners.get(listener.user_id, set())
        its.discard(listener)
        if not its:
            self._listeners.pop(listener.user_id, None)

    def all(self) -> list[Listener]:
        """Return all listeners."""
        return [listener for its in self._listeners.values() for listener in its]

    def notify(self, message: ChangeMessage) -> None:
        """Have a frame sent to those listeners that want it."""
        self._messages.append(message)
        self._message_count += 1
        # The owner of a job that is gone is only recognised.
        owner = message.owner
        users = {None, owner.user_id} if owner is not None else set(filter(message.is_seen_by, self._listeners))
        for user_id in users:
            for listener in self._listeners.get(user_id, ()):
                if message.is_for(listener):
                    listener.put(message.job_id, message.frame, self.points)

    def begin_again(self, points: bytes) -> None:
        """Have all listeners sent all jobs, which are known up to some points: changes may be missing."""
        self.points = points
        self._gaps += 1
        self._snapshots.clear()
        for listener in self.all():
            listener.begin_again()

    async def all_jobs(self, listener: Listener, read: Callable[[bytes], Awaitable[bytes]]) -> bytes:
        """Return the frame of all jobs that a listener wants, after which it gets what has changed.

        `read` makes the frame with an id. Listeners that want the same at the same time share one. StoreError.
        """
        asked = listener.user_id, listener.wanted
        lock = self._reading.setdefault(asked, asyncio.Lock())
        async with lock:
            snapshot = self._snapshots.get(asked)
            while snapshot is None or time.monotonic() >= snapshot.read_at + SHARED_SECONDS:
                count, gaps = self._message_count, self._gaps
                frame = await read(self.points)
                # Else it may be older than what was missed.
                snapshot = Snapshot(frame, count, time.monotonic()) if gaps == self._gaps else None
            self._keep(asked, snapshot)
        listener.begin_again()
        # More than are kept may have been sent meanwhile: then all jobs are read again.
        missed = self._message_count - snapshot.messages
        listener.needs_all = missed > len(self._messages)
        for kept in islice(self._messages, max(len(self._messages) - missed, 0), None):
            if kept.is_for(listener):
                listener.put(kept.job_id, kept.frame, self.points)
        return snapshot.frame

    def _keep(self, asked: Asked, snapshot: Snapshot) -> None:
        self._snapshots.pop(asked, None)
        self._snapshots[asked] = snapshot
        if len(self._snapshots) > SNAPSHOTS_KEPT:
            del self._snapshots[next(iter(self._snapshots))]
