"""The outline of a log: its groups, errors and warnings, made lazily, a part at a time, and kept for a while."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.marks import Closing, Mark, Opening, Remark, marked_lines
from ci_eventstore.lines.passages import Passage, PassageReader
from ci_eventstore.tasks import finish

#: All kept outlines together have at most this many groups and remarks; each outline counts as at least LEAST_ENTRIES.
KEPT_ENTRIES = 100_000
LEAST_ENTRIES = 100
#: One outline has at most this many groups, and as many remarks; a group lies within at most MOST_DEPTH others.
MOST_ENTRIES = 5000
MOST_DEPTH = 32
#: A request reads on for this long, then answers with what is known.
MOST_SECONDS = 1.0


@dataclass(slots=True)
class Group:
    """Lines that belong together."""

    line: int
    title: str
    depth: int
    name: str
    is_section: bool
    began: datetime
    #: The position of the last event that was read when it changed.
    changed: int
    end: int | None = None
    ended: datetime | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """An error, a warning or a notice."""

    line: int
    remark: Remark
    position: int


@dataclass
class Outline:
    """What is known of a log, up to an event."""

    groups: list[Group] = field(default_factory=list)
    remarks: list[Marked] = field(default_factory=list)
    position: int = 0
    #: The line to go on with.
    line: int = 1
    #: Whether groups or remarks are left out, as there are too many of them.
    is_limited: bool = False
    _open: list[Group] = field(default_factory=list)
    #: Groups without names that lie too deep, and haven't ended.
    _too_deep: int = 0
    #: A section that begins unless the next line shows that the two are a diff's.
    _waiting: tuple[int, Opening, datetime] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read_on(self, reader: PassageReader, log: Log, note: Callable[[int], None]) -> None:
        """Go on up to the log's end, or for as long as a request may take; `note` gets how many characters are read."""
        async with self._lock:
            if self.position >= log.extent.position:
                return
            begun = time.monotonic()
            async with aclosing(reader.passages(log, self.line)) as passages:
                async for passage in passages:
                    note(len(passage.text))
                    if not passage.text.endswith("\n"):
                        # It may become a mark.
                        break
                    await finish(asyncio.to_thread(self.add, passage))
                    if time.monotonic() - begun > MOST_SECONDS:
                        return
            self.position = log.extent.position

    @property
    def weight(self) -> int:
        """How many groups and remarks it counts as."""
        return max(len(self.groups) + len(self.remarks), LEAST_ENTRIES)

    def add(self, passage: Passage) -> None:
        """Take the lines that follow. Pure, but for this outline."""
        for begin, lines, mark in marked_lines(passage.text):
            number, at = passage.first + lines, passage.time_at(begin)
            is_diff = self._begin_waiting(number, mark, passage.position)
            if isinstance(mark, Remark):
                self._remark(Marked(number, mark, passage.position))
            elif isinstance(mark, Closing):
                self._close(mark.name, number, at, passage.position)
            elif mark.sign == "---":
                self._waiting = number, mark, at
            elif not is_diff:
                self._begin(mark, number, at, passage.position)
        self.line, self.position = passage.first + passage.line_count, passage.position
        if self._waiting is not None and self._waiting[0] < self.line - 1:
            self._begin_waiting(self.line, None, passage.position)

    def _begin_waiting(self, number: int, mark: Mark | None, position: int) -> bool:
        """Begin the section that waits for the line after it; return whether the two are a diff's."""
        if self._waiting is None:
            return False
        (begun, opening, at), self._waiting = self._waiting, None
        if number == begun + 1 and isinstance(mark, Opening) and mark.sign == "+++":
            return True
        self._begin(opening, begun, at, position)
        return False

    def _remark(self, marked: Marked) -> None:
        if len(self.remarks) < MOST_ENTRIES:
            self.remarks.append(marked)
        else:
            self.is_limited = True

    def _begin(self, mark: Opening, number: int, at: datetime, position: int) -> None:
        if mark.is_section:
            self._close(mark.name, number - 1, at, position)
        if len(self._open) >= MOST_DEPTH:
            self.is_limited = True
            self._too_deep += not mark.name
            return
        group = Group(number, mark.title, len(self._open), mark.name, mark.is_section, at, position)
        self._open.append(group)
        if len(self.groups) < MOST_ENTRIES:
            self.groups.append(group)
        else:
            self.is_limited = True

    def _close(self, name: str, number: int, at: datetime, position: int) -> None:
        """End the last open group of a name, and those within it."""
        if not name and self._too_deep:
            self._too_deep -= 1
            return
        place = next((place for place in reversed(range(len(self._open))) if self._open[place].name == name), None)
        if place is None:
            return
        for group in self._open[place:]:
            group.end, group.ended, group.changed = number, at, position
        del self._open[place:]
        self._too_deep = 0


class Outlines:
    """The outlines of the logs that somebody has looked at lately."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Outline] = OrderedDict()

    def has_all(self, log: Log) -> bool:
        """Return whether nothing has to be read for a log's outline."""
        kept = self._kept.get((log.keys.hash, log.incarnation))
        return kept is not None and kept.position >= log.extent.position

    async def of(self, reader: PassageReader, log: Log, note: Callable[[int], None]) -> Outline:
        """Return a log's outline, as far as it could be read in a moment; `note` gets how many characters are read."""
        key = log.keys.hash, log.incarnation
        outline = self._kept.get(key) or Outline()
        self._kept[key] = outline
        self._kept.move_to_end(key)
        await outline.read_on(reader, log, note)
        weight = sum(kept.weight for kept in self._kept.values())
        while weight > KEPT_ENTRIES and len(self._kept) > 1:
            weight -= self._kept.popitem(last=False)[1].weight
        return outline
