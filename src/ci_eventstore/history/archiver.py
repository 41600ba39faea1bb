"""Move sealed logs to the archive as they become due, each partition swept by one process at a time.

A sweep goes through the jobs that have ended, the oldest first. It keeps nothing in the store, for a job that was moved
costs it one look; a process that sweeps again and again goes on where it ended, and looks at all jobs once an hour.
That is also when it tries those again that couldn't be moved.
"""

import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from ci_common.errors import RepositoryError
from ci_eventstore.archive import Archive
from ci_eventstore.connection.nodes import Nodes, time_ms
from ci_eventstore.connection.replies import WRONG_TYPE, as_texts
from ci_eventstore.errors import (
    ArchiveUnavailableError,
    ConfigurationError,
    OutcomeUnknownError,
    StoreFormatError,
    StoreUnavailableError,
)
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.history.archiving import Moved, archive_job
from ci_eventstore.history.sweeping import Sweep, Turns, sweep_again_and_again
from ci_eventstore.keys import JobKeys, Keys, ended_key
from ci_eventstore.members import member_job_id, sort_key
from ci_eventstore.tasks import together

logger = logging.getLogger("ci_eventstore.history")

PAGE_JOBS = 100
#: Jobs of a page that are moved at the same time.
TOGETHER = 8
#: How often one that goes on and on looks at all jobs.
WALK_SECONDS = 3600.0


class Archiver:
    """Sweeps the partitions of a store; with a URL, the store remembers that."""

    def __init__(self, nodes: Nodes, source: LogSource, keys: Keys, url: str | None = None) -> None:
        self._nodes = nodes
        self._source = source
        self._keys = keys
        self._url = url
        self._turns = Turns(nodes, keys, "archiver")
        #: By partition, where the last sweep ended; when all jobs were looked at last.
        self._after: dict[str, str] = {}
        self._walked_at = 0.0

    async def find(self, *, takes_over: bool = False) -> Archive:
        """Return the archive, which may be taken over from another store of the same name.

        ConfigurationError if there is none, another one, or another store's; ArchiveUnavailableError.
        """
        archived = self._source.sealed.archived
        if self._url is not None:
            return await archived.remember(self._keys, self._url, takes_over=takes_over)
        archive = await archived.archive(self._keys.tags[0])
        if archive is None:
            raise ConfigurationError("the store has no archive yet: say once where it is to be (--archive URL)")
        await archive.check()
        await archived.own(self._keys, archive)
        return archive

    async def run(self, older_than_seconds: float) -> None:
        """Sweep again and again; whatever goes wrong is logged."""

        async def sweep() -> Sweep:
            now = time.monotonic()
            if now - self._walked_at >= WALK_SECONDS:
                self._walked_at = now
                self._after.clear()
            return await self.sweep(older_than_seconds)

        await sweep_again_and_again(self._nodes, "archiving jobs", "archived", sweep)

    async def sweep(self, older_than_seconds: float) -> Sweep:
        """Move the logs of all sealed jobs that ended at least that long ago, by the server's clock.

        Partitions that are away are left out, unless all are, or that of accounts, which knows the archive.
        ConfigurationError, ArchiveUnavailableError, StoreUnavailableError.
        """
        archive, sweep = await self.find(), Sweep()

        async def move(tag: str) -> None:
            now = datetime.fromtimestamp(await time_ms(self._nodes, tag) / 1000, UTC)
            async for page in self._pages(tag, sort_key(now - timedelta(seconds=older_than_seconds))):
                for start in range(0, len(page), TOGETHER):
                    some = page[start : start + TOGETHER]
                    sweep.done += sum(await together(self._try(archive, keys, sweep) for keys in some))

        await self._turns.go_through(sweep, move)
        return sweep

    async def _pages(self, tag: str, until: str) -> AsyncIterator[list[JobKeys]]:
        """Yield those jobs that ended up to then of whose logs something isn't in the archive."""
        while True:
            after = self._after.get(tag, "-")
            command = ("ZRANGEBYLEX", ended_key(tag), after, f"[{until}:\U0010ffff", "LIMIT", 0, PAGE_JOBS)
            [reply] = await self._nodes.read_many([command])
            members = [] if reply is WRONG_TYPE else as_texts(reply)
            if not members or not await self._turns.hold(tag):
                return
            yield await self._unmoved([self._keys.job(member_job_id(member)) for member in members])
            self._after[tag] = f"({members[-1]}"

    async def _unmoved(self, jobs: Sequence[JobKeys]) -> list[JobKeys]:
        logs = await self._nodes.read_many([("HGET", keys.hash, "log") for keys in jobs])
        return [
            keys
            for keys, log in zip(jobs, logs, strict=True)
            if log is not None and log is not WRONG_TYPE and _has_unmoved(keys.job_id, log)
        ]

    async def _try(self, archive: Archive, keys: JobKeys, sweep: Sweep) -> bool:
        """Tell whether a log was moved; what keeps it from that is its own trouble, unless it is the store's."""
        try:
            return await archive_job(self._nodes, self._source, archive, keys) is Moved.MOVED
        except (StoreUnavailableError, OutcomeUnknownError, ArchiveUnavailableError):
            raise
        except Exception as error:
            is_known = isinstance(error, RepositoryError)
            logger.warning("a job can't be archived: %s", error, extra={"job_id": keys.job_id}, exc_info=not is_known)
            sweep.left[keys.job_id] = str(error)
            return False


def _has_unmoved(job_id: str, log: bytes) -> bool:
    """Return whether a segment lies in the store, or what can't be read says so. Pure."""
    try:
        return not all(one.is_archived for one in references_in(job_id, log))
    except StoreFormatError:
        return True
