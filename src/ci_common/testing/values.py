"""What every repository keeps of texts and times: text byte for byte; aware times stay aware, naive ones naive."""

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ci_common.errors import InvalidTimeError
from ci_common.models import JobEvent
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, complete, create, fetch, log, new_job, new_key, new_user, texts


def noise(size: int) -> str:
    """Return text that can't be compressed much, the same every time."""
    return random.Random(size).randbytes(size // 2).hex()


def undecodable(raw: bytes) -> str:
    """Return bytes as text the way that a log writer decodes them."""
    return raw.decode("utf-8", "surrogateescape")


TEXTS: dict[str, str] = {
    "empty": "",
    "newline": "\n",
    "no newline": "unfinished",
    "several lines": "one\ntwo\n\nfour",
    "carriage returns": "10 %\r50 %\r100 %\r\n",
    "ANSI colours": "\x1b[1;31mFAILED\x1b[0m \x1b]0;title\x07 \x1b[2K\n",
    "NUL": "a\x00b\x00",
    "all control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "spaces": "  \t  ",
    "every plane": "é ß Ж 漢字 🚒 \U0010ffff \ufffd\ufeff\u2028\u0085",
    "composed and decomposed": "e\u0301 é",
    "right to left": "\u202eabc\u202c שלום",
    "looks like JSON": '{"type": "complete", "success": true}',
    "looks like None": "None",
    "looks like a number": "1e5",
    "looks like a command": "*1\r\n$4\r\nPING\r\n",
    "invalid UTF-8": undecodable(b"caf\xe9 \xff\xfe \xed\xa0\x80 \xf0\x9f\x9a ok\n"),
    "every byte": undecodable(bytes(range(256))),
    "half a character": undecodable("🚒".encode()[:2]),
    "a line of 64 KiB": "x" * 65_535 + "\n",
    "a line of 64 KiB that doesn't compress": noise(65_535) + "\n",
    "a line of 64 KiB of invalid UTF-8": undecodable(b"\xff" * 65_536),
}


class TextContract:
    """Text of any kind and size comes back as given."""

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_text_comes_back_as_given(self, repository: JobRepository, text: str) -> None:
        """However it was appended and however it is read, as a line or beside a result."""
        job_id = await create(repository, log(text))
        await repository.add_event(job_id, log(text))
        await repository.add_events(job_id, [log(text), complete(True, data=text)])
        assert await texts(repository, job_id) == [text] * 4
        assert [event.data for event in (await fetch(repository, job_id)).events] == [text] * 4
        assert [event.data for event in await repository.read_events(job_id, after=2)] == [text] * 2

    async def test_empty_is_not_missing(self, repository: JobRepository) -> None:
        """Empty data and no data are told apart."""
        job_id = await create(repository)
        await repository.add_events(job_id, [log(""), log(None)])
        assert await texts(repository, job_id) == ["", None]

    async def test_escaped_bytes_have_one_spelling(self, repository: JobRepository) -> None:
        """Escaped bytes that together are a character come back as that character: the bytes are the same."""
        job_id = await create(repository)
        split = undecodable("é".encode()[:1]) + undecodable("é".encode()[1:])
        await repository.add_event(job_id, log(split))
        assert await texts(repository, job_id) == ["é"]

    @pytest.mark.parametrize("text", ["x" * 9_999_999 + "\n", noise(9_999_998) + "\n"], ids=["even", "noise"])
    async def test_a_line_of_ten_megabytes(self, repository: JobRepository, text: str) -> None:
        """One event may be as big, and the lines around it are in their place."""
        job_id = await create(repository)
        await repository.add_event(job_id, log("before\n"))
        await repository.add_event(job_id, log(text))
        await repository.add_event(job_id, log("after\n"))
        stored = await texts(repository, job_id)
        assert [len(each or "") for each in stored] == [7, len(text), 6]
        assert stored == ["before\n", text, "after\n"]

    async def test_many_long_lines(self, repository: JobRepository) -> None:
        """A hundred lines of 64 KiB in one call come back in order, whole and by pages."""
        job_id = await create(repository)
        events = [log(f"{number} {'x' * 65_000}\n", timestamp=at(number)) for number in range(100)]
        await repository.add_events(job_id, events)
        assert await repository.get_events_since(job_id, 0) == events
        seen: list[JobEvent] = []
        while page := await repository.read_events(job_id, after=len(seen), limit=30):
            seen += page
        assert seen == events

    async def test_a_reason_may_be_any_text(self, repository: JobRepository) -> None:
        """The reason for cancelling a job is kept as it is."""
        job_id = await create(repository)
        await repository.cancel_job(job_id, "\x1b[31mжди\x00\n\udcff")
        assert (await texts(repository, job_id))[0] == "[cancelled: \x1b[31mжди\x00\n\udcff]\n"


FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)

