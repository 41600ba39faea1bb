"""The queues of a store: their names, and what each holds.

A name is noted when its queue gets jobs, and forgotten when the queue has neither jobs nor controllers.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ci_eventstore.connection.absence import ask_each, numbers_of
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes, as_count, as_texts
from ci_eventstore.errors import MissingRightsError, ReadOnlyAccessError
from ci_eventstore.keys import Keys, QueueKeys, queue_of, queues_key
from ci_eventstore.members import member_time
from ci_eventstore.queues.claimed import CANCELLER, GONE_MS

#: How many commands are sent together.
COMMANDS_TOGETHER = 10_000

Command = tuple[str | int | bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """What a queue held while it was read, which takes several moments."""

    name: str
    #: How many jobs wait.
    waiting: int
    #: When the oldest of them was created.
    oldest_created_at: datetime | None
    #: How many jobs are claimed.
    running: int
    #: How many jobs each controller holds, of those that have taken one and not signed off.
    controllers: Mapping[str, int]

    @property
    def is_used(self) -> bool:
        """Whether it has jobs or controllers."""
        return bool(self.waiting or self.running or self.controllers)


def idle_queue(name: str) -> QueueOverview:
    """Return the overview of a queue without jobs and controllers."""
    return QueueOverview(name=name, waiting=0, oldest_created_at=None, running=0, controllers={})


@dataclass(frozen=True, slots=True)
class Overviews:
    """What queues hold in the partitions that are there."""

    queues: list[QueueOverview]
    #: The numbers of the partitions that are away: what queues hold there isn't counted.
    unavailable: tuple[int, ...] = ()


async def read_overviews(
    nodes: Nodes, keys: Keys, names: Iterable[str] | None = None, *, within_seconds: float | None = None
) -> Overviews:
    """Return what queues hold, beside those of some names all whose names are noted: a few round trips.

    Partitions that give no answer soon, or `within_seconds`, are left out; StoreUnavailableError if none answers.
    """

    async def names_in(tag: str) -> list[str]:
        return as_texts(await nodes.read_together("SMEMBERS", queues_key(tag)))

    noted = await ask_each(nodes, keys.tags, names_in, within_seconds=within_seconds)
    all_names = sorted({*(name for its in noted.given.values() for name in its), *(names or ())})

    async def parts_in(tag: str) -> list[_Part]:
        return await _parts_of(nodes, [QueueKeys(name, tag) for name in all_names])

    found = await ask_each(nodes, list(noted.given), parts_in, within_seconds=within_seconds)
    parts = list(zip(*found.given.values(), strict=True)) if all_names else []
    queues = [_joined(name, its) for name, its in zip(all_names, parts, strict=True)]
    return Overviews(queues, numbers_of([*noted.away, *found.away]))


async def _parts_of(nodes: Nodes, queues: Sequence[QueueKeys]) -> "list[_Part]":
    """Return what queues hold, each in its partition: three round trips for any number of queues."""
    counts = await _read_each(
        nodes,
        [
            [("ZCARD", queue.leases), ("ZCARD", queue.backlog), ("HKEYS", queue.tickets), ("TYPE", queue.dispatch)]
            for queue in queues
        ],
    )
    details = await _read_each(
        nodes, [_details_of(queue, *count[2:]) for queue, count in zip(queues, counts, strict=True)]
    )
    consumers = await _consumers(nodes, queues, details)
    return [
        _Part(as_count(leased), as_count(waiting), _times(detail), consumers.get(queue, {}))
        for queue, (leased, waiting, _, _), (_, *detail) in zip(queues, counts, details, strict=True)
    ]


class _Part(NamedTuple):
    """What one partition has of a queue."""

    leased: int
    waiting: int
    times: Sequence[datetime]
    controllers: Mapping[str, int]


def _joined(name: str, parts: Sequence[_Part]) -> QueueOverview:
    controllers = Counter[str]()
    for part in parts:
        for controller, held in part.controllers.items():
            controllers[controller] += held
    return QueueOverview(
        name=name,
        waiting=sum(part.waiting for part in parts),
        oldest_created_at=min((time for part in parts for time in part.times), default=None),
        running=sum(part.leased for part in parts),
        controllers=dict(sorted(controllers.items())),
    )


async def _read_each(nodes: Nodes, groups: Sequence[Sequence[Command]]) -> list[list[Reply]]:
    """Send all groups of commands together, and return the replies to each."""
    commands = [command for group in groups for command in group]
    replies: list[Reply] = []
    for start in range(0, len(commands), COMMANDS_TOGETHER):
        replies += await nodes.read_many(commands[start : start + COMMANDS_TOGETHER])
    rest = iter(replies)
    return [[next(rest) for _ in group] for group in groups]


def _details_of(queue: QueueKeys, tickets: Reply, kind: Reply) -> list[Command]:
    """Return the commands that ask for the consumer groups, and for the oldest waiting job of each user."""
    # Where there is no stream, the answer is a number and no list.
    groups: Command = ("XINFO", "GROUPS", queue.dispatch) if kind == b"stream" else ("ZCARD", queue.backlog)
    # A backlog is sorted by user first.
    users = map(as_bytes, as_texts(tickets))
    return [
        groups,
        *(("ZRANGEBYLEX", queue.backlog, b"[" + user + b"\0", b"(" + user + b"\1", "LIMIT", 0, 1) for user in users),
    ]


def _times(members: Sequence[Reply]) -> list[datetime]:
    """Return when the jobs in a backlog's members were created."""
    times = []
    for text in (text for reply in members for text in as_texts(reply)):
        # `verify` reports a member that no job has.
        with suppress(ValueError, OverflowError):
            times.append(member_time(text.partition("\0")[2]))
    return times


