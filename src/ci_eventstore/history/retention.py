"""Delete jobs that have ended, as rules say, which the store may keep: a sweep finds them by their ends.

A sweep keeps nothing of itself: a job that it has deleted isn't found again, and one that it couldn't delete is named,
and found by the next one. So it may be stopped anywhere, and several may run.
"""

from bisect import insort
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from ci_eventstore.connection.absence import go_through, is_absence, numbers_of
from ci_eventstore.connection.nodes import time_ms
from ci_eventstore.connection.replies import WRONG_TYPE, as_text, as_texts
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.engine import Engine
from ci_eventstore.errors import ArchiveUnavailableError, OutcomeUnknownError, StoreFormatError, StoreUnavailableError
from ci_eventstore.history.rules import Rule, Selection, check_age, read_rules, write_rules
from ci_eventstore.jobs.delete import delete_job
from ci_eventstore.jobs.records import Record, read_records
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Reason, Tombstone, forget_deletion
from ci_eventstore.keys import ended_key, gone_key
from ci_eventstore.members import member_job_id, sort_key
from ci_eventstore.tasks import together

PAGE_JOBS = 100
#: Jobs of a page that are deleted at the same time.
TOGETHER = 8
#: For how long tombstones are kept, unless a setting says otherwise.
TOMBSTONE_DAYS = 400
#: Of the store's hash.
RULES_FIELD = "retention"


@dataclass(slots=True)
class Swept:
    """What a sweep has done, or would do."""

    #: Those that were deleted, or would be.
    deleted: list[str] = field(default_factory=list)
    #: Those that couldn't be, and why.
    left: dict[str, str] = field(default_factory=dict)
    #: The numbers of the partitions that were away: their jobs stay.
    unavailable: tuple[int, ...] = ()


async def sweep(engine: Engine, rules: Sequence[Rule], *, is_dry_run: bool = False) -> Swept:
    """Delete what the rules take, or only say what that is; partitions that are away are left out, unless all are.

    StoreUnavailableError, OutcomeUnknownError, ArchiveUnavailableError.
    """
    swept = Swept()
    selection = await _select(engine, rules, swept)

    async def sweep_partition(tag: str) -> None:
        now = await _now(engine, tag)
        async for job_ids in _ended_jobs(engine, tag, _last_member(selection, now)):
            records = await _records(engine, job_ids)
            for start in range(0, len(records), TOGETHER):
                some = records[start : start + TOGETHER]
                deleting = (
                    _delete(engine, job_id, record, partial(selection.takes, job_id, now=now), swept, is_dry_run)
                    for job_id, record in some
                )
                found = await together(deleting)
                swept.deleted += [job_id for (job_id, _), is_deleted in zip(some, found, strict=True) if is_deleted]

    swept.unavailable = numbers_of(await go_through(engine.nodes, engine.keys.tags, sweep_partition))
    return swept


async def _delete(
    engine: Engine, job_id: str, record: Record, takes: Callable[[JobState], bool], swept: Swept, is_dry_run: bool
) -> bool:
    """Tell whether a job was deleted, or would be; its own error is noted, the store's is raised."""
    try:
        if isinstance(record, StoreFormatError):
            raise record
        if record is None or not takes(record):
            return False
        # A job that was written to or kept since is looked at again.
        source, keys = engine.reader.source, engine.keys.job(job_id)
        return is_dry_run or await delete_job(engine.nodes, source, keys, Reason.RETENTION, takes=takes)
    except (StoreUnavailableError, OutcomeUnknownError, ArchiveUnavailableError):
        raise
    except Exception as error:  # noqa: BLE001 - one job must not stop the sweep, which names it
        swept.left[job_id] = str(error)
        return False


async def _select(engine: Engine, rules: Sequence[Rule], swept: Swept) -> Selection:
    """Return what the rules take, by the sizes of all jobs, the newest first, as far as they ask for sizes.

    A job is judged by those that ended after it, so a sweep that deletes older ones meanwhile changes nothing. One that
    can't be read isn't counted, but named.
    """
    selection = Selection(rules)
    if selection.needs_more():
        async for job_ids in _newest_jobs(engine):
            for job_id, record in await _records(engine, job_ids):
                try:
                    if isinstance(record, StoreFormatError):
                        raise record
                    if record is not None:
                        selection.add(job_id, record)
                except StoreFormatError as error:
                    swept.left[job_id] = str(error)
            if not selection.needs_more():
                break
    return selection


async def _records(engine: Engine, job_ids: Sequence[str]) -> list[tuple[str, Record]]:
    jobs = [engine.keys.job(job_id) for job_id in job_ids]
    return list(zip(job_ids, await read_records(engine.nodes, engine.reader.source, jobs), strict=True))