TIMES: dict[str, datetime] = {
    "UTC": datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
    "microseconds": datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=UTC),
    "all but one microsecond": datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC),
    "east of UTC": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "west of UTC": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=-11))),
    "offset with seconds": datetime(1890, 1, 1, tzinfo=timezone(timedelta(minutes=53, seconds=28))),
    "naive": datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC).replace(tzinfo=None),
    "naive, before 1970": datetime(1950, 1, 1, tzinfo=UTC).replace(tzinfo=None),
    "the epoch": datetime(1970, 1, 1, tzinfo=UTC),
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "the first": FIRST,
    "the last": LAST,
    "the first, naive": FIRST.replace(tzinfo=None),
    "the last, naive": LAST.replace(tzinfo=None),
}

IMPOSSIBLE: dict[str, object] = {
    "before the first": FIRST.replace(tzinfo=timezone(timedelta(hours=1))),
    "behind the last": LAST.replace(tzinfo=timezone(timedelta(hours=-1))),
    "text": "2026-01-02T03:04:05Z",
    "number": 1_767_323_045,
}


with_every_time = pytest.mark.parametrize("time", TIMES.values(), ids=TIMES)


class TimeContract:
    """Times come back as given; a naive one never equals an aware one, so equality says it all."""

    @with_every_time
    async def test_the_times_of_a_job(self, repository: JobRepository, time: datetime) -> None:
        """Creation, start and end of a new job."""
        job = new_job(status="failed", created_at=time, start_time=time, end_time=time)
        await repository.create_job(job)
        assert await repository.get_job(job.id) == job
        assert await repository.list_jobs() == [job]

    @with_every_time
    async def test_the_time_of_an_event(self, repository: JobRepository, time: datetime) -> None:
        """However it was appended and however it is read."""
        job_id = await create(repository, log(timestamp=time))
        await repository.add_event(job_id, log(timestamp=time))
        await repository.add_events(job_id, [log(timestamp=time)])
        events = await repository.get_events_since(job_id, 0)
        assert [event.timestamp for event in events] == [time] * 3
        assert (await fetch(repository, job_id)).events == events

    @with_every_time
    async def test_start_and_end(self, repository: JobRepository, time: datetime) -> None:
        """What `update_job_status` and `complete_job` are given; the complete event has the end time too."""
        job_id = await create(repository, status="queued")
        await repository.update_job_status(job_id, "running", start_time=time)
        await repository.complete_job(job_id, True, time)
        job = await fetch(repository, job_id)
        assert (job.start_time, job.end_time, job.events[0].timestamp) == (time, time, time)

    @with_every_time
    async def test_an_end_time_from_an_event(self, repository: JobRepository, time: datetime) -> None:
        """The timestamp of a complete event as it is, and one that is put in its place."""
        job_id = await create(repository)
        await repository.add_event(job_id, complete(True, timestamp=time))
        assert (await fetch(repository, job_id)).end_time == time
        other = await create(repository, complete(True), status="completed")
        await repository.complete_job(other, True, time)
        assert (await fetch(repository, other)).end_time == time

    @with_every_time
    async def test_the_times_of_accounts(self, repository: JobRepository, time: datetime) -> None:
        """Creation of a user and of a key, and the key's last use."""
        user = new_user(created_at=time)
        key, other = new_key(user, id="a", created_at=time, last_used_at=time), new_key(user, id="b", created_at=time)
        await repository.create_user(user)
        for each in (key, other):
            await repository.create_api_key(each)
        await repository.update_api_key_last_used(other.id, time)
        assert await repository.get_user(user.id) == user
        assert [each.last_used_at for each in await repository.list_api_keys()] == [time, time]
        assert (await repository.list_api_keys())[0] == key


