"""`RedisJobRepository`: the contract of `ci_common`, on a Redis or Valkey server."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Self, Unpack

from ci_common.errors import InvalidArgumentError, JobNotFoundError, LogDeletedError
from ci_common.models import Job, JobEvent
from ci_common.repository import JobRepository
from ci_common.validation import (
    check_flag,
    check_id,
    check_job,
    check_position,
    check_text,
    check_whole,
    is_number,
    optional_id,
)
from ci_eventstore.accounts.store import AccountStore
from ci_eventstore.connection import deployments
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.engine import Engine
from ci_eventstore.engines import Engines
from ci_eventstore.errors import AmbiguousPrefixError, StreamDamagedError
from ci_eventstore.events.records import Record
from ci_eventstore.facts.groups import LONGEST_LEASE_SECONDS
from ci_eventstore.facts.reader import MAX_ENTRIES, FactBatch, FactReader
from ci_eventstore.following.follower import Follower
from ci_eventstore.following.hub import FollowingStats
from ci_eventstore.following.records import Followed, Notice, NoticeType
from ci_eventstore.job_writer import JobWriter
from ci_eventstore.jobs.decide import Keep
from ci_eventstore.jobs.delete import delete_job, delete_log
from ci_eventstore.jobs.listings import JobPage, checked_page
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.jobs.tombstones import Reason
from ci_eventstore.projection.differences import Difference, Progress
from ci_eventstore.queues.claimed import Claim, Claimed
from ci_eventstore.queues.lease_keeper import LeaseKeeper, Notify
from ci_eventstore.replay.replay import LONGEST_GAP_SECONDS, History, Pace, Point, check_point, replay
from ci_eventstore.settings import GivenSettings, Settings
from ci_eventstore.writer.log_writer import LogWriter, WriterSettings
from ci_eventstore.writer.masking import SecretTexts


class RedisJobRepository(AccountStore, JobRepository):
    """Jobs as streams of events on one server, each job's state kept ready in a hash.

        async with RedisJobRepository.from_url("redis://localhost") as repository:
            await repository.create_job(Job(id="1", status="queued"))

    Beside the errors of the contract, every method may raise StoreUnavailableError (nothing was changed), and writes
    OutcomeUnknownError (it took effect once, or never will). A call that only lost its answer is repeated, and has its
    effect once.
    """

    def __init__(self, client: object, **settings: Unpack[GivenSettings]) -> None:
        """Use the server of a ready `redis.asyncio` client (`Redis`, `RedisCluster`, `Sentinel.master_for(…)`).

        Its connections are left alone. The settings are those of `Settings`: `prefix`, `partitions`, `max_event_bytes`,
        `max_head_bytes`, `durability`, `replicas`, `access`. ConfigurationError.
        """
        deployment = client if isinstance(client, Deployment) else deployments.from_client(client)
        self._engines = Engines(deployment, Settings(**settings))
        self._keys = self._engines.settings.keys

    @classmethod
    def from_url(cls, url: str | None = None, **settings: Unpack[GivenSettings]) -> Self:
        """Use the server at `embedded://PATH`, `redis://`, `rediss://`, `valkey://`, `valkeys://` or `unix://PATH`.

        Also `redis+sentinel://HOST,HOST/NAME`, `redis+cluster://HOST,HOST` and their like. None: what the environment
        variable CI_EVENTSTORE_URL says, else an embedded server under the user's data directory. The settings are those
        of the constructor. ConfigurationError.
        """
        return cls(deployments.from_url(url or deployments.default_url()), **settings)

    @property
    def engine(self) -> Engine:
        """The open store in the running event loop, for what this package builds on it; NotInitializedError."""
        return self._engines.current

    @property
    def _nodes(self) -> Nodes:
        return self.engine.nodes

    async def initialize(self) -> None:
        """Connect, check the server, the user's rights and the format of the data.

        StoreUnavailableError, AuthenticationError, MissingRightsError (which names all that is missing),
        UnsuitableServerError, StoreFormatError.
        """
        await self._engines.open()
        self._keys = self._engines.settings.keys

    async def close(self) -> None:
        """Send waiting writes, then close the connections.

        Other event loops close their connections when they run next.
        """
        await self._engines.close()

    async def create_job(self, job: Job) -> None:
        """Store a new job with its events, in one step; JobAlreadyExistsError, InvalidJobError."""
        check_job(job)
        await self._engines.current.jobs.create(job)

    async def get_job(self, job_id: str, user_id: str | None = None) -> Job | None:
        """Return a job with its events, up to its state's moment, those after a deletion of its log; JobGoneError."""
        state = await self._visible_state(job_id, user_id)
        if state is None:
            return None
        try:
            events = await self.engine.reader.read(self._keys.job(job_id), state.deleted_to or 0, state.extent)
        except LogDeletedError:  # Since its state was read.
            return await self.get_job(job_id, user_id)
        return replace(to_job(job_id, state), events=events)

    async def get_job_summary(self, job_id: str, user_id: str | None = None) -> Job | None:
        """Return a job without its events; JobGoneError."""
        state = await self._visible_state(job_id, user_id)
        return None if state is None else to_job(job_id, state)

    async def list_jobs(self, user_id: str | None = None) -> list[Job]:
        """Return all jobs, or a user's, without events, the newest first."""
        pages = self.engine.listings.all(optional_id("user id", user_id))
        return [job async for page in pages for job in page]

    async def page_jobs(
        self, user_id: str | None = None, status: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[Job]:
        """Return up to `limit` jobs in the order of `list_jobs`, those that come after the job `before`."""
        return (await self.engine.listings.page(*checked_page(user_id, status, limit, before))).jobs

    async def page_available_jobs(
        self, user_id: str | None = None, status: str | None = None, limit: int = 100, before: str | None = None
    ) -> JobPage:
        """Return what `page_jobs` does of the partitions that are there, and say which are away, with their jobs.

        Paging on after the last job brings what comes after it; the jobs that were missing come with another listing.
        """
        asked = checked_page(user_id, status, limit, before)
        return await self.engine.listings.page(*asked, is_partial=True)

    async def resolve_job_id(self, prefix: str) -> str:
        """Return the id that begins with `prefix`, if it is the only one; JobNotFoundError, AmbiguousPrefixError."""
        found = await self.engine.listings.ids_beginning(check_id("job id", prefix), 3)
        if not found:
            raise JobNotFoundError(prefix)
        if len(found) > 1 and prefix not in found:
            raise AmbiguousPrefixError(prefix, found)
        return found[0]

    async def update_job_status(
        self, job_id: str, status: str, start_time: datetime | None = None, container_id: str | None = None
    ) -> None:
        """Move a job to another status; JobNotFoundError, UnknownStatusError, InvalidTransitionError."""
        await self.writer(job_id).update_status(status, start_time, container_id)

    async def complete_job(self, job_id: str, success: bool, end_time: datetime) -> None:
        """End a job with its result; JobNotFoundError, ResultConflictError."""
        await self.writer(job_id).complete(success, end_time)

    async def cancel_job(self, job_id: str, reason: str | None = None, user_id: str | None = None) -> None:
        """End a job as cancelled, with the reason in its log; JobNotFoundError, InvalidTransitionError.

        A controller that has the job is asked to stop it; the job ends when it has, or when its lease runs out: until
        then this repository looks after it, as do all controllers of its queue, and whoever follows it.
        """
        await self.writer(job_id).cancel(reason, user_id)

    async def delete_job(self, job_id: str, user_id: str | None = None) -> bool:
        """Delete a job that has ended, with its log; tell whether it was there until now.

        From then on all that concerns it raises JobGoneError, also a repeated creation. JobNotFoundError, also for
        another user's job, InvalidTransitionError (it hasn't ended: cancel it first).
        """
        keys, owner = self._keys.job(check_id("job id", job_id)), optional_id("user id", user_id)
        return await delete_job(self._nodes, self.engine.reader.source, keys, Reason.ASKED, owner)

    async def delete_log(self, job_id: str, user_id: str | None = None) -> bool:
        """Delete the log of a job that has ended, which stays: LogDeletedError from then on. As `delete_job`."""
        keys, owner = self._keys.job(check_id("job id", job_id)), optional_id("user id", user_id)
        return await delete_log(self._nodes, self.engine.reader.source, keys, owner)

    async def keep_job(self, job_id: str, *, is_kept: bool = True) -> None:
        """Have retention leave a job alone, or not any more; `delete_job` deletes it all the same. JobNotFoundError."""
        await self.writer(job_id).execute(Keep(check_flag("is_kept", is_kept)))

    async def add_event(self, job_id: str, event: JobEvent) -> None:
        """Append a visible event; it is stored when the call returns."""
        await self.writer(job_id).append((event,))

    async def add_events(self, job_id: str, events: Iterable[JobEvent]) -> None:
        """Append events in their order.

        Up to 1,000 log events of together 1 MiB go in in one step, as does any number of events with a `complete` among
        them; more log events go in in several, with those of other writers between them.
        """
        await self.writer(job_id).append(events)

    def log_writer(
        self, job_id: str, *, secrets: SecretTexts = (), settings: WriterSettings | None = None
    ) -> LogWriter:
        """Return a writer for a job's log; use it as an async context manager. Secrets are masked in what it writes."""
        return self.writer(job_id).log_writer(secrets=secrets, settings=settings)

    async def get_events_since(self, job_id: str, last_event_id: int, user_id: str | None = None) -> list[JobEvent]:
        """Return all events after the one seen last; JobNotFoundError, InvalidPositionError."""
        return await self._read(job_id, last_event_id, None, user_id)

    async def read_events(
        self, job_id: str, after: int = 0, limit: int = 1000, user_id: str | None = None
    ) -> list[JobEvent]:
        """Return up to `limit` events after the given id."""
        return await self._read(job_id, after, max(check_whole("limit", limit), 0), user_id)

    async def follow_events(
        self, job_id: str, last_event_id: int = 0, user_id: str | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield the events after the given id as they come; end with the job.

        StreamDamagedError: the log doesn't reach that id, or the store has lost events that were yielded.
        """
        follower = await self.follow(job_id, last_event_id, user_id)
        try:
            while True:
                page = await follower.read()
                for record in page.records:
                    if type(record) is JobEvent:
                        last_event_id = record.id or last_event_id
                        yield record
                    elif isinstance(record, Notice):
                        # Unless it was deleted meanwhile.
                        (await self.engine.reader.extent(follower.keys)).check_deleted(job_id, last_event_id)
                        expected = last_event_id + 1 if record.type is NoticeType.GAP else max(last_event_id, 1)
                        raise StreamDamagedError(job_id, expected, record.position or None)
                if page.is_last:
                    return
        finally:
            follower.close()

    async def follow_records(
        self, job_id: str, last_event_id: int = 0, user_id: str | None = None
    ) -> AsyncGenerator[Followed, None]:
        """Yield what `follow_events` does, facts such as `truncating`, and notices; these two have no id."""
        follower = await self.follow(job_id, last_event_id, user_id)
        try:
            while True:
                page = await follower.read()
                for record in page.records:
                    yield record
                if page.is_last:
                    return
        finally:
            follower.close()

    async def follow(
        self, job_id: str, last_event_id: int = 0, user_id: str | None = None, *, incarnation: str | None = None
    ) -> Follower:
        """Return a follower, which hands out pages that it shares with others; it has to be closed.

        It begins with a reset if the log doesn't reach the position, as after a loss of events, or if `incarnation` is
        given and is another one now: an earlier follower's `incarnation`, beside the last position that it handed out.
        JobNotFoundError, InvalidPositionError.
        """
        keys = self._keys.job(check_id("job id", job_id))
        check_position(last_event_id)
        check_text("incarnation", incarnation)
        owner = optional_id("user id", user_id)
        return await self.engine.hub.follow(keys, last_event_id, owner, incarnation=incarnation)

    async def incarnation(self, job_id: str) -> str:
        """Return the incarnation of a job and its store: to give to `follow`, beside a position. JobNotFoundError."""
        keys = self._keys.job(check_id("job id", job_id))
        await self.engine.reader.extent(keys)
        [found] = await self.engine.incarnation.read_all([job_id])
        return str(found)

    async def replay(
        self,
        job_id: str,
        speed: float | None = None,
        since: Point | None = None,
        until: Point | None = None,
        *,
        facts: bool = False,
        longest_gap_seconds: float | None = LONGEST_GAP_SECONDS,
    ) -> AsyncGenerator[Record, None]:
        """Yield a job's events, and its facts if asked to: at once, or `speed` times as fast as they came.

        Of a running job, those that there are now. `since` and `until`, both included, are positions or times: up to a
        time comes what stands before the first record that is later. A record that is no later than the one before
        comes at once, a longer gap than the longest as that one. JobNotFoundError, StreamDamagedError.
        """
        pace, begin, end = Pace(speed, longest_gap_seconds), check_point("since", since), check_point("until", until)
        history = await History.of(self.engine.reader, self._keys.job(check_id("job id", job_id)))
        async with aclosing(replay(history, pace, begin, end, facts=check_flag("facts", facts))) as records:
            async for record in records:
                yield record

    async def job_at(self, job_id: str, point: Point) -> Job | None:
        """Return a job without its events, as it was at a position or a time; None if it was created later.

        That of a position is the job before the next event; that of a time is the job before its first record that is
        later. JobNotFoundError, StreamDamagedError if the log doesn't reach the position.
        """
        wanted = check_point("point", point)
        if wanted is None:
            raise InvalidArgumentError("point", point, "a position or a time")
        history = await History.of(self.engine.reader, self._keys.job(check_id("job id", job_id)))
        state = await history.state(wanted)
        return None if state is None else to_job(job_id, state)

    def following_stats(self) -> FollowingStats:
        """Return what this process follows."""
        return self.engine.hub.stats()

    async def position_of_line(self, job_id: str, line: int) -> int:
        """Return the id of an event at or shortly before the one that holds a line of the log, counted from 1.

        From there, at most 2,000 events or 2 MiB and one event have to be read to reach the line. JobNotFoundError.
        """
        keys, line = self._keys.job(check_id("job id", job_id)), check_whole("line", line)
        await self.engine.reader.extent(keys)
        return await self.engine.reader.position_of_line(keys, line)

    def subscribe(
        self, group: str, *, limit: int = 500, lease_seconds: float = 30.0
    ) -> AsyncGenerator[FactBatch, None]:
        """Yield facts of all jobs for a group, as they come: each at least once, those of a job in order.

            async with aclosing(repository.subscribe("notifier")) as batches:
                async for batch in batches:
                    for fact in batch.facts:
                        print(fact.time, fact.kind.name, fact.job_id)
                    await batch.acknowledge()

        A group begins when it is first read, with a batch that has a gap in each partition; `page_jobs` tells what
        there is. Of several readers of a group, each partition has one at a time, under a lease: a batch is to be
        acknowledged within it, and what isn't is handed out again. Close the generator, for others to begin at once.

        Batches come from up to `limit` entries. InvalidArgumentError, GroupDroppedError, StoreError.
        """
        check_id("group", group)
        if not is_number(limit, 1, MAX_ENTRIES, is_whole=True):
            raise InvalidArgumentError("limit", limit, f"a whole number from 1 to {MAX_ENTRIES}")
        if not is_number(lease_seconds, 0.1, LONGEST_LEASE_SECONDS):
            raise InvalidArgumentError("lease_seconds", lease_seconds, f"a number from 0.1 to {LONGEST_LEASE_SECONDS}")
        return FactReader(self._nodes, self.engine.facts, group, lease_seconds, limit).batches()

    async def verify(
        self, job_id: str | None = None, *, progress: Progress | None = None, fast: bool = False, deep: bool = False
    ) -> list[Difference]:
        """Return where hashes and indexes differ from the logs: of one job, or of the whole store.

        With `fast`, not all keys of the server are walked, so what stands in no index isn't found. With `deep`, sealed
        logs are read from their beginnings, and each segment is compared with its root.
        """
        is_fast, is_deep = check_flag("fast", fast), check_flag("deep", deep)
        projections, one = self.engine.projections, optional_id("job id", job_id)
        return await projections.verify(one, progress, is_fast=is_fast, is_deep=is_deep)

    async def rebuild(
        self, job_id: str | None = None, *, progress: Progress | None = None, fast: bool = False
    ) -> list[Difference]:
        """Mend the differences that `verify` reports, while the store is in use, and return them."""
        is_fast = check_flag("fast", fast)
        return await self.engine.projections.rebuild(optional_id("job id", job_id), progress, is_fast=is_fast)

    async def restored(self) -> str:
        """Give the store another incarnation, since its data was restored from a backup; return it.

        Clients that come back with a position and the incarnation that it belongs to then begin again. Calling it again
        does no harm: they begin again once more.
        """
        await self.engine.facts.forget_facts()
        return await self.engine.incarnation.renew()

    def writer(self, job_id: str, claim: Claim | None = None, claimed: Claimed | None = None) -> JobWriter:
        """Return a writer for one job: under the claim of a process that has the job, or without one."""
        return JobWriter(self._engines, job_id, claim, claimed)

    def keep_leases(self, lease_seconds: float, notify: Notify) -> LeaseKeeper:
        """Return a keeper that renews leases from its own thread, and reports those lost or to be cancelled."""
        return LeaseKeeper(self._engines.deployment, self._keys, lease_seconds, notify)

    async def _read(self, job_id: str, after: int, limit: int | None, user_id: str | None) -> list[JobEvent]:
        keys = self._keys.job(check_id("job id", job_id))
        check_position(after)
        extent = await self.engine.reader.extent(keys, optional_id("user id", user_id))
        return await self.engine.reader.read(keys, after, extent, limit)

    async def _visible_state(self, job_id: str, user_id: str | None) -> JobState | None:
        state = await self.engine.jobs.known_state(check_id("job id", job_id))
        optional_id("user id", user_id)
        return state if state is not None and user_id in (None, state.user_id) else None
