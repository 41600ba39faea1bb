"""Verify and rebuild the whole store, or one job of it."""

from collections.abc import AsyncIterator

from ci_common.errors import JobNotFoundError
from ci_eventstore.claims.overview import rebuild_queue_names
from ci_eventstore.keys import Keys, member_job_id
from ci_eventstore.projection.accounts import AccountProjections
from ci_eventstore.projection.differences import Difference
from ci_eventstore.projection.jobs import JobProjections, belongs
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import as_text_map, as_texts

PAGE_MEMBERS = 1000


class Projections:
    """All that is derived from streams and records."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._jobs = JobProjections(server)
        self._accounts = AccountProjections(server, keys)

    async def verify(self, job_id: str | None = None) -> list[Difference]:
        """Return where derived data differs from its source; JobNotFoundError if the one job isn't there."""
        if job_id is not None:
            await self._check_exists(job_id)
            return await self._jobs.verify(self._keys.job(job_id))
        differences = [
            difference
            async for found in self._job_ids()
            for difference in await self._jobs.verify(self._keys.job(found))
        ]
        strays = [
            Difference(f"job {member_job_id(member)}", f"listing {listing}", None, member)
            async for listing, member in self._strays()
        ]
        return [*differences, *strays, *[difference async for difference in self._accounts.verify()]]

    async def rebuild(self, job_id: str | None = None) -> list[Difference]:
        """Mend what `verify` reports and return it; a hash or listing whose stream is gone is left as it is."""
        differences = await self.verify(job_id)
        subjects = {difference.subject for difference in differences}
        for subject in sorted(subjects):
            if subject.startswith("job "):
                await self._jobs.rebuild(self._keys.job(subject.removeprefix("job ")))
        if job_id is None:
            async for listing, member in self._strays():
                await self._remove_stray(listing, member)
            async for _ in self._accounts.verify(mends=True):
                pass
            await rebuild_queue_names(self._server, self._keys)
        return differences

    async def _remove_stray(self, listing: str, member: str) -> None:
        await self._server.read("ZREM", listing, member)
        await self._jobs.rebuild(self._keys.job(member_job_id(member)))

    async def _check_exists(self, job_id: str) -> None:
        keys = self._keys.job(job_id)
        if not await self._server.read("EXISTS", keys.stream, keys.hash):
            raise JobNotFoundError(job_id)

    async def _job_ids(self) -> AsyncIterator[str]:
        """Yield the id of every job that has a stream or a hash, once."""
        seen = set()
        for name in ("events", "job"):
            async for key in self._server.scan(self._keys.pattern(name)):
                job_id = key.split(f"}}:{name}:", 1)[1]
                if job_id not in seen:
                    seen.add(job_id)
                    yield job_id

    async def _strays(self) -> AsyncIterator[tuple[str, str]]:
        """Yield the listings' members that aren't as their jobs' hashes say, each with its listing."""
        for name in ("jobs", "owned"):
            async for listing in self._server.scan(self._keys.pattern(name)):
                async for member in self._members(listing):
                    if not await self._belongs(listing, member) and not await self._belongs(listing, member):
                        yield listing, member

    async def _members(self, listing: str) -> AsyncIterator[str]:
        start = "-"
        while page := as_texts(await self._server.read("ZRANGEBYLEX", listing, start, "+", "LIMIT", 0, PAGE_MEMBERS)):
            for member in page:
                yield member
            start = f"({page[-1]}"

    async def _belongs(self, listing: str, member: str) -> bool:
        """Tell whether a member is as its job's hash says; one that has left the listing meanwhile is no stray."""
        keys = self._keys.job(member_job_id(member))
        fields, score = await self._server.read_many([("HGETALL", keys.hash), ("ZSCORE", listing, member)])
        return score is None or belongs(listing, member, keys, as_text_map(fields))
