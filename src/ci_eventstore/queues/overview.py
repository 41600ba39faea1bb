"""The queues of a store: their names, and what each holds.

A name is noted when its queue gets jobs, and forgotten when the queue has neither jobs nor controllers.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes, as_count, as_texts
from ci_eventstore.errors import MissingRightsError, ReadOnlyAccessError
from ci_eventstore.keys import Keys, QueueKeys, member_time, queue_of, queues_key
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


async def read_overviews(nodes: Nodes, keys: Keys, names: Sequence[str]) -> list[QueueOverview]:
    """Return what queues hold, in all partitions: three round trips for any number of queues."""
    queues = [QueueKeys(name, tag) for name in names for tag in keys.tags]
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
    parts = [
        _Part(as_count(leased), as_count(waiting), _times(detail), consumers.get(queue, {}))
        for queue, (leased, waiting, _, _), (_, *detail) in zip(queues, counts, details, strict=True)
    ]
    size = len(keys.tags)
    return [_joined(name, parts[place * size : (place + 1) * size]) for place, name in enumerate(names)]


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


async def queue_names(nodes: Nodes, keys: Keys) -> list[str]:
    """Return the names of all queues that are used, and of some that were."""
    return sorted(as_texts(await nodes.read("SMEMBERS", queues_key(keys))))


async def add_queue_names(nodes: Nodes, keys: Keys, found: Sequence[str]) -> None:
    """Add the names of the queues whose tickets are among some keys."""
    names = {queue.name for key in found if (queue := queue_of(keys, "dispatch", key)) is not None}
    if names:
        await nodes.read("SADD", queues_key(keys), *names)


class UsedQueues:
    """Reads all queues that have jobs or controllers, and forgets the names of the others."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self.nodes = nodes
        self._keys = keys
        #: Until when a forgotten queue is looked at, by the monotonic clock.
        self._watched: dict[str, float] = {}

    async def read(self) -> list[QueueOverview]:
        """Return what each queue holds that has jobs or controllers."""
        now, names = time.monotonic(), await queue_names(self.nodes, self._keys)
        self._watched = {name: until for name, until in self._watched.items() if until > now}
        found = await read_overviews(self.nodes, self._keys, sorted({*names, *self._watched}))
        used = [queue for queue in found if queue.is_used]
        await self._note([queue.name for queue in used if self._watched.pop(queue.name, -math.inf) > now])
        await self._forget([queue.name for queue in found if not queue.is_used and queue.name in names])
        return used

    async def _note(self, names: list[str]) -> None:
        if names:
            await self.nodes.read("SADD", queues_key(self._keys), *names)

    async def _forget(self, names: list[str]) -> None:
        if names:
            # Noted first: a cancelled command may have been carried out.
            self._watched.update(dict.fromkeys(names, time.monotonic() + WATCH_SECONDS))
            # A reader without that right reads them again each time.
            with suppress(MissingRightsError, ReadOnlyAccessError):
                await self.nodes.read("SREM", queues_key(self._keys), *names)
