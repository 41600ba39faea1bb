"""Seal jobs as they become due: each partition swept by one process at a time, past those jobs that can't be sealed.

Nothing depends on that one process: `seal.lua` looks for itself. A job that can't be sealed is counted, named and left
alone for a while, longer each time; the sweep goes on after it.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ci_common.errors import RepositoryError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_optional_texts, as_text, as_texts
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.events.caller import new_token
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.keys import JobKeys, Keys, sealer_key, unsealable_key

logger = logging.getLogger("ci_eventstore.history")

#: For how long a partition is one process's: it says so again before each page.
LEASE_MS = 60_000
PAGE_JOBS = 100
#: Jobs of a page that are sealed at the same time.
TOGETHER = 8
#: How soon a job is tried again that couldn't be sealed: twice as long each time, up to a day.
FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 86_400_000
#: How soon the next sweep begins.
SWEEP_SECONDS = 30.0


@dataclass(slots=True)
class Sweep:
    """What a sweep has done."""

    sealed: int = 0
    #: Those that couldn't be sealed, now or the last time that it was tried, and why.
    left: dict[str, str] = field(default_factory=dict)
    #: Partitions that another process was sweeping.
    busy: int = 0


class Sealer:
    """Sweeps the partitions of a store."""

    def __init__(self, nodes: Nodes, source: LogSource, keys: Keys) -> None:
        self._nodes = nodes
        self._source = source
        self._keys = keys
        self._token = new_token()

    async def run(self, after_seconds: float) -> None:
        """Sweep again and again; whatever goes wrong is logged."""
        outage = self._nodes.outages.of(logger, "sealing jobs: %s")
        while True:
            try:
                sweep = await self.sweep(after_seconds)
                outage.worked()
                if sweep.sealed:
                    logger.info("sealed %d jobs", sweep.sealed)
            except RepositoryError as error:
                outage.failed(error)
            except Exception as error:  # noqa: BLE001 - it is logged, and the next sweep begins anew
                self._nodes.outages.fault(logger, "sealing jobs", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self, after_seconds: float) -> Sweep:
        """Seal all jobs whose last write is at least that long ago, by the server's clock; StoreUnavailableError."""
        sweep = Sweep()
        for tag in self._keys.tags:
            if await self._is_mine(tag):
                await self._sweep_partition(tag, after_seconds, sweep)
                await self._nodes.read("DEL", sealer_key(tag))
            else:
                sweep.busy += 1
        return sweep

    async def _sweep_partition(self, tag: str, after_seconds: float, sweep: Sweep) -> None:
        unsealed, skipped = JobKeys("", tag).unsealed, 0
        while True:
            now = await self._now(tag)
            due = f"{now - 1000 * after_seconds:.0f}"
            # Those that were sealed are gone from the set; those that were left come first the next time.
            page = as_texts(await self._nodes.read("ZRANGEBYSCORE", unsealed, "-inf", due, "LIMIT", skipped, PAGE_JOBS))
            if not page or not await self._is_mine(tag):
                return
            failures = await self._failures(tag, page)
            for job_id, (_, until, why) in failures.items():
                # A longer pause than any is of a clock that was ahead.
                if now < until <= now + LONGEST_PAUSE_MS:
                    sweep.left[job_id] = why
            tried = [job_id for job_id in page if job_id not in sweep.left]
            for start in range(0, len(tried), TOGETHER):
                some = tried[start : start + TOGETHER]
                done = await asyncio.gather(*(self._try(tag, job_id, failures, sweep) for job_id in some))
                sweep.sealed += sum(done)
                skipped += done.count(False)
            skipped += len(page) - len(tried)

    async def _try(self, tag: str, job_id: str, failures: Mapping[str, tuple[int, int, str]], sweep: Sweep) -> bool:
        """Tell whether a job was sealed; what keeps it from that is its own trouble, unless it is the store's."""
        try:
            found = await seal(self._nodes, self._source, self._keys, job_id)
        except (StoreUnavailableError, OutcomeUnknownError):
            raise
        except Exception as error:  # noqa: BLE001 - one job must not stop the sweep; it is named, and tried again later
            await self._note_failure(tag, job_id, failures.get(job_id, (0, 0, ""))[0] + 1, error)
            sweep.left[job_id] = str(error)
            return False
        if found is Sealed.SEALED and job_id in failures:
            await self._nodes.read("HDEL", unsealable_key(tag), job_id)
        return found is Sealed.SEALED

    async def _note_failure(self, tag: str, job_id: str, count: int, error: Exception) -> None:
        is_known = isinstance(error, RepositoryError)
        logger.warning("a job can't be sealed: %s", error, extra={"job_id": job_id}, exc_info=not is_known)
        pause = min(FIRST_PAUSE_MS * 2 ** min(count - 1, 20), LONGEST_PAUSE_MS)
        note = f"{count} {await self._now(tag) + pause} {error}"
        await self._nodes.read("HSET", unsealable_key(tag), job_id, note.encode("utf-8", "replace"))

    async def _failures(self, tag: str, job_ids: Sequence[str]) -> dict[str, tuple[int, int, str]]:
        """Return how often some jobs couldn't be sealed, until when they are left alone, and why."""
        [reply] = await self._nodes.read_many([("HMGET", unsealable_key(tag), *job_ids)])
        found = {}
        for job_id, text in zip(job_ids, [] if reply is WRONG_TYPE else as_optional_texts(reply), strict=False):
            count, _, rest = (text or "").partition(" ")
            until, _, why = rest.partition(" ")
            if count.isdecimal() and until.isdecimal():
                found[job_id] = int(count), int(until), why
        return found

    async def _is_mine(self, tag: str) -> bool:
        """Tell whether the partition is this process's for a while, which begins anew."""
        key = sealer_key(tag)
        _, holder = await self._nodes.read_many([("SET", key, self._token, "NX", "PX", LEASE_MS), ("GET", key)])
        if holder is WRONG_TYPE or holder is None or as_text(holder) != self._token:
            return False
        await self._nodes.read("PEXPIRE", key, LEASE_MS)
        return True

    async def _now(self, tag: str) -> int:
        """Return the time of the server that has a partition, in milliseconds."""
        _, time = await self._nodes.node_of(tag).read_many([("EXISTS", sealer_key(tag)), ("TIME",)])
        return int(time[0]) * 1000 + int(time[1]) // 1000
