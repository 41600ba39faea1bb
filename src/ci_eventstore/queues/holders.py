"""Jobs that end with the process that made them, as those of `ci-eventstore run` do.

Such a process holds its job as a controller does, by a claim and a lease, but no controller takes it over: the next
process that looks and finds that the lease has run out ends the job as failed. The leases are those of a queue
without a name, so that no controller comes across them.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from ci_common.errors import JobAlreadyExistsError, RepositoryError
from ci_common.models import Job, utc_now
from ci_common.validation import check_job
from ci_eventstore.connection.absence import ask_each, go_through
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.jobs.store import JobStore
from ci_eventstore.keys import NO_QUEUE, Keys, QueueKeys, queue_everywhere
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.queues.lost_jobs import LostJobs
from ci_eventstore.queues.outlook import Slices
from ci_eventstore.queues.watch import COUNTED_POLLS, Watch

logger = logging.getLogger("ci_eventstore.queues")


class HoldCall(NamedTuple):
    """What `hold.lua` is called with."""

    clock: Key
    leases: Key
    job_id: str
    lease_ms: int


HOLD = load_script(__package__, "hold", call=HoldCall)


async def hold(nodes: Nodes, keys: QueueKeys, job_id: str, lease_seconds: float) -> None:
    """Begin a lease in a queue without a name, unless there is one already. StoreError."""
    await nodes.run(HOLD, *HOLD.order(HoldCall(keys.clock, keys.leases, job_id, int(lease_seconds * 1000))))


class LookCall(NamedTuple):
    """What `look.lua` is called with."""

    clock: Key
    leases: Key


LOOK = load_script(__package__, "look", call=LookCall, constants={"LOOKED_JOBS": 100, "DEFAULT_LEASE_MS": 30_000})


async def look(nodes: Nodes, keys: QueueKeys) -> tuple[float, list[str]]:
    """Move a partition's clock; return the shortest lease in use, in seconds, and jobs whose lease has run out.

    StoreError.
    """
    lease_ms, found = await nodes.run(LOOK, *LOOK.order(LookCall(keys.clock, keys.leases)))
    return lease_ms / 1000, as_texts(found)


#: The part of the shortest lease after which to look again, and how often to look while no job is held.
LOOK_PART = 0.25
IDLE_SECONDS = 5.0


class Holders:
    """Creates held jobs, and ends those whose holders are gone."""

    def __init__(self, nodes: Nodes, keys: Keys, jobs: JobStore, lost_jobs: LostJobs) -> None:
        self._nodes = nodes
        self._keys = keys
        self._jobs = jobs
        self._lost_jobs = lost_jobs

    async def create(self, job: Job, holder: str, lease_seconds: float) -> Claim:
        """Store a new job that runs and is its holder's from the first moment.

        The lease comes first: if the holder dies before the job is there, the lease runs out and is removed.
        JobAlreadyExistsError, InvalidJobError, StoreError.
        """
        check_job(job)
        if await self._jobs.state(job.id) is not None:
            raise JobAlreadyExistsError(job.id)
        await hold(self._nodes, self._keys.job(job.id).queue(NO_QUEUE), job.id, lease_seconds)
        claim = Claim(job.id, 1, secrets.token_hex(8))
        fields = {"epoch": 1, "attempts": 1, "controller": holder, "claim": str(claim), "ticket": ""}
        await self._jobs.create(job, Fact(FactType.CLAIMED, utc_now(), fields))
        return claim

    async def end_lost(self) -> float | None:
        """End jobs whose holders are gone; return the shortest lease in use in seconds, None if no job is held.

        Each look moves the clock of leases by at most half of that, so look often. Partitions that are away are left
        out, unless all are. StoreError.
        """
        partitions = queue_everywhere(self._keys, NO_QUEUE)
        if len(partitions) > 1:

            async def count(tag: str) -> int:
                [held] = await self._nodes.read_many([("ZCARD", QueueKeys(NO_QUEUE, tag).leases)])
                return int(bool(held))

            held = (await ask_each(self._nodes, self._keys.tags, count)).given
            partitions = [partition for partition in partitions if held.get(partition.tag)]
        return min((await self._end_lost_in(partitions)).values(), default=None)

    async def _end_lost_in(self, partitions: Iterable[QueueKeys]) -> dict[QueueKeys, float]:
        """Do so in some partitions; return the shortest lease in use in each of those that have one. StoreError."""
        leases: dict[QueueKeys, float] = {}

        async def end_in(tag: str) -> None:
            partition = QueueKeys(NO_QUEUE, tag)
            lease_seconds, found = await look(self._nodes, partition)
            if lease_seconds:
                leases[partition] = lease_seconds
            for job_id in found:
                await self._end(job_id)

        await go_through(self._nodes, [partition.tag for partition in partitions], end_in)
        return leases

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None, None]:
        """Look every few seconds while the body runs, so that no job outlives its holder for long."""
        looking = asyncio.create_task(self._look_again_and_again())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def look_once(self) -> None:
        """Do what `end_lost` does if that is possible."""
        with self._quietly(NO_QUEUE):
            await self.end_lost()

    async def _look_again_and_again(self) -> None:
        """Look at all partitions; later at slices of them, as those of a queue's controllers: others look, too."""
        partitions, leases = queue_everywhere(self._keys, NO_QUEUE), dict[QueueKeys, float]()
        slices = Slices(random.sample(partitions, len(partitions)), IDLE_SECONDS, IDLE_SECONDS)
        all_slices, session = {NO_QUEUE: slices}, secrets.token_hex(8)
        watch = Watch(self._nodes, self._keys, session, COUNTED_POLLS * IDLE_SECONDS, all_slices, self._quietly)
        due = partitions
        while True:
            try:
                with self._quietly(NO_QUEUE):
                    for partition in due:
                        leases.pop(partition, None)
                    there = due if len(partitions) == 1 else await watch.promising(due)
                    leases |= await self._end_lost_in(there)
                    await watch.count(1.0)
            except Exception as error:  # noqa: BLE001 - it is logged; nobody else looks
                self._nodes.outages.fault(logger, "looking for jobs of lost holders", error)
            slices.seen_seconds = min([lease * LOOK_PART for lease in leases.values()] + [IDLE_SECONDS])
            due = slices.take(asyncio.get_running_loop().time())
            await asyncio.sleep(slices.seen_seconds)

    @contextmanager
    def _quietly(self, queue: str) -> Iterator[None]:
        """Leave out what can't be looked at: readers may lack the rights to."""
        try:
            yield
        except (RepositoryError, TimeoutError) as error:
            logger.debug("jobs of lost holders can't be ended: %s", error)

    async def _end(self, job_id: str) -> None:
        """End a job whose lease has run out, or remove a lease that has no such job."""
        keys = self._keys.job(job_id)
        try:
            state = await self._jobs.state(job_id)
            if state is None or state.claim is None or not state.ends_if_lost:
                await self._nodes.read("ZREM", keys.queue(NO_QUEUE).leases, job_id)
                return
            await self._lost_jobs.look(job_id)
        except RepositoryError as error:
            message = "a job whose holder is lost can't be ended: %s"
            self._nodes.outages.of(logger, message).failed(error, {"job_id": job_id})
