"""Seal jobs as they become due: each partition swept by one process at a time, past those jobs that can't be sealed.

Nothing depends on that one process: `seal.lua` looks for itself. A job that can't be sealed is counted, named and left
alone for a while, longer each time; the sweep goes on after it.
"""

import logging
from collections.abc import Mapping, Sequence

from ci_common.errors import RepositoryError
from ci_eventstore.connection.nodes import Nodes, time_ms
from ci_eventstore.connection.replies import WRONG_TYPE, as_optional_texts, as_texts
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.history.sweeping import Sweep, Turns, sweep_again_and_again
from ci_eventstore.keys import JobKeys, Keys, unsealable_key
from ci_eventstore.tasks import together

logger = logging.getLogger("ci_eventstore.history")

PAGE_JOBS = 100
#: Jobs of a page that are sealed at the same time.
TOGETHER = 8
#: How soon a job is tried again that couldn't be sealed: twice as long each time, up to a day.
FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 86_400_000


class Sealer:
    """Sweeps the partitions of a store."""

    def __init__(self, nodes: Nodes, source: LogSource, keys: Keys) -> None:
        self._nodes = nodes
        self._source = source
        self._keys = keys
        self._turns = Turns(nodes, keys, "sealer")

    async def run(self, after_seconds: float) -> None:
        """Sweep again and again; whatever goes wrong is logged."""
        await sweep_again_and_again(self._nodes, "sealing jobs", "sealed", lambda: self.sweep(after_seconds))

    async def sweep(self, after_seconds: float) -> Sweep:
        """Seal all jobs whose last write is at least that long ago, by the server's clock; StoreUnavailableError.

        Partitions that are away are left out, unless all are.
        """
        sweep = Sweep()
        await self._turns.go_through(sweep, lambda tag: self._sweep_partition(tag, after_seconds, sweep))
        return sweep

    async def _sweep_partition(self, tag: str, after_seconds: float, sweep: Sweep) -> None:
        unsealed, skipped = JobKeys("", tag).unsealed, 0
        while True:
            now = await time_ms(self._nodes, tag)
            due = f"{now - 1000 * after_seconds:.0f}"
            # Those that were sealed are gone from the set; those that were left come first the next time.
            page = as_texts(await self._nodes.read("ZRANGEBYSCORE", unsealed, "-inf", due, "LIMIT", skipped, PAGE_JOBS))
            if not page or not await self._turns.hold(tag):
                return
            failures = await self._failures(tag, page)
            for job_id, (_, until, why) in failures.items():
                # A longer pause than any is of a clock that was ahead.
                if now < until <= now + LONGEST_PAUSE_MS:
                    sweep.left[job_id] = why
            tried = [job_id for job_id in page if job_id not in sweep.left]
            for start in range(0, len(tried), TOGETHER):
                some = tried[start : start + TOGETHER]
                done = await together(self._try(tag, job_id, failures, sweep) for job_id in some)
                sweep.done += sum(done)
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
        note = f"{count} {await time_ms(self._nodes, tag) + pause} {error}"
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
