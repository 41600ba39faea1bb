"""Random commands for a repository, and what of their outcome can be compared."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from ci_common import APIKey, Job, JobEvent, JobRepository, JobStatus, User
from ci_common.errors import RepositoryError
from ci_common.models import utc_now

#: Those that every example begins with, and those that are created in its course.
FIRST_JOB_IDS = ["job", "jób:2"]
LATER_JOB_IDS = ["a", "b", "c", "d"]
USER_IDS = ["ada", "bob"]
KEY_IDS = ["k1", "k2", "k3"]
BAD_IDS = ["", "{", "a\nb", "x" * 300, "\udcff"]

#: Far from now, so that a time that was taken from the clock can be told from a given one.
times = st.datetimes(
    min_value=datetime(1990, 1, 1),
    max_value=datetime(2020, 1, 1),
    timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]),
)
#: Few, so that jobs often have the same one.
creation_times = st.sampled_from([datetime(2001, 1, 1), datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 2, 2, 2)])
statuses = st.sampled_from([*JobStatus])
data = st.one_of(
    st.sampled_from([None, "", "line\n", "\r", "\x00", "\x1b[1m", "\udcff\udcfe", "é🚒"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
logs = st.builds(JobEvent, st.just("log"), data, st.sampled_from([None, None, True]), st.none() | times)
completions = st.builds(JobEvent, st.just("complete"), st.none() | data, st.booleans(), st.none() | times)
bad_events = st.sampled_from([JobEvent("progress"), JobEvent("complete"), JobEvent("log", "\ud800"), JobEvent("")])
events = st.one_of(logs, logs, logs, completions)
event_lists = st.lists(events, max_size=5)
job_ids = st.sampled_from([*FIRST_JOB_IDS * 3, *LATER_JOB_IDS])
new_job_ids = st.sampled_from([*LATER_JOB_IDS * 2, *FIRST_JOB_IDS])
user_ids = st.sampled_from(USER_IDS)
some_user = st.none() | user_ids
positions = st.integers(0, 12)
limits = st.integers(-1, 6)
emails = st.sampled_from(["ada@x.org", "ADA@x.org", "bob@x.org", "straße@x.org", "STRASSE@x.org"])
key_ids = st.sampled_from(KEY_IDS)
hashes = st.sampled_from(["h1", "h2", "h3"])

users = st.builds(
    User,
    id=user_ids,
    name=st.text("aé🚒", max_size=3),
    email=emails,
    created_at=creation_times,
    is_active=st.booleans(),
)
keys = st.builds(
    APIKey,
    id=key_ids,
    user_id=user_ids,
    name=st.none() | st.just("laptop"),
    key_hash=hashes,
    created_at=creation_times,
    last_used_at=st.none() | times,
    is_active=st.booleans(),
)


def _optional_fields(success: st.SearchStrategy[bool | None]) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "user_id": some_user,
        "success": success,
        "start_time": st.none() | times,
        "container_id": st.none() | st.just("c1"),
        "zip_file_path": st.none() | st.just("/tmp/a.zip"),
        "created_at": creation_times,
        "name": st.none() | st.just("nightly"),
        "queue": st.sampled_from(["default", "big"]),
        "command": st.none() | st.just(["make", ""]),
    }


living_jobs = st.builds(
    Job,
    id=new_job_ids,
    status=st.sampled_from(["queued", "running"]),
    events=st.lists(logs, max_size=3),
    **_optional_fields(st.none()),
)
#: Some of them contradict themselves.
ended_jobs = st.builds(
    Job,
    id=new_job_ids,
    status=st.sampled_from(["completed", "failed", "cancelled"]),
    events=event_lists,
    end_time=st.none() | times,
    **_optional_fields(st.none() | st.booleans()),
)
first_jobs = st.tuples(
    *(
        st.builds(
            Job,
            id=st.just(job_id),
            user_id=some_user,
            status=st.sampled_from(["queued", "queued", "running", "running", "completed", "failed"]),
            created_at=creation_times,
        )
        for job_id in FIRST_JOB_IDS
    )
)
odd_jobs = st.builds(Job, id=new_job_ids, status=statuses, events=st.lists(events | bad_events, max_size=3))
jobs = st.one_of(living_jobs, living_jobs, ended_jobs, odd_jobs)

#: A call with its arguments drawn, ready for any repository.
Command = Callable[[JobRepository], Coroutine[Any, Any, object]]


@dataclass(frozen=True)
class Call:
    """A command that can be read in the report of a failure."""

    method: str
    arguments: tuple[Any, ...]

    def __call__(self, repository: JobRepository) -> Coroutine[Any, Any, object]:
        """Call the method."""
        result: Coroutine[Any, Any, object] = getattr(repository, self.method)(*self.arguments)
        return result


def _call(method: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Command]:
    """Draw a call of one method."""
    return st.tuples(*arguments).map(lambda values: Call(method, values))


_bad_ids = st.sampled_from(BAD_IDS)
_impossible = st.sampled_from([datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "yesterday"])

account_commands = st.one_of(
    _call("create_user", users),
    _call("update_user_active", user_ids, st.booleans()),
    _call("create_api_key", keys),
    _call("create_api_key", keys),
    _call("revoke_api_key", key_ids),
    _call("update_api_key_last_used", key_ids, times),
)
bad_commands = st.one_of(
    _call("create_user", st.builds(replace, users, id=_bad_ids)),
    _call("create_user", st.builds(replace, users, email=_bad_ids)),
    _call("create_api_key", st.builds(replace, keys, id=_bad_ids)),
    _call("create_job", st.builds(replace, living_jobs, queue=_bad_ids)),
    _call("create_job", st.builds(replace, living_jobs, start_time=_impossible)),
    _call("get_job", job_ids, _bad_ids),
    _call("list_jobs", _bad_ids),
    _call("list_api_keys", _bad_ids),
    _call("revoke_api_key", _bad_ids),
    _call("add_events", _bad_ids, st.just([])),
    _call("get_events_since", job_ids, st.sampled_from([-1, True, 1.0])),
    _call("update_job_status", job_ids, st.just("done")),
    _call("update_job_status", job_ids, statuses, _impossible),
    _call("complete_job", job_ids, st.booleans(), st.none() | _impossible),
    _call("complete_job", job_ids, st.just(1), times),
    _call("update_api_key_last_used", key_ids, _impossible),
)


@dataclass(frozen=True)
class Outcome:
    """What a call gave: a value, or the kind of an error and what it is about."""

    value: object = None
    error: str | None = None


async def observe(repository: JobRepository, command: Command) -> Outcome:
    """Run a command; errors that aren't the contract's fly."""
    try:
        return Outcome(value=comparable(await command(repository)))
    except RepositoryError as error:
        return Outcome(value=comparable(vars(error)), error=contract_name(error))


def contract_name(error: RepositoryError) -> str:
    """Return which error of the contract this is: a repository may raise a kind of its own."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "ci_common.errors")


