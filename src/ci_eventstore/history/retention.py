"""Delete jobs that have ended long enough ago: which ones says a policy, and a sweep finds them by their ends.

A sweep keeps nothing of itself: a job that it has deleted isn't found again, and one that it couldn't delete is named,
and found by the next one. So it may be stopped anywhere, and several may run.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from ci_common.models import JobStatus, as_utc
from ci_common.transitions import ENDED
from ci_common.validation import is_number
from ci_eventstore.connection.replies import WRONG_TYPE, as_texts
from ci_eventstore.engine import Engine
from ci_eventstore.errors import ConfigurationError, OutcomeUnknownError, StoreFormatError, StoreUnavailableError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import references_in
from ci_eventstore.jobs.delete import delete_job
from ci_eventstore.jobs.records import read_records
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Reason, Tombstone
from ci_eventstore.keys import ended_key, gone_key, member_job_id, sort_key

PAGE_JOBS = 100
#: For how long tombstones are kept, unless a setting says otherwise.
TOMBSTONE_DAYS = 400
#: A greater age would be older than times can be.
LONGEST_SECONDS = 100 * 365 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which jobs are deleted; ConfigurationError. A job that hasn't ended never is."""

    #: How long ago a job has to have ended.
    older_than_seconds: float
    #: Only jobs that ended so; none: however they ended.
    statuses: frozenset[JobStatus] = frozenset()
    #: Only jobs of this queue.
    queue: str | None = None
    #: Whether jobs are deleted, too, whose logs aren't sealed.
    takes_unsealed: bool = False

    def __post_init__(self) -> None:
        """Refuse what would take jobs that nobody meant."""
        check_age("older_than_seconds", self.older_than_seconds)
        if not self.statuses <= ENDED:
            raise ConfigurationError("a job that hasn't ended is never deleted: cancel it first")

    def takes(self, job_id: str, state: JobState, now: datetime) -> bool:
        """Return whether a job in this state is deleted. Pure; ProjectionDamagedError."""
        if state.status not in ENDED or state.claim is not None or state.is_kept:
            return False
        ended = as_utc(state.end_time or state.created_at)
        is_meant = self.queue in (None, state.queue) and state.status in (self.statuses or ENDED)
        return (
            is_meant
            and ended <= now - timedelta(seconds=self.older_than_seconds)
            and (self.takes_unsealed or is_sealed(job_id, state))
        )


def check_age(name: str, seconds: float) -> None:
    """Refuse what is no age; ConfigurationError."""
    if not is_number(seconds, 0, LONGEST_SECONDS):
        raise ConfigurationError(f"{name}={seconds!r} must be a number from 0 to {LONGEST_SECONDS}, a hundred years")


def is_sealed(job_id: str, state: JobState) -> bool:
    """Return whether all of a job's log lies in segments. Pure; ProjectionDamagedError."""
    return bool(state.log) and references_in(job_id, state.log or "")[-1].last == Place(state.position, state.part)


@dataclass(slots=True)
class Swept:
    """What a sweep has done, or would do."""

    #: Those that were deleted, or would be.
    deleted: list[str] = field(default_factory=list)
    #: Those that couldn't be, and why.
    left: dict[str, str] = field(default_factory=dict)


async def sweep(engine: Engine, policy: Policy, *, is_dry_run: bool = False) -> Swept:
    """Delete what the policy takes, or only say what that is; StoreUnavailableError, OutcomeUnknownError."""
    swept = Swept()
    for tag in engine.keys.tags:
        now = await _now(engine, tag)
        async for job_ids in _old_jobs(engine, tag, now - timedelta(seconds=policy.older_than_seconds)):
            jobs = [engine.keys.job(job_id) for job_id in job_ids]
            records = await read_records(engine.nodes, engine.reader.source, jobs)
            for keys, record in zip(jobs, records, strict=True):
                try:
                    if isinstance(record, StoreFormatError):
                        raise record
                    if record is None or not policy.takes(keys.job_id, record, now):
                        continue
                    # A job that was written to or kept since is looked at again.
                    takes = partial(policy.takes, keys.job_id, now=now)
                    source = engine.reader.source
                    if is_dry_run or await delete_job(engine.nodes, source, keys, Reason.RETENTION, takes=takes):
                        swept.deleted.append(keys.job_id)
                except (StoreUnavailableError, OutcomeUnknownError):
                    raise
                except Exception as error:  # noqa: BLE001 - one job must not stop the sweep, which names it
                    swept.left[keys.job_id] = str(error)
    return swept


async def drop_tombstones(engine: Engine, older_than_seconds: float) -> int:
    """Drop the tombstones of jobs that were deleted that long ago, and return how many; StoreUnavailableError.

    From then on such a job was never there: its id may be given to another one. ConfigurationError.
    """
    check_age("older_than_seconds", older_than_seconds)
    dropped = 0
    for tag in engine.keys.tags:
        until_ms = ((await _now(engine, tag)).timestamp() - older_than_seconds) * 1000
        async for page in engine.nodes.scan_members("HSCAN", gone_key(tag)):
            old = [job_id for job_id, text in zip(page[::2], page[1::2], strict=True) if _is_before(text, until_ms)]
            if old:
                dropped += await engine.nodes.read("HDEL", gone_key(tag), *old)
    return dropped


def _is_before(text: str, until_ms: float) -> bool:
    """Return whether a tombstone was made before that; one that can't be read stays."""
    try:
        return Tombstone.parse("", text).deleted_ms < until_ms
    except StoreFormatError:
        return False


async def _old_jobs(engine: Engine, tag: str, until: datetime) -> AsyncIterator[Sequence[str]]:
    """Yield the jobs of a partition that ended by then, a page at a time, by their places, which no deletion moves."""
    after, last = "-", f"[{sort_key(until)}:\U0010ffff"
    while True:
        command = ("ZRANGEBYLEX", ended_key(tag), after, last, "LIMIT", 0, PAGE_JOBS)
        [reply] = await engine.nodes.read_many([command])
        members = [] if reply is WRONG_TYPE else as_texts(reply)
        if members:
            yield [member_job_id(member) for member in members]
            after = f"({members[-1]}"
        if len(members) < PAGE_JOBS:
            return


async def _now(engine: Engine, tag: str) -> datetime:
    """Return the time of the server that has a partition."""
    _, time = await engine.nodes.node_of(tag).read_many([("EXISTS", ended_key(tag)), ("TIME",)])
    return datetime.fromtimestamp(int(time[0]) + int(time[1]) / 1_000_000, UTC)
