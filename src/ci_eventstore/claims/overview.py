"""What all queues hold, for whoever looks after them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from ci_eventstore.claims.claim import CANCELLER
from ci_eventstore.keys import Keys, QueueKeys, member_time, queues_key
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import as_bytes, as_count, as_texts

#: So many users' oldest jobs are asked for together.
USERS_TOGETHER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """A queue, as it was while it was read: no one moment, since other clients go on."""

    name: str
    #: How many jobs wait.
    waiting: int
    #: When the oldest of them was created.
    oldest_created_at: datetime | None
    #: How many jobs are claimed.
    running: int
    #: How many jobs each controller holds, of those that have taken one and not signed off.
    controllers: Mapping[str, int]


async def queue_names(server: Server, keys: Keys) -> list[str]:
    """Return the names of all queues that ever had a job."""
    return sorted(as_texts(await server.read("SMEMBERS", queues_key(keys))))


async def rebuild_queue_names(server: Server, keys: Keys) -> None:
    """Add the names of all queues that there are. It walks all keys of the server."""
    beginnings = [QueueKeys("", tag).dispatch for tag in keys.tags]
    names: set[str] = set()
    async for key in server.scan(keys.pattern("dispatch")):
        names.update(key.removeprefix(beginning) for beginning in beginnings if key.startswith(beginning))
    if names:
        await server.read("SADD", queues_key(keys), *names)


async def read_overview(server: Server, keys: Keys, name: str) -> QueueOverview:
    """Return what one queue holds, in all partitions."""
    waiting = running = 0
    times: list[datetime] = []
    controllers: dict[str, int] = {}
    for queue in (QueueKeys(name, tag) for tag in keys.tags):
        in_backlog, leased, users, kind = await server.read_many(
            [("ZCARD", queue.backlog), ("ZCARD", queue.leases), ("HKEYS", queue.tickets), ("TYPE", queue.dispatch)]
        )
        waiting, running = waiting + as_count(in_backlog), running + as_count(leased)
        times += await _oldest_of(server, queue, as_texts(users))
        if kind == b"stream":
            for controller, held in (await _consumers(server, queue)).items():
                controllers[controller] = controllers.get(controller, 0) + held
    return QueueOverview(
        name=name,
        waiting=waiting,
        oldest_created_at=min(times, default=None),
        running=running,
        controllers=dict(sorted(controllers.items())),
    )


async def _oldest_of(server: Server, queue: QueueKeys, users: Sequence[str]) -> list[datetime]:
    """Return when the oldest waiting job of each user was created: a backlog is sorted by user first."""
    times = []
    for start in range(0, len(users), USERS_TOGETHER):
        group = users[start : start + USERS_TOGETHER]
        names = [as_bytes(user) for user in group]
        replies = await server.read_many(
            [("ZRANGEBYLEX", queue.backlog, b"[" + name + b"\0", b"(" + name + b"\1", "LIMIT", 0, 1) for name in names]
        )
        for text in (text for reply in replies for text in as_texts(reply)):
            # `verify` reports a member that no job has.
            with suppress(ValueError, OverflowError):
                times.append(member_time(text.partition("\0")[2]))
    return times


async def _consumers(server: Server, queue: QueueKeys) -> dict[str, int]:
    """Return the controllers of a queue's consumer group, and how many tickets each has."""
    groups = await server.read("XINFO", "GROUPS", queue.dispatch)
    if not any(b"controllers" in group for group in groups):
        return {}
    found = {}
    for consumer in await server.read("XINFO", "CONSUMERS", queue.dispatch, "controllers"):
        fields = dict(zip(as_texts(consumer[::2]), consumer[1::2], strict=True))
        found[as_texts([fields["name"]])[0]] = int(fields["pending"])
    found.pop(CANCELLER, None)
    return found