async def _consumers(
    nodes: Nodes, queues: Sequence[QueueKeys], details: Sequence[Sequence[Reply]]
) -> dict[QueueKeys, dict[str, int]]:
    """Return the controllers of each queue's consumer group, and how many tickets each has; not those long gone."""
    known = [
        queue
        for queue, (groups, *_) in zip(queues, details, strict=True)
        if isinstance(groups, list) and any(b"controllers" in group for group in groups)
    ]
    replies = await _read_each(nodes, [[("XINFO", "CONSUMERS", queue.dispatch, "controllers")] for queue in known])
    return {queue: _held(consumers) for queue, [consumers] in zip(known, replies, strict=True)}


def _held(consumers: Reply) -> dict[str, int]:
    found = {}
    for consumer in [] if consumers is WRONG_TYPE else consumers:
        fields = dict(zip(as_texts(consumer[::2]), consumer[1::2], strict=True))
        if fields["pending"] or fields["idle"] <= GONE_MS:
            found[as_texts([fields["name"]])[0]] = int(fields["pending"])
    found.pop(CANCELLER, None)
    return found


#: How long to look at a queue after its name was forgotten: a process that noted the name shortly before may put jobs
#: into it without noting it again.
WATCH_SECONDS = 300.0


async def queue_names(nodes: Nodes, tags: Sequence[str]) -> list[str]:
    """Return the names of all queues of some partitions that are used, and of some that were; StoreUnavailableError."""
    found = await asyncio.gather(*(nodes.read_together("SMEMBERS", queues_key(tag)) for tag in tags))
    return sorted({name for reply in found for name in as_texts(reply)})


async def add_queue_names(nodes: Nodes, keys: Keys, found: Sequence[str]) -> None:
    """Add the names of the queues whose tickets are among some keys."""
    queues = {queue for key in found if (queue := queue_of(keys, "dispatch", key)) is not None}
    for queue in sorted(queues):
        await nodes.read("SADD", queues_key(queue.tag), queue.name)


class UsedQueues:
    """Reads all queues that have jobs or controllers, and forgets the names of the others."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self.nodes = nodes
        self._keys = keys
        #: Until when a forgotten queue is looked at, by the monotonic clock.
        self._watched: dict[str, float] = {}

    async def read(self, within_seconds: float | None = None) -> Overviews:
        """Return what each queue holds that has jobs or controllers; see `read_overviews`."""
        now = time.monotonic()
        self._watched = {name: until for name, until in self._watched.items() if until > now}
        found = await read_overviews(self.nodes, self._keys, self._watched, within_seconds=within_seconds)
        used = [queue for queue in found.queues if queue.is_used]
        if not found.unavailable:
            # Else what some partitions hold isn't known.
            await self._note([queue.name for queue in used if self._watched.pop(queue.name, -math.inf) > now])
            idle = (queue.name for queue in found.queues if not queue.is_used)
            await self._forget([name for name in idle if name not in self._watched])
        return Overviews(used, found.unavailable)

    async def _note(self, names: list[str]) -> None:
        if names:
            await self._in_all("SADD", names)

    async def _forget(self, names: list[str]) -> None:
        if names:
            # Noted first: a cancelled command may have been carried out.
            self._watched.update(dict.fromkeys(names, time.monotonic() + WATCH_SECONDS))
            # A reader without that right reads them again each time.
            with suppress(MissingRightsError, ReadOnlyAccessError):
                await self._in_all("SREM", names)

    async def _in_all(self, command: str, names: list[str]) -> None:
        await asyncio.gather(*(self.nodes.read_together(command, queues_key(tag), *names) for tag in self._keys.tags))
