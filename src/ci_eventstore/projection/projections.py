"""Verify and rebuild the whole store, or one job of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ci_common.errors import JobGoneError, JobNotFoundError
from ci_eventstore.connection.absence import AWAY, ask_each, is_absence
from ci_eventstore.connection.failures import partition_of, tag_in
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_bytes, is_unicode
from ci_eventstore.errors import name_of
from ci_eventstore.events.log_source import LogSource, Standing, read_standing
from ci_eventstore.jobs.tombstones import read_tombstone
from ci_eventstore.keys import (
    JobKeys,
    Keys,
    QueueKeys,
    all_keys_pattern,
    facts_key,
    groups_key,
    ids_key,
    named_indexes,
    queue_of,
)
from ci_eventstore.projection.accounts import AccountProjections
from ci_eventstore.projection.differences import Difference, Progress
from ci_eventstore.projection.indexes import Strays, Tickets, sorted_set
from ci_eventstore.projection.jobs import JobProjections, doubtful
from ci_eventstore.queues.overview import add_queue_names, queue_names

#: Of the jobs that are read one by one, this many are read at the same time.
TOGETHER = 16
#: What facts of all jobs stand in, and of which type that is.
FACT_KEYS = {facts_key: "stream", groups_key: "hash"}


@dataclass(slots=True)
class _Walk:
    """One walk through the store."""

    progress: Progress | None
    mends: bool
    #: Whether sealed logs are read from their beginnings.
    is_deep: bool = False
    #: How many jobs the indexes name, and how many were looked at.
    total: int = 0
    done: int = 0
    #: Whether jobs that stand in no index were mended, after indexes may have been compared with them.
    is_to_repeat: bool = False
    known: set[Difference] = field(default_factory=set)
    #: The hash tags of partitions that were away, that of the accounts among them: nothing is said of them.
    away: set[str] = field(default_factory=set)
    #: The queues whose tickets were found.
    queues: set[QueueKeys] = field(default_factory=set)

    def note(self, jobs: int) -> None:
        """Count jobs that were looked at."""
        self.done += jobs
        if self.progress is not None and jobs:
            self.progress(self.done, max(self.done, self.total))


class Projections:
    """All that is derived from streams and records.

    Jobs are found by the partitions' ids, page by page, in constant memory. A walk through each node's keys finds what
    stands in no index.
    """

    def __init__(self, nodes: Nodes, keys: Keys, source: LogSource) -> None:
        self._nodes = nodes
        self._keys = keys
        self._source = source
        self._jobs = JobProjections(nodes, source)
        self._strays = Strays(nodes, keys, source)
        self._tickets = Tickets(nodes)
        self._accounts = AccountProjections(nodes, keys)

    async def verify(
        self,
        job_id: str | None = None,
        progress: Progress | None = None,
        *,
        is_fast: bool = False,
        is_deep: bool = False,
    ) -> list[Difference]:
        """Return where derived data differs from its source; JobNotFoundError if the one job isn't there.

        If it is fast, it doesn't look for what stands in no index. A partition that is away is a difference itself, and
        nothing else is said of it; StoreUnavailableError if all are.
        """
        if job_id is not None:
            await self._check_exists(job_id)
            differences = await self._jobs.verify(self._keys.job(job_id), is_deep=is_deep)
            if differences:
                # It may have been deleted meanwhile.
                await self._check_exists(job_id)
            return differences
        walk = _Walk(progress, mends=False, is_deep=is_deep)
        return [difference async for difference in self._walk(walk, is_fast=is_fast)]

    async def rebuild(
        self, job_id: str | None = None, progress: Progress | None = None, *, is_fast: bool = False
    ) -> list[Difference]:
        """Mend what `verify` reports and return it; a hash or listing whose stream is gone stays as it is."""
        if job_id is not None:
            differences = await self.verify(job_id)
            if differences:
                await self._jobs.rebuild(self._keys.job(job_id))
            return differences
        return [difference async for difference in self._walk(_Walk(progress, mends=True), is_fast=is_fast)]

    async def _walk(self, walk: _Walk, *, is_fast: bool) -> AsyncIterator[Difference]:
        """Yield each difference once, and mend it if `walk.mends`: jobs first, since indexes are compared with them."""
        parts = [self._find_absent(walk), self._walk_ids(walk), self._walk_accounts(walk)]
        parts.append(self._walk_named(walk) if is_fast else self._walk_keys(walk))
        parts += [self._walk_tickets(walk), self._walk_facts(walk)]
        for part in parts:
            async for difference in part:
                if difference not in walk.known:
                    walk.known.add(difference)
                    yield difference

    async def _find_absent(self, walk: _Walk) -> AsyncIterator[Difference]:
        """Look which partitions are away."""
        keys = {tag: ids_key(tag) for tag in self._keys.tags} | {tag_in(self._keys.store) or "": self._keys.store}

        async def look(tag: str) -> None:
            await self._nodes.read_many([("EXISTS", keys[tag])])

        answers = await ask_each(self._nodes, list(keys), look)
        walk.away.update(answers.away)
        for tag in answers.away:
            yield Difference(name_of(partition_of((tag,)) or 0), "its server", "an answer", None)

    async def _past_absence(self, tag: str, walk: _Walk, part: AsyncIterator[Difference]) -> AsyncIterator[Difference]:
        """Yield what is found in one partition; one that is away is left out, and named if it has just gone."""
        if tag in walk.away:
            return
        try:
            async for difference in part:
                yield difference
        except AWAY as error:
            if not self._nodes.is_divided or not is_absence(error):
                raise
            async for difference in self._find_absent(walk):
                yield difference
            if not walk.away:
                raise

    async def _walk_accounts(self, walk: _Walk) -> AsyncIterator[Difference]:
        part = self._accounts.verify_indexes(mends=walk.mends)
        async for difference in self._past_absence(tag_in(self._keys.store) or "", walk, part):
            yield difference

    async def _walk_ids(self, walk: _Walk) -> AsyncIterator[Difference]:
        """Look at the jobs that stand in the partitions' ids."""
        there = [tag for tag in self._keys.tags if tag not in walk.away]
        sizes = await self._nodes.read_many([("ZCARD", ids_key(tag)) for tag in there])
        walk.total = sum(size for size in sizes if size is not WRONG_TYPE)
        for tag, size in zip(there, sizes, strict=True):
            if size is not WRONG_TYPE:
                async for difference in self._past_absence(tag, walk, self._walk_ids_in(tag, walk)):
                    yield difference

    async def _walk_ids_in(self, tag: str, walk: _Walk) -> AsyncIterator[Difference]:
        async for page in self._nodes.scan_members("ZSCAN", ids_key(tag)):
            # An id that can't be a job's here is a stray of the ids.
            jobs = [keys for keys in map(self._keys.job, filter(is_unicode, page[::2])) if keys.tag == tag]
            for difference in await self._look_at(jobs, walk):
                yield difference

    async def _walk_keys(self, walk: _Walk) -> AsyncIterator[Difference]:
        """Look at all keys: jobs that stand in no ids, and members of indexes that don't belong there."""
        async for page in self._nodes.scan(all_keys_pattern(self._keys), skips_absent=bool(walk.away)):
            jobs = await self._unlisted(page)
            walk.is_to_repeat |= bool(jobs) and walk.mends
            for difference in await self._look_at(jobs, walk):
                yield difference
            async for difference in self._look_at_indexes(page, walk):
                yield difference
            async for difference in self._accounts.verify_records(page, mends=walk.mends):
                yield difference
            if walk.mends:
                await add_queue_names(self._nodes, self._keys, page)
        if walk.is_to_repeat:
            async for page in self._nodes.scan(all_keys_pattern(self._keys), skips_absent=bool(walk.away)):
                async for difference in self._look_at_indexes(page, walk):
                    yield difference

    async def _walk_named(self, walk: _Walk) -> AsyncIterator[Difference]:
        """Look at the keys that are known by name: listings of all jobs, queues, records that indexes name."""
        there = [tag for tag in self._keys.tags if tag not in walk.away]
        indexes = named_indexes(self._keys)
        for queue in await queue_names(self._nodes, there):
            indexes += named_indexes(self._keys, queue)
        for tag in there:
            its = [key for key in indexes if tag_in(key) == tag]
            async for difference in self._past_absence(tag, walk, self._look_at_indexes(its, walk)):
                yield difference
        async for difference in self._past_absence(tag_in(self._keys.store) or "", walk, self._walk_records(walk)):
            yield difference

    async def _walk_records(self, walk: _Walk) -> AsyncIterator[Difference]:
        async for page in self._accounts.named_records():
            async for difference in self._accounts.verify_records(page, mends=walk.mends):
                yield difference

    async def _look_at(self, jobs: Sequence[JobKeys], walk: _Walk) -> list[Difference]:
        doubted = jobs if walk.is_deep else await doubtful(self._nodes, self._source, jobs)
        found: list[Difference] = []
        for start in range(0, len(doubted), TOGETHER):
            looks = (self._look_at_one(keys, walk) for keys in doubted[start : start + TOGETHER])
            found += [difference for differences in await asyncio.gather(*looks) for difference in differences]
        walk.note(len(jobs))
        return found

    async def _look_at_one(self, keys: JobKeys, walk: _Walk) -> list[Difference]:
        differences = await self._jobs.verify(keys, is_deep=walk.is_deep)
        if differences and await read_tombstone(self._nodes, keys) is not None:
            return await self._look_at_rest(keys, walk)
        if differences and walk.mends:
            await self._jobs.rebuild(keys)
        return differences

    async def _look_at_rest(self, keys: JobKeys, walk: _Walk) -> list[Difference]:
        """Return what is left of a deleted job, and remove it if `walk.mends`: with a tombstone it is no job."""
        found = await self._nodes.read_many([("EXISTS", key) for key in keys.all()])
        left = [key for key, is_there in zip(keys.all(), found, strict=True) if is_there]
        if left and walk.mends:
            await self._nodes.read("UNLINK", *left)
        return [Difference(f"job {keys.job_id}", f"key {key}", None, "left of a deleted job") for key in left]

    async def _unlisted(self, page: Sequence[str]) -> list[JobKeys]:
        """Return the jobs whose streams, hashes or segments are among some keys and that stand in no ids.

        A key in a wrong partition is no job's.
        """
        jobs: dict[str, set[str]] = {}
        for key in page:
            tag, _, rest = key.partition("}:")
            kind, _, job_id = rest.partition(":")
            if kind == "segment":
                job_id = job_id.rpartition(":")[0]
            if kind in ("events", "job", "segment") and self._keys.job(job_id).tag == f"{tag}}}":
                jobs.setdefault(f"{tag}}}", set()).add(job_id)
        asked = {tag: sorted(ids) for tag, ids in jobs.items()}
        replies = await self._nodes.read_many(
            [("ZMSCORE", ids_key(tag), *map(as_bytes, ids)) for tag, ids in asked.items()]
        )
        return [
            JobKeys(job_id, tag)
            for (tag, ids), scores in zip(asked.items(), replies, strict=True)
            for job_id, score in zip(ids, [None] * len(ids) if scores is WRONG_TYPE else scores, strict=True)
            if score is None
        ]

    async def _look_at_indexes(self, page: Sequence[str], walk: _Walk) -> AsyncIterator[Difference]:
        for key in page:
            index = sorted_set(self._keys, key)
            if index is not None:
                async for difference in self._strays.verify(index, mends=walk.mends):
                    yield difference
            queue = queue_of(self._keys, "tickets", key)
            if queue is not None:
                walk.queues.add(queue)

    async def _walk_tickets(self, walk: _Walk) -> AsyncIterator[Difference]:
        """Look at the tickets of the queues that were found, last, since they are compared with the backlogs."""
        for queue in sorted(walk.queues):
            part = self._tickets.verify(queue, mends=walk.mends)
            async for difference in self._past_absence(queue.tag, walk, part):
                yield difference

    async def _walk_facts(self, walk: _Walk) -> AsyncIterator[Difference]:
        """Look at the types of what facts stand in; without it, groups are told a gap, and begin again."""
        there = [tag for tag in self._keys.tags if tag not in walk.away]
        expected = {key(tag): kind for tag in there for key, kind in FACT_KEYS.items()}
        found = await self._nodes.read_many([("TYPE", key) for key in expected])
        for (key, kind), reply in zip(expected.items(), found, strict=True):
            if reply.decode() not in (kind, "none"):
                yield Difference("store", key, f"a {kind}", reply.decode())
                if walk.mends:
                    await self._nodes.read("DEL", key)

    async def _check_exists(self, job_id: str) -> None:
        standing = await read_standing(self._nodes, self._keys.job(job_id))
        if standing in (Standing.MISSING, Standing.GONE):
            raise (JobGoneError if standing is Standing.GONE else JobNotFoundError)(job_id)