class TimeOrderContract:
    """Naive times count as UTC where times are compared; what can't be compared is refused."""

    async def test_naive_and_aware_times_are_sorted_together(self, repository: JobRepository) -> None:
        """Jobs, users and keys stand in the order of the moments that their times mean."""
        moments = [
            FIRST.replace(tzinfo=None),
            at(-1),
            at(0).astimezone(timezone(timedelta(hours=9))),
            at(1).replace(tzinfo=None),
            at(2).astimezone(timezone(timedelta(hours=-9))),
            LAST,
        ]
        order = ["c", "a", "f", "b", "e", "d"]
        for name, moment in sorted(zip(order, moments, strict=True)):
            user = new_user(id=name, created_at=moment)
            await repository.create_user(user)
            await repository.create_api_key(new_key(user, id=name, created_at=moment))
            await create(repository, id=name, created_at=moment)
        assert [job.id for job in await repository.list_jobs()] == order[::-1]
        assert [user.id for user in await repository.list_users()] == order
        assert [key.id for key in await repository.list_api_keys()] == order

    async def test_the_same_moment_is_the_same_place(self, repository: JobRepository) -> None:
        """Spelled in several ways, it leaves the order to the ids."""
        await create(repository, id="a", created_at=at(0))
        await create(repository, id="b", created_at=at(0).replace(tzinfo=None))
        await create(repository, id="c", created_at=at(0).astimezone(timezone(timedelta(hours=2))))
        assert [job.id for job in await repository.list_jobs()] == ["c", "b", "a"]

    @pytest.mark.parametrize("time", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
    async def test_an_impossible_time_is_refused(self, repository: JobRepository, time: datetime) -> None:
        """What is no time, or none of the years 1 to 9999 in UTC, is refused wherever it is given."""
        user = new_user()
        await repository.create_user(user)
        key = new_key(user)
        await repository.create_api_key(key)
        job_id = await create(repository)
        before = await fetch(repository, job_id)
        for call in (
            repository.create_user(new_user(created_at=time)),
            repository.create_api_key(new_key(user, created_at=time)),
            repository.create_api_key(new_key(user, last_used_at=time)),
            repository.update_api_key_last_used(key.id, time),
            repository.create_job(new_job(created_at=time)),
            repository.create_job(new_job(start_time=time)),
            repository.create_job(new_job(status="failed", end_time=time)),
            repository.create_job(new_job(events=[log(timestamp=time)])),
            repository.update_job_status(job_id, "running", start_time=time),
            repository.complete_job(job_id, True, time),
            repository.add_event(job_id, log(timestamp=time)),
            repository.add_events(job_id, [log(), complete(True, timestamp=time)]),
        ):
            with pytest.raises(InvalidTimeError) as caught:
                await call
            assert caught.value.value == time
        assert await repository.list_users() == [user]
        assert await repository.list_api_keys() == [key]
        assert await repository.list_jobs() == [before]
        assert await fetch(repository, job_id) == before

    async def test_an_end_needs_its_time(self, repository: JobRepository) -> None:
        """`complete_job` doesn't guess."""
        job_id = await create(repository)
        missing: datetime | None = None
        with pytest.raises(InvalidTimeError):
            await repository.complete_job(job_id, True, missing)  # type: ignore[arg-type]  # what it is about
        assert (await fetch(repository, job_id)).status == "running"
