"""The composition root of an open repository: the server, checked, and the parts that work on it."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ci_eventstore.accounts.store import SessionStore
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.nodes import Nodes, unserved_slots
from ci_eventstore.errors import MissingRightsError
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.reader import EventReader
from ci_eventstore.facts.groups import Groups
from ci_eventstore.following.hub import Hub
from ci_eventstore.following.incarnation import StoreIncarnation
from ci_eventstore.jobs.listings import Listings
from ci_eventstore.jobs.store import JobStore
from ci_eventstore.keys import Keys
from ci_eventstore.lines.line_reader import LineReader
from ci_eventstore.projection.projections import Projections
from ci_eventstore.queues.completions import Completions
from ci_eventstore.queues.holders import Holders
from ci_eventstore.queues.lost_jobs import LostJobs
from ci_eventstore.requirements import (
    answering,
    check_rights_to_read,
    check_rights_to_write,
    check_server,
    check_slots,
    may_lose_writes,
)
from ci_eventstore.settings import Settings
from ci_eventstore.store_format import check_format, find_partitions
from ci_eventstore.webhooks.store import WebhookStore
from ci_eventstore.writer.time_limit import TimeLimit

logger = logging.getLogger("ci_eventstore")

#: How long the end of an event loop waits for commands on their way.
END_SECONDS = 2.0
EXPOSED = "%s has min-replicas-to-write 0: cut off from its replicas, it takes writes that a failover then loses"
#: How many partitions a new store has in a cluster, so that each of three nodes gets about a third of them.
CLUSTER_PARTITIONS = 64
UNSURE = "the store gave no answer to what was sent last: it may have taken effect or not"


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of one open repository."""

    keys: Keys
    nodes: Nodes
    sessions: SessionStore
    jobs: JobStore
    listings: Listings
    reader: EventReader
    lines: LineReader
    incarnation: StoreIncarnation
    hub: Hub
    projections: Projections
    completions: Completions
    lost_jobs: LostJobs
    facts: Groups
    holders: Holders
    webhooks: WebhookStore
    _closing: TimeLimit = field(default_factory=TimeLimit)

    @classmethod
    async def open(cls, deployment: Deployment, settings: Settings) -> "Engine":
        """Connect, check the server and the data's format; StoreError.

        Settings that don't say how many partitions there are get what the store has.
        """
        is_read_only = settings.access == "read"
        nodes = Nodes(deployment, settings.awaited_replicas, is_read_only=is_read_only)
        try:
            servers = await answering(nodes)
            check_slots(unserved_slots(nodes))
            for node in servers:
                info = await node.info()
                check_server(info, kind=deployment.kind, is_read_only=is_read_only)
                if nodes.replicas and may_lose_writes(info):
                    logger.warning(EXPOSED, node.link.deployment.name)
            if settings.partitions is None:
                default = CLUSTER_PARTITIONS if nodes.is_divided else 1
                # What the user may not do is named with all else that is missing.
                with suppress(MissingRightsError):
                    settings = replace(settings, partitions=await find_partitions(nodes, settings.keys) or default)
            keys = settings.keys
            await (check_rights_to_read if is_read_only else check_rights_to_write)(nodes, keys)
            known = await check_format(nodes, keys, is_read_only=is_read_only)
        except BaseException:
            await nodes.close()
            raise
        return cls._of(nodes, settings, known)

    def anew(self, deployment: Deployment, settings: Settings, *, goes_on: bool) -> "Engine":
        """Return the same parts for another event loop, with nothing connected yet.

        If it goes on, this one is used no more: its writes come after those of this one, whatever became of them.
        """
        is_read_only = settings.access == "read"
        nodes = Nodes(deployment, settings.awaited_replicas, is_read_only=is_read_only, before=self.nodes)
        return self._of(nodes, settings, self.incarnation.known, self.jobs if goes_on else None)

    @classmethod
    def _of(cls, nodes: Nodes, settings: Settings, known: str | None, before: JobStore | None = None) -> "Engine":
        keys = settings.keys
        incarnation = StoreIncarnation(nodes, keys)
        incarnation.known = known
        source = LogSource(nodes)
        reader = EventReader(nodes, source)
        jobs = JobStore(nodes, source, settings, incarnation.note_loss, before)
        lost_jobs = LostJobs(nodes, keys, jobs, source)
        is_read_only = settings.access == "read"
        facts = Groups(nodes, keys)
        return cls(
            keys=keys,
            nodes=nodes,
            sessions=SessionStore(nodes, keys),
            jobs=jobs,
            listings=Listings(nodes, keys, source),
            reader=reader,
            lines=LineReader(reader),
            incarnation=incarnation,
            # A reader leaves lost jobs to those that write.
            hub=Hub(nodes, reader, incarnation) if is_read_only else Hub(nodes, reader, incarnation, lost_jobs.watch),
            projections=Projections(nodes, keys, source),
            completions=Completions(nodes, jobs.flusher.is_busy, jobs.flusher.ledger),
            lost_jobs=lost_jobs,
            facts=facts,
            holders=Holders(nodes, keys, jobs, lost_jobs),
            webhooks=WebhookStore(nodes, keys, facts),
        )

    def hurry(self, seconds: float) -> None:
        """Let `close` wait at most that long for unsent writes."""
        self._closing.shorten(seconds)

    async def close(self) -> None:
        """Send waiting writes, then close the connections; closing again does nothing."""
        if not self.nodes.is_closed:
            try:
                async with self._closing.hold():
                    await self._drain()
            except TimeoutError:
                logger.warning(UNSURE)
            await self._disconnect()

    async def end(self) -> None:
        """Close because the event loop ends, after a short wait for commands on their way."""
        if not self.nodes.is_closed:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._drain()
            except TimeoutError:
                logger.warning(UNSURE)
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._disconnect()
            except TimeoutError:
                # The server reads nothing any more.
                self.nodes.abandon()

    async def _drain(self) -> None:
        await self.lost_jobs.close()
        await self.completions.drain()
        await self.jobs.flusher.drain()

    async def _disconnect(self) -> None:
        await self.hub.close()
        await self.nodes.close()

    def abandon(self) -> None:
        """Let go of connections and waiting calls: the event loop was closed, so nothing of it can be awaited."""
        self.hub.abandon()
        self.nodes.abandon()