def _last_member(selection: Selection, now: datetime) -> str:
    """Return the last member of the ended that a job may have that is taken; "" if there is none. Pure."""
    ages = [rule.older_than_seconds for rule in selection.rules if rule.older_than_seconds is not None]
    by_age = [f"{sort_key(now - timedelta(seconds=min(ages)))}:\U0010ffff"] if ages else []
    return max([*by_age, *selection.cuts.values()], default="")


async def rules_in_force(engine: Engine) -> list[Rule]:
    """Return the rules that the store keeps, none if it has none; ConfigurationError, StoreUnavailableError."""
    [text] = await engine.nodes.read("HMGET", engine.keys.store, RULES_FIELD)
    return [] if text is None else read_rules(as_text(text), "the rules in the store", is_json=True)


async def keep_rules(engine: Engine, rules: Sequence[Rule]) -> None:
    """Have the store keep these rules instead of those that it has, none at all if there are none."""
    if rules:
        await engine.nodes.read("HSET", engine.keys.store, RULES_FIELD, write_rules(rules))
    else:
        await engine.nodes.read("HDEL", engine.keys.store, RULES_FIELD)


async def drop_tombstones(engine: Engine, older_than_seconds: float) -> int:
    """Drop the tombstones of jobs that were deleted that long ago, and return how many; StoreUnavailableError.

    From then on such a job was never there: its id may be given to another one. What the archive has of it goes first.
    Partitions that are away are left out, unless all are. ConfigurationError, ArchiveUnavailableError.
    """
    check_age("older than", older_than_seconds)
    dropped = 0

    async def drop_in(tag: str) -> None:
        nonlocal dropped
        archive = await engine.reader.source.sealed.archived.archive(tag)
        until_ms = ((await _now(engine, tag)).timestamp() - older_than_seconds) * 1000
        async for page in engine.nodes.scan_members("HSCAN", gone_key(tag)):
            found = {job_id: _tombstone(text) for job_id, text in zip(page[::2], page[1::2], strict=True)}
            old = {job_id: one for job_id, one in found.items() if one is not None and one.deleted_ms < until_ms}
            if archive is not None:
                for job_id, tombstone in old.items():
                    await forget_deletion(archive, engine.keys.job(job_id), tombstone)
            if old:
                dropped += await engine.nodes.read("HDEL", gone_key(tag), *old)

    await go_through(engine.nodes, engine.keys.tags, drop_in)
    return dropped


def _tombstone(text: str) -> Tombstone | None:
    """Return what a tombstone says; one that can't be read stays."""
    try:
        return Tombstone.parse("", text)
    except StoreFormatError:
        return None


async def _ended_jobs(engine: Engine, tag: str, last: str) -> AsyncIterator[Sequence[str]]:
    """Yield the jobs of a partition that ended up to then, a page at a time, by members, which no deletion moves."""
    after = "-"
    while last:
        command = ("ZRANGEBYLEX", ended_key(tag), after, f"[{last}", "LIMIT", 0, PAGE_JOBS)
        [reply] = await engine.nodes.read_many([command])
        members = [] if reply is WRONG_TYPE else as_texts(reply)
        if members:
            yield [member_job_id(member) for member in members]
            after = f"({members[-1]}"
        if len(members) < PAGE_JOBS:
            return


async def _newest_jobs(engine: Engine) -> AsyncIterator[Sequence[str]]:
    """Yield the jobs of all partitions that have ended, the newest first, a page at a time.

    Those of partitions that are away are missing: then the others have fewer bytes, and fewer jobs go.
    """
    walks = [_newest_members(engine, tag) for tag in engine.keys.tags]

    async def next_of(number: int) -> str:
        try:
            with in_a_hurry() if engine.nodes.is_divided else nullcontext():
                return await anext(walks[number], "")
        except StoreUnavailableError as error:
            if not engine.nodes.is_divided or not is_absence(error):
                raise
            return ""

    heads = sorted([(member, number) for number in range(len(walks)) if (member := await next_of(number))])
    page: list[str] = []
    while heads:
        member, number = heads.pop()
        page.append(member_job_id(member))
        if following := await next_of(number):
            insort(heads, (following, number))
        if len(page) == PAGE_JOBS or not heads:
            yield page
            page = []


async def _newest_members(engine: Engine, tag: str) -> AsyncIterator[str]:
    start = "+"
    while True:
        command = ("ZREVRANGEBYLEX", ended_key(tag), start, "-", "LIMIT", 0, PAGE_JOBS)
        [reply] = await engine.nodes.read_many([command])
        members = [] if reply is WRONG_TYPE else as_texts(reply)
        for member in members:
            yield member
        if len(members) < PAGE_JOBS:
            return
        start = f"({members[-1]}"


async def _now(engine: Engine, tag: str) -> datetime:
    """Return the time of the server that has a partition."""
    return datetime.fromtimestamp(await time_ms(engine.nodes, tag) / 1000, UTC)
