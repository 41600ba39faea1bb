"""The outline of a log: its groups, errors and warnings, made lazily, a part at a time, and kept for a while."""

import asyncio
import time
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from ci_eventstore.lines.line_reader import Log
from ci_eventstore.lines.marks import Closing, Opening, Remark, marked_lines
from ci_eventstore.lines.passages import Passage, PassageReader

#: Outlines of this many logs are kept, each with at most as many groups and remarks.
KEPT = 200
MOST_ENTRIES = 10_000
#: A request reads on for so long, then answers with what is known.
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
    _open: list[Group] = field(default_factory=list)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read_on(self, reader: PassageReader, log: Log) -> None:
        """Go on up to the log's end, or for as long as a request may take."""
        async with self._lock:
            if self.position >= log.extent.position:
                return
            begun = time.monotonic()
            async with aclosing(reader.passages(log, self.line)) as passages:
                async for passage in passages:
                    if not passage.text.endswith("\n"):
                        # It may become a mark.
                        break
                    await asyncio.to_thread(self.add, passage)
                    if time.monotonic() - begun > MOST_SECONDS:
                        return
            self.position = log.extent.position

    def add(self, passage: Passage) -> None:
        """Take the lines that follow. Pure, but for this outline."""
        for begin, lines, mark in marked_lines(passage.text):
            number, at = passage.first + lines, passage.time_at(begin)
            if isinstance(mark, Remark):
                if len(self.remarks) < MOST_ENTRIES:
                    self.remarks.append(Marked(number, mark, passage.position))
            elif isinstance(mark, Closing):
                self._close(mark.name, number, at, passage.position)
            elif len(self.groups) < MOST_ENTRIES:
                self._begin(mark, number, at, passage.position)
        self.line, self.position = passage.first + passage.line_count, passage.position

    def _begin(self, mark: Opening, number: int, at: datetime, position: int) -> None:
        if mark.is_section:
            self._close(mark.name, number - 1, at, position)
        group = Group(number, mark.title, len(self._open), mark.name, mark.is_section, at, position)
        self.groups.append(group)
        self._open.append(group)

    def _close(self, name: str, number: int, at: datetime, position: int) -> None:
        """End the last open group of a name, and those within it."""
        place = next((place for place in reversed(range(len(self._open))) if self._open[place].name == name), None)
        if place is None:
            return
        for group in self._open[place:]:
            group.end, group.ended, group.changed = number, at, position
        del self._open[place:]


class Outlines:
    """The outlines of the logs that somebody has looked at lately."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Outline] = OrderedDict()

    async def of(self, reader: PassageReader, log: Log) -> Outline:
        """Return a log's outline, as far as it could be read in a moment."""
        key = log.keys.hash, log.incarnation
        outline = self._kept.get(key) or Outline()
        self._kept[key] = outline
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        await outline.read_on(reader, log)
        return outline
