"""A store on two servers, as on a cluster of which one master may be away: each partition lives on one of them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ci_eventstore import engine
from ci_eventstore.connection import node, way
from ci_eventstore.connection.absence import ask_each
from ci_eventstore.connection.deployments import Deployment, from_url
from ci_eventstore.connection.failures import partition_of
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.keys import Keys
from ci_eventstore.queues import lease_keeper
from ci_eventstore.repository import RedisJobRepository
from tests.servers import RealServer

#: The store's partitions; the odd ones live on the second server.
PARTITIONS = 4
ODD = (1, 3)


def is_odd(tag: str) -> bool:
    """Return whether a tag is that of an odd partition: they live on the second server."""
    return partition_of((tag,)) in ODD


def is_of_accounts(tag: str) -> bool:
    """Return whether a tag is that of the accounts."""
    return partition_of((tag,)) == "accounts"


def job_ids(partition: int, count: int, prefix: str = "job") -> list[str]:
    """Return ids of jobs of one partition."""
    keys, found = Keys("ci", PARTITIONS), list[str]()
    numbers = iter(range(10_000))
    while len(found) < count:
        job_id = f"{prefix}-{next(numbers)}"
        if keys.job(job_id).tag == keys.tag(partition):
            found.append(job_id)
    return found


class _Subscriptions:
    """Listens at both servers, to each partition's channels at its own."""

    def __init__(self, at: Callable[[str], Subscription], all_of_them: tuple[Subscription, Subscription]) -> None:
        self._at = at
        self._all = all_of_them

    def listen(self, *channels: str) -> None:
        for channel in channels:
            self._at(channel).listen(channel)

    def ignore(self, *channels: str) -> None:
        for channel in channels:
            self._at(channel).ignore(channel)

    async def close(self) -> None:
        for subscription in self._all:
            await subscription.close()


@contextmanager
def divided(monkeypatch: pytest.MonkeyPatch, url: str, is_on_second: Callable[[str], bool] = is_odd) -> Iterator[None]:
    """Have the tags that `is_on_second` names live at another URL than the others, in every store that is opened."""

    class Divided(Nodes):
        def __init__(
            self, deployment: Deployment, replicas: int = 0, *, is_read_only: bool = False, before: Nodes | None = None
        ) -> None:
            super().__init__(deployment, replicas, is_read_only=is_read_only, before=before)
            first = self.all[0]
            second = Node(from_url(url), self.counters, replicas, is_read_only=is_read_only)
            self.all.append(second)
            self._node_of_tag = lambda tag: second if is_on_second(tag) else first
            self.is_divided = True
            for one in self.all:
                one.link.names_partitions = True

        def subscription(self, on_message, on_listening) -> Subscription:  # type: ignore[no-untyped-def]
            both = [node.link.subscription(on_message, on_listening) for node in self.all]
            first, second = both
            return _Subscriptions(lambda name: second if is_on_second(name) else first, (first, second))  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        patch.setattr(engine, "Nodes", Divided)
        patch.setattr(lease_keeper, "Nodes", Divided)
        yield


def be_hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a server that is away little time, and ask it again at once; one that is slow to answer has all its time."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(way, "HURRIED_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(way, "HURRIED_REPLY_SECONDS", 60.0)
    monkeypatch.setattr(way, "AWAY_SECONDS", 0.0)


async def come_back(repository: RedisJobRepository, server: RealServer) -> None:
    """Start a server that was killed, and wait until all partitions answer."""
    server.start()
    nodes, keys = repository.engine.nodes, repository.engine.keys
    tags = [*keys.tags, keys.store.partition("}")[0] + "}"]
    async with asyncio.timeout(60):
        while (await ask_each(nodes, tags, lambda tag: nodes.read("EXISTS", f"{tag}:x"))).away:  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.01)


def opened(url: str) -> RedisJobRepository:
    """Return a repository of this many partitions, not open yet."""
    return RedisJobRepository.from_url(url, partitions=PARTITIONS)
