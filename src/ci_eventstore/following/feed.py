r"""The live end of one job, shared by its followers: the last entries, and the followers that wait for more. No I/O.

It is fed by what scripts publish to the job's channel after an append:

<place before> <id>:<size> <id>:<size> …\n<payload><payload>…<mark>      the entries, if they are few and small
<place before> <place after> <mark>                                      else how far the stream goes

The mark is that of the entry at the place before: eight characters, which older programs don't send.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ci_common.errors import RepositoryError
from ci_eventstore.events.codec import is_same_entry, mark_of
from ci_eventstore.events.reader import Extent
from ci_eventstore.events.records import Place
from ci_eventstore.following.incarnation import Incarnation
from ci_eventstore.following.records import Entry, Page, in_order, page_of
from ci_eventstore.keys import JobKeys

MARK_BYTES = 8


class Message(NamedTuple):
    """What was appended to a job's stream."""

    #: The ends of the stream before and after it.
    before: Place
    after: Place
    #: None: they have to be read from the stream.
    payloads: Sequence[tuple[Place, bytes]] | None
    #: The mark of the stream's last entry before it; None if the message has none.
    mark: str | None = None


def parse_message(data: bytes) -> Message:
    """Read a message; ValueError if it isn't one."""
    head, newline, body = data.partition(b"\n")
    before, *rest = head.split(b" ")
    if not newline:
        return Message(Place.parse(before), Place.parse(rest[0]), None, rest[1].decode() if len(rest) > 1 else None)
    payloads, start = [], 0
    for item in rest:
        stream_id, size = item.split(b":")
        end = start + int(size)
        payloads.append((Place.parse(stream_id), body[start:end]))
        start = end
    mark = body[start : start + MARK_BYTES].decode() or None
    return Message(Place.parse(before), payloads[-1][0], payloads, mark)


#: At most this much is kept, as stored, for followers that haven't taken it yet; slower ones read the stream.
KEPT_BYTES = 256 * 1024
#: Entries that every follower has are dropped once there are more than this.
KEPT_ENTRIES = 32
#: Roughly the memory of an entry beside its payload.
ENTRY_BYTES = 500


