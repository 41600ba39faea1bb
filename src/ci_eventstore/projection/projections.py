"""Verify and rebuild the whole store, or one job of it."""

from collections.abc import AsyncIterator, Sequence

from ci_common.errors import JobNotFoundError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.standing import Standing, read_standing
from ci_eventstore.keys import JobKeys, Keys, all_keys_pattern, ids_key, queue_of_tickets
from ci_eventstore.projection.accounts import AccountProjections
from ci_eventstore.projection.differences import Difference, Progress
from ci_eventstore.projection.glance import doubtful
from ci_eventstore.projection.jobs import JobProjections
from ci_eventstore.projection.strays import Strays, sorted_set
from ci_eventstore.projection.tickets import Tickets
from ci_eventstore.queues.queue_names import rebuild_queue_names


class Projections:
    """All that is derived from streams and records.

    It is walked page by page, in the order of the server's keys, whatever size the store has.
    """

    def __init__(self, nodes: Nodes, keys: Keys, source: LogSource) -> None:
        self._nodes = nodes
        self._keys = keys
        self._jobs = JobProjections(nodes, source)
        self._strays = Strays(nodes, keys)
        self._tickets = Tickets(nodes)
        self._accounts = AccountProjections(nodes, keys)

    async def verify(self, job_id: str | None = None, progress: Progress | None = None) -> list[Difference]:
        """Return where derived data differs from its source; JobNotFoundError if the one job isn't there."""
        if job_id is not None:
            await self._check_exists(job_id)
            return await self._jobs.verify(self._keys.job(job_id))
        return [difference async for difference in self._walk(progress, mends=False)]

    async def rebuild(self, job_id: str | None = None, progress: Progress | None = None) -> list[Difference]:
        """Mend what `verify` reports and return it; a hash or listing whose stream is gone is left as it is."""
        if job_id is not None:
            differences = await self.verify(job_id)
            if differences:
                await self._jobs.rebuild(self._keys.job(job_id))
            return differences
        differences = [difference async for difference in self._walk(progress, mends=True)]
        await rebuild_queue_names(self._nodes, self._keys)
        return differences

    async def _walk(self, progress: Progress | None, *, mends: bool) -> AsyncIterator[Difference]:
        """Yield what differs, each once, and mend it, if asked to: jobs first, since others are compared with these."""
        known = set[Difference]()
        for part in (
            self._walk_jobs(progress, mends=mends),
            self._walk_indexes(mends=mends),
            self._accounts.verify(mends=mends),
        ):
            async for difference in part:
                if difference not in known:
                    known.add(difference)
                    yield difference

    async def _walk_jobs(self, progress: Progress | None, *, mends: bool) -> AsyncIterator[Difference]:
        done, total = (
            0,
            sum(
                score if isinstance(score, int) else 0
                for score in await self._nodes.read_many([("ZCARD", ids_key(tag)) for tag in self._keys.tags])
            ),
        )
        async for page in self._nodes.scan(all_keys_pattern(self._keys)):
            jobs = [*self._jobs_in(page, "events"), *await self._without_stream(self._jobs_in(page, "job"))]
            for keys in await doubtful(self._nodes, jobs):
                differences = await self._jobs.verify(keys)
                if differences and mends:
                    await self._jobs.rebuild(keys)
                for difference in differences:
                    yield difference
            done += len(jobs)
            if progress is not None:
                progress(done, max(done, total))

    def _jobs_in(self, page: Sequence[str], kind: str) -> list[JobKeys]:
        """Return the jobs whose streams or hashes are among some keys, but not those in a wrong partition."""
        found = []
        for key in page:
            tag, separator, job_id = key.partition(f":{kind}:")
            if separator and tag in self._keys.tags:
                keys = self._keys.job(job_id)
                if keys.tag == tag:
                    found.append(keys)
        return found

    async def _without_stream(self, jobs: Sequence[JobKeys]) -> list[JobKeys]:
        replies = await self._nodes.read_many([("EXISTS", keys.stream) for keys in jobs])
        return [keys for keys, exists in zip(jobs, replies, strict=True) if not exists]

    async def _walk_indexes(self, *, mends: bool) -> AsyncIterator[Difference]:
        async for page in self._nodes.scan(all_keys_pattern(self._keys)):
            for key in page:
                index = sorted_set(self._keys, key)
                if index is not None:
                    async for difference in self._strays.verify(index, mends=mends):
                        yield difference
                queue = queue_of_tickets(self._keys, key)
                if queue is not None:
                    async for difference in self._tickets.verify(queue, mends=mends):
                        yield difference

    async def _check_exists(self, job_id: str) -> None:
        if await read_standing(self._nodes, self._keys.job(job_id)) is Standing.MISSING:
            raise JobNotFoundError(job_id)
