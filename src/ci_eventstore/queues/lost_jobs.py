"""End jobs whose controllers are gone and that no other controller is to run.

These are jobs that somebody has cancelled, and those that end with their process, as those of `ci-eventstore run` do.
"""

import asyncio
import logging
from contextlib import nullcontext

from ci_common.errors import RepositoryError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text_map
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.caller import Caller
from ci_eventstore.events.codec import decode
from ci_eventstore.events.log_source import LogSource, at_places
from ci_eventstore.events.records import Fact
from ci_eventstore.jobs.decide import Cancel, Command, Fail
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.store import JobStore
from ci_eventstore.keys import Keys
from ci_eventstore.queues.claim import claim
from ci_eventstore.queues.claimed import CANCELLER, Claimed

logger = logging.getLogger("ci_eventstore.jobs")

#: How long a job is claimed that is only to be ended.
LEASE_MS = 30_000
#: The part of the shortest lease in use after which a job is looked at again, and the limits of that.
LOOK_PART = 0.25
SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 7.5
#: How many entries are read to find out how a log ends.
LAST_ENTRIES = 16


class LostJobs:
    """Looks after jobs whose end depends on a controller, until they have ended.

    A process that cancels a job, or follows one that is to be cancelled, watches it: each look moves the partition's
    clock, so that leases run out, and ends the job when its own lease has.
    """

    def __init__(self, nodes: Nodes, keys: Keys, jobs: JobStore, source: LogSource) -> None:
        self._nodes = nodes
        self._keys = keys
        self._jobs = jobs
        self._source = source
        self._watched: dict[str, None] = {}
        self._watching: asyncio.Task[None] | None = None

    def watch(self, job_id: str) -> None:
        """Look after a job in the background until it has ended."""
        self._watched[job_id] = None
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop looking after jobs."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def look(self, job_id: str) -> bool:
        """End a job if it is lost; tell whether there is nothing left to look after. RepositoryError."""
        state = await self._jobs.state(job_id)
        if state is None or not is_to_be_ended(state):
            return True
        queue, call = self._keys.job(job_id).queue(state.lease_queue), Caller().next_call().name
        found = await claim(self._nodes, queue, CANCELLER, LEASE_MS, call=call, expired=[job_id])
        if not found:
            return False
        [claimed] = found
        command = await self._last_word(job_id, claimed)
        await self._jobs.execute(job_id, command, str(claimed.claim), claimed.state)
        return True

    async def _last_word(self, job_id: str, claimed: Claimed) -> Command:
        if claimed.state.cancel_line is not None:
            return Cancel(claimed.state.cancel_line, is_final=True)
        start = "" if await self._ends_a_line(job_id) else "\n"
        # A process that died while ending the job is not the one that had it.
        who = "" if claimed.lost_by in (None, CANCELLER) else f" ({claimed.lost_by})"
        return Fail(f"{start}[ci-eventstore run was lost{who}: what its command printed last may be missing]\n")

    async def _ends_a_line(self, job_id: str) -> bool:
        """Return whether the next text begins a line of the log, as far as that can be seen."""
        for place, payload in at_places(await self._source.last(self._keys.job(job_id), LAST_ENTRIES)):
            try:
                record = decode(payload, place.position)
            except StoreFormatError:
                return False
            if not isinstance(record, Fact):
                return bool((record.data or "\n").endswith("\n"))
        return True

    async def sign_of_life(self, job_id: str) -> float | None:
        """Return when the job's lease ends on its partition's clock, which each renewal changes; None: no lease."""
        state = await self._jobs.state(job_id)
        if state is None or state.claim is None:
            return None
        reply = await self._nodes.read("ZSCORE", self._keys.job(job_id).queue(state.lease_queue).leases, job_id)
        return None if reply is None else float(reply)

    async def silence(self, job_id: str) -> tuple[str, float] | None:
        """Return who has the job, and how many seconds ago its lease seems to have run out; None if it hasn't.

        Only a read, for those who may do no more. The clock of leases stands still while nobody looks, so this
        goes by the server's own, and the server may have been away itself. RepositoryError.
        """
        state = await self._jobs.state(job_id)
        if state is None or state.claim is None:
            return None
        queue = self._keys.job(job_id).queue(state.lease_queue)
        deadline, clock, time = await self._nodes.read_many(
            [("ZSCORE", queue.leases, job_id), ("HMGET", queue.clock, "now", "seen"), ("TIME",)]
        )
        if deadline is None or None in clock:
            return None
        passed = int(time[0]) * 1000 + int(time[1]) // 1000 - float(clock[1])
        overdue = (float(clock[0]) + passed - float(deadline)) / 1000
        return (state.controller or "its controller", overdue) if overdue > 0 else None

    async def settle(self, job_id: str, sign: float | None) -> bool:
        """Wait until a cancelled job has ended; False: its controller has renewed its lease instead.

        `sign` is its sign of life from before the request. Takes at most as long as the lease. RepositoryError.
        """
        pause = SHORTEST_SECONDS / 2
        while not await self.look(job_id):
            if await self.sign_of_life(job_id) != sign:
                return await self.look(job_id)
            await asyncio.sleep(pause)
            pause = min(2 * pause, await self._pause(job_id))
        return True

    async def _watch(self) -> None:
        while self._watched:
            pause = LONGEST_SECONDS
            for job_id in list(self._watched):
                try:
                    # A job of a partition that is away keeps no other one waiting for long.
                    with in_a_hurry() if self._nodes.is_divided else nullcontext():
                        if await self.look(job_id):
                            del self._watched[job_id]
                        else:
                            pause = min(pause, await self._pause(job_id))
                except RepositoryError as error:
                    logger.debug("a job can't be looked after: %s", error, extra={"job_id": job_id})
                except Exception:
                    logger.exception("a job can't be looked after", extra={"job_id": job_id})
                    del self._watched[job_id]
            await asyncio.sleep(pause)

    async def _pause(self, job_id: str) -> float:
        """Return how soon to look again: each look moves the clock by at most half of the shortest lease."""
        state = await self._jobs.state(job_id)
        if state is None:
            return SHORTEST_SECONDS
        clock = as_text_map(await self._nodes.read("HGETALL", self._keys.job(job_id).queue(state.lease_queue).clock))
        lengths = [int(name.removeprefix("lease:")) / 1000 for name in clock if name.startswith("lease:")]
        return min(max(LOOK_PART * min(lengths, default=0.0), SHORTEST_SECONDS), LONGEST_SECONDS)


def is_to_be_ended(state: JobState) -> bool:
    """Return whether a claimed job is to end once its controller is gone, instead of running again."""
    return state.claim is not None and (state.cancel_line is not None or bool(state.ends_if_lost))