class Cursor:
    """How far a follower has come."""

    __slots__ = ("payload", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        #: The last entry it was handed, as stored; None if only its place is known.
        self.payload: bytes | None = None


class Feed:
    """One job as this process knows it.

    Entries come in at the head; followers are handed them up to `shown`, which moves to the head at `show()`. Those who
    stand before `base` have to read the stream.
    """

    def __init__(self, keys: JobKeys, extent: Extent, *, is_live: bool, incarnation: Incarnation | None = None) -> None:
        self.keys = keys
        #: The place of the last entry handed out.
        self.incarnation = incarnation or Incarnation()
        #: Whether the job may get more entries.
        self.is_live = is_live
        #: The end of the log when its first follower came.
        self.extent = extent
        self.cursors: set[Cursor] = set()
        #: Whether it has a head.
        self.is_ready = False
        #: Why nothing can be followed any more.
        self.failure: RepositoryError | None = None
        #: Goes up when the store has lost what was handed out.
        self.generation = 0
        #: The number of entries that have come in.
        self.taken = 0
        #: The entry at the head, as stored, if that is known.
        self.last_payload: bytes | None = None
        self._shown_payload: bytes | None = None
        self._base_payload: bytes | None = None
        self._mark: tuple[bytes, str] | None = None
        self.head = self.base = self.shown = Place(0)
        #: When something was handed out last, and since when more is known to be there, by the event loop's clock.
        self.shown_at = 0.0
        self.behind_since: float | None = None
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self._page: tuple[Place, Page] | None = None

    def begin(self, head: Place, last_payload: bytes | None) -> None:
        """Begin, or begin again, after a place of the stream."""
        self._entries.clear()
        self._kept_bytes, self._page = 0, None
        self.head = self.base = self.shown = head
        self.last_payload = self._shown_payload = self._base_payload = last_payload
        self.is_ready, self.behind_since = True, None
        self.wake()

    def reset(self, head: Place, last_payload: bytes | None) -> None:
        """Begin again, and let all followers begin again with the job's first event."""
        self.generation += 1
        self.begin(head, last_payload)

    def fail(self, failure: RepositoryError) -> None:
        """Let all followers raise an error."""
        self.failure = failure
        self.wake()

    def take(self, message: Message) -> bool:
        """Take what a message carries; False: the stream has to be read, and compared.

        A message fits if it comes after the entry at the head: that one, not another one at its place.
        """
        if message.after < self.head:
            return True
        if message.after == self.head:
            return message.payloads is None or is_same_entry(message.payloads[-1][1], self.last_payload)
        if message.payloads is None or message.before != self.head or message.mark not in (None, self.mark):
            return False
        self.extend(message.payloads)
        return True

    @property
    def mark(self) -> str | None:
        """The mark of the entry at the head, if that is known; computed when it is asked for."""
        if self.last_payload is None:
            return None
        if self._mark is None or self._mark[0] is not self.last_payload:
            self._mark = self.last_payload, mark_of(self.last_payload)
        return self._mark[1]

    def has(self, place: Place, payload: bytes) -> bool:
        """Tell whether the entry at a place between base and head is this one."""
        if place == self.head:
            return is_same_entry(payload, self.last_payload)
        for entry in reversed(self._entries):
            if entry.place <= place:
                return entry.place == place and is_same_entry(entry.payload, payload)
        return place == self.base and is_same_entry(payload, self._base_payload)

    def extend(self, payloads: Sequence[tuple[Place, bytes]]) -> None:
        """Take entries that stand in the stream after the head."""
        entries = in_order(payloads, self.head.position, self.keys.job_id)
        self._entries.extend(entries)
        self.taken += len(entries)
        self._kept_bytes += sum(len(entry.payload) + ENTRY_BYTES for entry in entries)
        self.head, self.last_payload = payloads[-1]

    def show(self, now: float) -> None:
        """Hand out new entries, and wake the followers that wait for them."""
        self.shown, self._shown_payload, self.shown_at = self.head, self.last_payload, now
        if len(self._entries) > KEPT_ENTRIES:
            self._trim()
        self.wake()

    def wake(self) -> None:
        """Wake all followers that wait."""
        for waiting in self._waiting:
            _settle(waiting, True)
        self._waiting.clear()

    def page_behind(self, place: Place) -> Page | None:
        """Return what may be handed out after a place that isn't before the base; None if there is nothing."""
        if place >= self.shown:
            return None
        if self._page is None or self._page[0] != place or self._page[1].until < self.shown:
            self._page = place, page_of(list(self._between(place, self.shown)), self.shown, self._shown_payload)
        return self._page[1]

    async def wait(self, seconds: float | None) -> bool:
        """Wait until something may have changed; False if nothing did for that many seconds."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        self._waiting[waiting] = None
        timer = None if seconds is None else loop.call_later(seconds, _settle, waiting, False)
        try:
            return await waiting
        finally:
            self._waiting.pop(waiting, None)
            if timer is not None:
                timer.cancel()

    def _between(self, after: Place, until: Place) -> Iterator[Entry]:
        newest_first = []
        for entry in reversed(self._entries):
            if entry.place <= after:
                break
            if entry.place <= until:
                newest_first.append(entry)
        return reversed(newest_first)

    def _trim(self) -> None:
        """Drop entries that all followers have, and more if too much is kept."""
        live = (cursor.place for cursor in self.cursors if cursor.place >= self.base)
        slowest = min(live, default=self.shown)
        while self._entries and (self._entries[0].place <= slowest or self._kept_bytes > KEPT_BYTES):
            entry = self._entries.popleft()
            self.base, self._base_payload = entry.place, entry.payload
            self._kept_bytes -= len(entry.payload) + ENTRY_BYTES


def _settle(waiting: asyncio.Future[bool], has_news: bool) -> None:
    if not waiting.done():
        waiting.set_result(has_news)
