"""What every repository refuses: ids that can't be ids, positions that can't be positions."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ci_common.errors import (
    InvalidArgumentError,
    InvalidEventError,
    InvalidIdError,
    InvalidInputError,
    InvalidPositionError,
    NotFoundError,
    RepositoryError,
    UnknownStatusError,
)
from ci_common.models import JobEvent
from ci_common.repository import JobRepository
from ci_common.testing.samples import NOON, complete, create, fetch, lines, log, new_job, new_key, new_user, texts

BAD_IDS: dict[str, Any] = {
    "empty": "",
    "too long": "x" * 257,
    "opening brace": "a{b",
    "closing brace": "a}b",
    "newline": "a\n",
    "NUL": "\x00",
    "escape": "\x1b[31m",
    "line separator": "a\u2028b",
    "lone surrogate": "\ud800",
    "escaped byte": "a\udcff",
    "number": 7,
    "bytes": b"job",
}

GOOD_IDS = [
    "x",
    "x" * 256,
    "é" * 256,
    "a b",
    "a:b",
    "*",
    "[a-z]?",
    "..",
    "-1",
    "0",
    "Ünïcode-漢字🚒",
    "a/b\\c",
    "%00",
    "None",
]

BAD_POSITIONS: dict[str, Any] = {
    "negative": -1,
    "far negative": -(2**64),
    "fraction": 1.0,
    "text": "1",
    "truth value": True,
    "none": None,
}

Call = Callable[[JobRepository, Any], Awaitable[object]]

#: Every method that takes an id, with a bad one and nothing else wrong.
CALLS: dict[str, Call] = {
    "create_user": lambda repository, bad: repository.create_user(new_user(id=bad)),
    "create_user, email": lambda repository, bad: repository.create_user(new_user(email=bad)),
    "get_user": lambda repository, bad: repository.get_user(bad),
    "update_user_active": lambda repository, bad: repository.update_user_active(bad, True),
    "create_api_key": lambda repository, bad: repository.create_api_key(new_key(new_user(id="ada"), id=bad)),
    "create_api_key, user": lambda repository, bad: repository.create_api_key(new_key(new_user(id=bad))),
    "create_api_key, hash": lambda repository, bad: repository.create_api_key(
        new_key(new_user(id="ada"), key_hash=bad)
    ),
    "list_api_keys": lambda repository, bad: repository.list_api_keys(bad),
    "revoke_api_key": lambda repository, bad: repository.revoke_api_key(bad),
    "update_api_key_last_used": lambda repository, bad: repository.update_api_key_last_used(bad, NOON),
    "create_job": lambda repository, bad: repository.create_job(new_job(id=bad)),
    "create_job, user": lambda repository, bad: repository.create_job(new_job(user_id=bad)),
    "create_job, queue": lambda repository, bad: repository.create_job(new_job(queue=bad)),
    "get_job": lambda repository, bad: repository.get_job(bad),
    "get_job, user": lambda repository, bad: repository.get_job("job", bad),
    "list_jobs": lambda repository, bad: repository.list_jobs(bad),
    "get_job_summary": lambda repository, bad: repository.get_job_summary(bad),
    "get_job_summary, user": lambda repository, bad: repository.get_job_summary("job", bad),
    "page_jobs": lambda repository, bad: repository.page_jobs(bad),
    "page_jobs, before": lambda repository, bad: repository.page_jobs(before=bad),
    "update_job_status": lambda repository, bad: repository.update_job_status(bad, "running"),
    "complete_job": lambda repository, bad: repository.complete_job(bad, True, NOON),
    "cancel_job": lambda repository, bad: repository.cancel_job(bad),
    "cancel_job, user": lambda repository, bad: repository.cancel_job("job", user_id=bad),
    "add_event": lambda repository, bad: repository.add_event(bad, log()),
    "add_events": lambda repository, bad: repository.add_events(bad, [log()]),
    "add_events, none": lambda repository, bad: repository.add_events(bad, []),
    "get_events_since": lambda repository, bad: repository.get_events_since(bad, 0),
    "get_events_since, user": lambda repository, bad: repository.get_events_since("job", 0, bad),
    "read_events": lambda repository, bad: repository.read_events(bad),
    "read_events, user": lambda repository, bad: repository.read_events("job", user_id=bad),
    "follow_events": lambda repository, bad: anext(repository.follow_events(bad)),
    "follow_events, user": lambda repository, bad: anext(repository.follow_events("job", user_id=bad)),
}

READS: dict[str, Call] = {
    "get_events_since": lambda repository, bad: repository.get_events_since("job", bad),
    "read_events": lambda repository, bad: repository.read_events("job", after=bad),
    "follow_events": lambda repository, bad: anext(repository.follow_events("job", bad)),
}

#: Calls about a missing job, with an argument that is wrong in itself.
WRONG_IN_THEMSELVES: dict[str, tuple[Call, type[InvalidInputError]]] = {
    "status": (lambda repository, job_id: repository.update_job_status(job_id, "done"), UnknownStatusError),
    "event": (lambda repository, job_id: repository.add_event(job_id, JobEvent("progress")), InvalidEventError),
    "events": (lambda repository, job_id: repository.add_events(job_id, [JobEvent("complete")]), InvalidEventError),
    "position": (lambda repository, job_id: repository.get_events_since(job_id, -1), InvalidPositionError),
}


#: Arguments of a type that can't be, or out of range; each by what its error names. The job `job` runs.
WRONG_TYPES: dict[str, list[Call]] = {
    "create_user": [
        lambda repository, bad: repository.create_user(bad),
        lambda repository, bad: repository.create_user(new_user(name=bad)),
        lambda repository, bad: repository.create_user(new_user(is_active=bad)),
        lambda repository, bad: repository.create_user(new_user(created_at=bad)),
    ],
    "update_user_active": [lambda repository, bad: repository.update_user_active("ada", bad)],
    "get_user_by_email": [lambda repository, bad: repository.get_user_by_email(bad)],
    "get_api_key_by_hash": [lambda repository, bad: repository.get_api_key_by_hash(bad)],
    "create_api_key": [
        lambda repository, bad: repository.create_api_key(bad),
        lambda repository, bad: repository.create_api_key(new_key(new_user(id="ada"), name=bad)),
        lambda repository, bad: repository.create_api_key(new_key(new_user(id="ada"), is_active=bad)),
        lambda repository, bad: repository.create_api_key(new_key(new_user(id="ada"), created_at=bad)),
    ],
    "update_api_key_last_used": [lambda repository, bad: repository.update_api_key_last_used("key", bad)],
    "create_job": [
        lambda repository, bad: repository.create_job(bad),
        lambda repository, bad: repository.create_job(new_job(status=bad)),
        lambda repository, bad: repository.create_job(new_job(name=bad)),
        lambda repository, bad: repository.create_job(new_job(container_id=bad)),
        lambda repository, bad: repository.create_job(new_job(zip_file_path=bad)),
        lambda repository, bad: repository.create_job(new_job(command=bad)),
        lambda repository, bad: repository.create_job(new_job(command=[bad])),
        lambda repository, bad: repository.create_job(new_job(events=bad)),
        lambda repository, bad: repository.create_job(new_job(events=[bad])),
        lambda repository, bad: repository.create_job(new_job(created_at=bad)),
        lambda repository, bad: repository.create_job(new_job(start_time=bad)),
        lambda repository, bad: repository.create_job(new_job(status="completed", end_time=bad)),
        lambda repository, bad: repository.create_job(new_job(status="completed", success=bad)),
        lambda repository, bad: repository.create_job(new_job(status="completed", success=False, exit_code=bad)),
        lambda repository, bad: repository.create_job(new_job(status="completed", success=False, signal=bad)),
    ],
    "page_jobs": [
        lambda repository, bad: repository.page_jobs(status=bad),
        lambda repository, bad: repository.page_jobs(limit=bad),
    ],
    "read_events": [lambda repository, bad: repository.read_events("job", limit=bad)],
    "update_job_status": [
        lambda repository, bad: repository.update_job_status("job", bad),
        lambda repository, bad: repository.update_job_status("job", "running", start_time=bad),
        lambda repository, bad: repository.update_job_status("job", "running", container_id=bad),
    ],
    "complete_job": [
        lambda repository, bad: repository.complete_job("job", bad, NOON),
        lambda repository, bad: repository.complete_job("job", True, bad),
    ],
    "cancel_job": [lambda repository, bad: repository.cancel_job("job", bad)],
    "add_event": [
        lambda repository, bad: repository.add_event("job", bad),
        lambda repository, bad: repository.add_event("job", JobEvent(bad)),
        lambda repository, bad: repository.add_event("job", JobEvent("log", bad)),
        lambda repository, bad: repository.add_event("job", JobEvent("log", "x", timestamp=bad)),
        lambda repository, bad: repository.add_event("job", JobEvent("complete", success=bad)),
        lambda repository, bad: repository.add_event("job", JobEvent("complete", success=True, outcome=bad)),
    ],
    "add_events": [
        lambda repository, bad: repository.add_events("job", bad),
        lambda repository, bad: repository.add_events("job", [log(), bad]),
    ],
}
#: None of these is what any of those arguments takes.
WRONG_VALUES: list[Any] = [5.5, object(), {"a": 1}]


class BadInputContract:
    """Bad input: one clear error each, nothing written."""

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_bad_id_is_refused(self, repository: JobRepository, call: Call) -> None:
        """Every method that takes an id says what is wrong with it, and nothing is written."""
        user = new_user(id="ada")
        await repository.create_user(user)
        job_id = await create(repository, *lines(1), id="job", user_id="ada")
        before = await fetch(repository, job_id)
        for bad in BAD_IDS.values():
            with pytest.raises(InvalidIdError) as caught:
                await call(repository, bad)
            assert caught.value.value == bad
            assert repr(bad) in str(caught.value)
        assert await repository.list_users() == [user]
        assert await repository.list_api_keys() == []
        assert [job.id for job in await repository.list_jobs()] == [job_id]
        assert await fetch(repository, job_id) == before

    @pytest.mark.parametrize("good", GOOD_IDS, ids=lambda good: good[:10])
    async def test_an_unusual_id_is_an_id(self, repository: JobRepository, good: str) -> None:
        """What is printable and short enough names a user, a key and a job; nothing in it has a meaning."""
        user = new_user(id=good)
        await repository.create_user(user)
        key = new_key(user, id=good)
        await repository.create_api_key(key)
        await create(repository, *lines(1), id=good, user_id=good, queue=good)
        await create(repository, id=good[:-1] + "#")
        await repository.add_event(good, log("more\n"))
        assert await repository.get_user(good) == user
        assert await repository.list_api_keys(good) == [key]
        assert [job.id for job in await repository.list_jobs(good)] == [good]
        assert await texts(repository, good) == ["line 1\n", "more\n"]
        assert (await fetch(repository, good)).queue == good

    @pytest.mark.parametrize("read", READS.values(), ids=READS)
    async def test_a_bad_position_is_refused(self, repository: JobRepository, read: Call) -> None:
        """An id of an event is a whole number from 0 on."""
        await create(repository, *lines(2), id="job")
        for bad in BAD_POSITIONS.values():
            with pytest.raises(InvalidPositionError) as caught:
                await read(repository, bad)
            assert caught.value.value is bad

    @pytest.mark.parametrize(("call", "error"), WRONG_IN_THEMSELVES.values(), ids=WRONG_IN_THEMSELVES)
    async def test_arguments_are_checked_first(
        self, repository: JobRepository, call: Call, error: type[InvalidInputError]
    ) -> None:
        """A call that is wrong in itself says so, though its job is missing too."""
        with pytest.raises(error):
            await call(repository, "none")

    @pytest.mark.parametrize("field", ["name", "container_id", "zip_file_path", "command"])
    async def test_other_text_is_unicode(self, repository: JobRepository, field: str) -> None:
        """Text that can't be written as UTF-8 is refused, and no job is created."""
        value = ["echo", "\ud800"] if field == "command" else "\ud800"
        with pytest.raises(InvalidInputError):
            await repository.create_job(new_job(**{field: value}))
        assert await repository.list_jobs() == []

    async def test_other_text_of_changes_and_accounts_is_unicode(self, repository: JobRepository) -> None:
        """The same goes for a container that is named later, and for names."""
        user = new_user()
        await repository.create_user(user)
        job_id = await create(repository)
        before = await fetch(repository, job_id)
        for call in (
            repository.update_job_status(job_id, "running", container_id="\ud800"),
            repository.create_user(new_user(name="\ud800")),
            repository.create_api_key(new_key(user, name="\ud800")),
        ):
            with pytest.raises(InvalidInputError):
                await call
        assert await fetch(repository, job_id) == before
        assert await repository.list_users() == [user]
        assert await repository.list_api_keys() == []

    @pytest.mark.parametrize("calls", WRONG_TYPES.values(), ids=WRONG_TYPES)
    async def test_an_argument_of_another_type_is_refused(self, repository: JobRepository, calls: list[Call]) -> None:
        """Whatever is given in place of an argument, one clear error says what is wrong with it; nothing changes."""
        user = new_user(id="ada")
        await repository.create_user(user)
        job_id = await create(repository, *lines(1), id="job", user_id="ada")
        before = await fetch(repository, job_id)
        for call in calls:
            for bad in WRONG_VALUES:
                with pytest.raises(InvalidInputError) as caught:
                    await call(repository, bad)
                assert repr(bad) in str(caught.value) or type(bad).__name__ in str(caught.value)
        assert await repository.list_users() == [user]
        assert await repository.list_api_keys() == []
        assert [job.id for job in await repository.list_jobs()] == [job_id]
        assert await fetch(repository, job_id) == before

    async def test_a_text_is_no_list(self, repository: JobRepository) -> None:
        """A command that is one text isn't taken for a list of letters, nor are single events for several."""
        job_id = await create(repository)
        for bad in ("make test", b"make test"):
            with pytest.raises(InvalidArgumentError, match=r"command=.* must be a list of texts"):
                new_job(command=bad)
        for events in ("ab", log()):
            with pytest.raises(InvalidInputError):
                await repository.add_events(job_id, events)  # type: ignore[arg-type]
        for limit in (True, "5", None, 1.0):
            with pytest.raises(InvalidArgumentError, match="limit="):
                await repository.page_jobs(limit=limit)  # type: ignore[arg-type]
        assert (await fetch(repository, job_id)).events == []

    async def test_errors_have_one_root(self, repository: JobRepository) -> None:
        """Whoever catches RepositoryError catches them all; bad arguments are ValueErrors too."""
        job_id = await create(repository, complete(True), status="completed")
        for call in (
            repository.get_events_since("none", 0),
            repository.get_job(""),
            repository.update_job_status(job_id, "running"),
            repository.complete_job(job_id, False, NOON),
            repository.create_job(new_job(id=job_id)),
            repository.add_event(job_id, JobEvent("progress")),
        ):
            with pytest.raises(RepositoryError):
                await call
        with pytest.raises(ValueError, match="empty"):
            await repository.get_job("")
        with pytest.raises(NotFoundError):
            await repository.revoke_api_key("none")