def comparable(value: object) -> object:
    """Return a value that is equal for what counts as equal: times taken from the clock are all the same `now`."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return "now" if abs(aware - utc_now()) < timedelta(hours=1) else (value, value.tzinfo is None)
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, [(field.name, comparable(getattr(value, field.name))) for field in fields(value)])
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items()}
    return value


async def everything(repository: JobRepository) -> list[object]:
    """Return all that a repository shows of its state."""
    listed = await repository.list_jobs()
    return [
        await repository.list_users(),
        [await repository.get_user_by_email(email) for email in ("ADA@X.ORG", "bob@x.org", "Straße@x.org")],
        await repository.list_api_keys(),
        [await repository.get_api_key_by_hash(key_hash) for key_hash in ("h1", "h2", "h3")],
        listed,
        [await repository.list_jobs(user_id) for user_id in USER_IDS],
        [await repository.page_jobs(status=status) for status in JobStatus],
        [await repository.get_job(job.id) for job in listed],
        [await repository.get_events_since(job.id, 0) for job in listed],
    ]


async def follow_what_is_there(repository: JobRepository, job_id: str, after: int) -> list[JobEvent]:
    """Follow an ended job to its end, any other one as far as its events go."""
    job = await repository.get_job(job_id)
    count = len(job.events) - after if job and job.status in ("queued", "running") else None
    seen: list[JobEvent] = []
    if count is not None and count <= 0:
        return seen
    async with asyncio.timeout(30), aclosing(repository.follow_events(job_id, after)) as following:
        async for event in following:
            seen.append(event)
            if len(seen) == count:
                break
    return seen
