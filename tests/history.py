"""What writers did to a job, and whether the job's events agree with it.

A `History` is written down while the writers work; `check` compares it with the events that are read afterwards.
Another suite gives `check` rules of its own beside these.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from ci_common.models import EventType, JobEvent
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError


class Outcome(Enum):
    """How a call ended, as its writer saw it."""

    #: It hasn't ended, or its caller went away: its lines may be there, or come later.
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    #: It raised OutcomeUnknownError.
    UNKNOWN = "of unknown outcome"
    #: The same, and a read after the error showed its lines.
    FOUND = "found after an unknown outcome"
    #: The same, and a read after the error didn't show them.
    ABSENT = "absent after an unknown outcome"


_STORED = frozenset({Outcome.ACKNOWLEDGED, Outcome.FOUND})
_NOT_STORED = frozenset({Outcome.REFUSED, Outcome.ABSENT})


@dataclass(eq=False, slots=True)
class Call:
    """One write: its lines, without their line ends, and how it ended."""

    writer: str
    lines: tuple[str, ...]
    #: Whether its lines are events of their own that go in together or not at all.
    is_one_step: bool = True
    outcome: Outcome = Outcome.OPEN

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Note how the body that makes the call ends; what only says that isn't raised again."""
        try:
            yield
        except OutcomeUnknownError:
            self.outcome = Outcome.UNKNOWN
        except StoreUnavailableError:
            self.outcome = Outcome.REFUSED
        else:
            self.outcome = Outcome.ACKNOWLEDGED

    def settle(self, lines_read: Container[str]) -> None:
        """Note what a read showed that began after this call's outcome had been told to be unknown."""
        if self.outcome is Outcome.UNKNOWN:
            is_there = any(line in lines_read for line in self.lines)
            self.outcome = Outcome.FOUND if is_there else Outcome.ABSENT


@dataclass(eq=False, slots=True)
class History:
    """The calls on one job, each writer's in the order in which it made them. No line is written twice."""

    calls: list[Call] = field(default_factory=list)
    _lines: set[str] = field(default_factory=set)

    def begin(self, writer: str, lines: Sequence[str], *, is_one_step: bool = True) -> Call:
        """Note that a call begins."""
        if len({*lines} - self._lines) < len(lines):
            raise ValueError(f"{writer} writes a line that was written before: {lines}")
        self._lines.update(lines)
        self.calls.append(Call(writer, tuple(lines), is_one_step))
        return self.calls[-1]

    def of_writers(self) -> Mapping[str, list[Call]]:
        """Return each writer's calls."""
        found = defaultdict[str, list[Call]](list)
        for call in self.calls:
            found[call.writer].append(call)
        return found


#: The place of a line: the id of its event, and its number in it.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Log:
    """A job's events as they were read, and where in them each line is."""

    events: Sequence[JobEvent]
    places: Mapping[str, Sequence[Place]]

    @classmethod
    def of(cls, events: Sequence[JobEvent]) -> "Log":
        """Find the lines of events."""
        places = defaultdict[str, list[Place]](list)
        for event in events:
            for number, line in enumerate(lines_of(event)):
                places[line].append((event.id or 0, number))
        return cls(events, dict(places))


#: Yields what contradicts the history, as sentences.
Rule = Callable[[History, Log], Iterator[str]]


def lines_of(event: JobEvent) -> list[str]:
    """Return an event's lines; a completion has none."""
    return (event.data or "").removesuffix("\n").split("\n") if event.type == EventType.LOG else []


def positions_are_dense(history: History, log: Log) -> Iterator[str]:
    """The events are numbered 1, 2, 3 … ."""
    ids = [0, *(event.id or 0 for event in log.events)]
    for before, after in itertools.pairwise(ids):
        if after != before + 1:
            yield f"event {after} follows event {before}"


def lines_have_a_writer(history: History, log: Log) -> Iterator[str]:
    """Nothing is there that nobody wrote."""
    written = {line for call in history.calls for line in call.lines}
    for line, places in log.places.items():
        if line not in written:
            yield f"event {places[0][0]}: nobody wrote {line!r}"


def lines_are_there_once(history: History, log: Log) -> Iterator[str]:
    """What was acknowledged is there, what was refused isn't, and nothing is there twice."""
    for call in history.calls:
        for line in call.lines:
            places = log.places.get(line, ())
            if len(places) > 1:
                yield f"{line!r} of {call.writer} is there {len(places)} times, in events {_ids(places)}"
            if call.outcome in _STORED and not places:
                yield f"{line!r} of {call.writer} is lost: its call was {call.outcome.value}"
            if call.outcome in _NOT_STORED and places:
                yield f"{line!r} of {call.writer} is in event {_ids(places)}: its call was {call.outcome.value}"


def writers_keep_their_order(history: History, log: Log) -> Iterator[str]:
    """Each writer's lines are in the order in which it sent them."""
    for writer, calls in history.of_writers().items():
        there = [(line, log.places[line][0]) for call in calls for line in call.lines if line in log.places]
        for (line, place), (next_line, next_place) in itertools.pairwise(there):
            if place > next_place:
                yield f"{writer} sent {line!r} before {next_line!r}: they are in events {place[0]} and {next_place[0]}"


def steps_are_whole(history: History, log: Log) -> Iterator[str]:
    """The lines of a call that is one step are all there, one after the other, or none of them is."""
    for call in history.calls:
        ids = [log.places[line][0][0] for line in call.lines if line in log.places]
        if not call.is_one_step or not ids:
            continue
        if len(ids) < len(call.lines):
            yield f"{len(ids)} of {len(call.lines)} lines of {call.writer} are there, from {call.lines[0]!r} on"
        if ids != list(range(ids[0], ids[0] + len(ids))):
            yield f"the lines of {call.writer} from {call.lines[0]!r} on are apart, in events {_list(ids)}"


def jobs_end_once(history: History, log: Log) -> Iterator[str]:
    """There is one completion at most."""
    ends = [event.id or 0 for event in log.events if event.type == EventType.COMPLETE]
    if len(ends) > 1:
        yield f"the job is completed {len(ends)} times, in events {_list(ends)}"


RULES: tuple[Rule, ...] = (
    positions_are_dense,
    lines_have_a_writer,
    lines_are_there_once,
    writers_keep_their_order,
    steps_are_whole,
    jobs_end_once,
)


def check(history: History, events: Sequence[JobEvent], rules: Sequence[Rule] = RULES) -> list[str]:
    """Return what contradicts the history in a job's events; nothing if they agree."""
    log = Log.of(events)
    return [finding for rule in rules for finding in rule(history, log)]


def _ids(places: Sequence[Place]) -> str:
    return _list([place[0] for place in places])


def _list(ids: Sequence[int]) -> str:
    return ", ".join(str(number) for number in ids)
