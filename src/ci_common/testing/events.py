"""What every repository does with events: appending, numbering, reading from any position."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from ci_common.errors import EventTooLargeError, InvalidEventError, JobNotFoundError, ResultConflictError
from ci_common.models import EventType, JobEvent
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, complete, create, fetch, ids, is_now, lines, log, texts
from ci_common.validation import MAX_EVENT_BYTES

REFUSED: dict[str, JobEvent] = {
    "unknown type": JobEvent("progress", "50 %"),
    "no type": JobEvent(""),
    "type in capitals": JobEvent("LOG", "a line\n"),
    "complete without success": JobEvent("complete"),
    "lone surrogate": JobEvent("log", "\ud800"),
}

READS: dict[str, Callable[[JobRepository, str], Awaitable[object]]] = {
    "get_events_since": lambda repository, job_id: repository.get_events_since(job_id, 0),
    "far behind": lambda repository, job_id: repository.get_events_since(job_id, 99),
    "read_events": lambda repository, job_id: repository.read_events(job_id),
    "nothing": lambda repository, job_id: repository.read_events(job_id, limit=0),
    "follow_events": lambda repository, job_id: anext(repository.follow_events(job_id)),
}


class AppendingContract:
    """Appending events: one or many, in order, or none of them."""

    #: The most UTF-8 bytes of one event's data that the repository under test takes.
    max_event_bytes = MAX_EVENT_BYTES

    async def test_events_come_back_in_their_order(self, repository: JobRepository) -> None:
        """All fields are kept, and ids count from 1 without holes, in the order of the calls."""
        job_id = await create(repository)
        events = [
            log("first\n", timestamp=at(9)),
            log(None, timestamp=at(8)),
            log("", timestamp=at(7)),
            log("odd", success=True, timestamp=at(6)),
            complete(False, data="exit code 1", timestamp=at(5)),
        ]
        for event in events:
            await repository.add_event(job_id, event)
        stored = await repository.get_events_since(job_id, 0)
        assert stored == events
        assert ids(stored) == [1, 2, 3, 4, 5]

    async def test_an_event_is_there_when_the_call_returns(self, repository: JobRepository) -> None:
        """What was acknowledged is read by the next call."""
        job_id = await create(repository)
        for number in range(1, 6):
            await repository.add_event(job_id, log(f"{number}"))
            assert len(await repository.get_events_since(job_id, 0)) == number
            assert len((await fetch(repository, job_id)).events) == number

    async def test_equal_events_are_all_kept(self, repository: JobRepository) -> None:
        """A line that was printed three times is three events."""
        job_id = await create(repository)
        event = log("same\n", timestamp=at(1))
        await repository.add_event(job_id, event)
        await repository.add_events(job_id, [event, event])
        stored = await repository.get_events_since(job_id, 0)
        assert stored == [event] * 3
        assert ids(stored) == [1, 2, 3]

    async def test_a_missing_time_is_filled(self, repository: JobRepository) -> None:
        """An event without a timestamp gets the time when it was accepted."""
        job_id = await create(repository, log())
        await repository.add_event(job_id, log())
        await repository.add_events(job_id, [log(success=False)])
        assert (await fetch(repository, job_id)).events[2].success is False
        assert [is_now(event.timestamp) for event in await repository.get_events_since(job_id, 0)] == [True] * 3

    async def test_an_id_of_the_callers_means_nothing(self, repository: JobRepository) -> None:
        """The store numbers events itself, such as those that were copied from another job."""
        job_id = await create(repository)
        await repository.add_event(job_id, log(id=7))
        await repository.add_events(job_id, [log(id=1), log(id=1)])
        assert ids(await repository.get_events_since(job_id, 0)) == [1, 2, 3]

    async def test_a_type_may_be_an_enum(self, repository: JobRepository) -> None:
        """`EventType.LOG` is the same as its name."""
        job_id = await create(repository)
        await repository.add_event(job_id, JobEvent(EventType.LOG, "a line\n", timestamp=at(1)))
        await repository.add_event(job_id, JobEvent(EventType.COMPLETE, success=True, timestamp=at(1)))
        job = await fetch(repository, job_id)
        assert job.events == [log("a line\n", timestamp=at(1)), complete(True, timestamp=at(1))]
        assert (job.status, job.success) == ("completed", True)

    @pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
    async def test_several_events_at_once(
        self, repository: JobRepository, kind: Callable[[list[JobEvent]], Iterable[JobEvent]]
    ) -> None:
        """They come in their order, from any iterable, after what is there."""
        job_id = await create(repository, log("before\n", timestamp=at(0)))
        await repository.add_events(job_id, kind(lines(5)))
        stored = await repository.get_events_since(job_id, 0)
        assert stored == [log("before\n", timestamp=at(0)), *lines(5)]
        assert ids(stored) == [1, 2, 3, 4, 5, 6]

    async def test_no_events_at_once(self, repository: JobRepository) -> None:
        """An empty list changes nothing."""
        job_id = await create(repository, *lines(1))
        before = await fetch(repository, job_id)
        await repository.add_events(job_id, [])
        assert await fetch(repository, job_id) == before

    async def test_many_events_at_once(self, repository: JobRepository) -> None:
        """More events than any page or batch holds keep their order."""
        job_id = await create(repository)
        await repository.add_events(job_id, lines(5000))
        stored = await repository.get_events_since(job_id, 0)
        assert stored == lines(5000)
        assert ids(stored) == list(range(1, 5001))

    async def test_a_job_may_end_amid_several_events(self, repository: JobRepository) -> None:
        """The first result counts, what follows is late output."""
        job_id = await create(repository)
        end = complete(True, timestamp=at(5))
        await repository.add_events(job_id, [*lines(1), end, complete(True, timestamp=at(6)), *lines(2)])
        job = await fetch(repository, job_id)
        assert job.events == [*lines(1), end, *lines(2)]
        assert (job.status, job.success, job.end_time) == ("completed", True, at(5))

    @pytest.mark.parametrize("event", REFUSED.values(), ids=REFUSED)
    async def test_a_bad_event_is_refused(self, repository: JobRepository, event: JobEvent) -> None:
        """Alone, amid good ones, or in a new job: nothing is stored."""
        job_id = await create(repository, *lines(1))
        before = await fetch(repository, job_id)
        with pytest.raises(InvalidEventError):
            await repository.add_event(job_id, event)
        with pytest.raises(InvalidEventError):
            await repository.add_events(job_id, [*lines(2), event, *lines(2)])
        with pytest.raises(InvalidEventError):
            await create(repository, *lines(2), event, id="new", status="completed")
        assert await fetch(repository, job_id) == before
        assert await repository.get_job("new") is None

    @pytest.mark.parametrize("value", [1, "yes", 0], ids=repr)
    async def test_a_result_is_a_truth_value(self, repository: JobRepository, value: Any) -> None:
        """Neither an exit code nor a word is taken for one."""
        job_id = await create(repository)
        with pytest.raises(InvalidEventError):
            await repository.add_event(job_id, JobEvent("complete", success=value))
        with pytest.raises(InvalidEventError):
            await repository.add_event(job_id, JobEvent("log", "text", success=value))
        with pytest.raises(InvalidEventError):
            await repository.complete_job(job_id, value, at(1))
        assert (await fetch(repository, job_id)).status == "running"

    @pytest.mark.parametrize("data", [b"bytes", 7, ["a"]], ids=repr)
    async def test_data_is_text(self, repository: JobRepository, data: Any) -> None:
        """Anything else is refused."""
        job_id = await create(repository)
        with pytest.raises(InvalidEventError):
            await repository.add_event(job_id, JobEvent("log", data))
        assert await texts(repository, job_id) == []

    @pytest.mark.parametrize("character", ["x", "é"])
    async def test_an_event_has_a_largest_size(self, repository: JobRepository, character: str) -> None:
        """UTF-8 bytes count; the error tells size and limit, and keeps the events beside it out."""
        job_id = await create(repository)
        event = log(character * (self.max_event_bytes // len(character.encode()) + 1))
        with pytest.raises(EventTooLargeError) as caught:
            await repository.add_event(job_id, event)
        assert caught.value.limit_bytes == self.max_event_bytes < caught.value.size_bytes
        with pytest.raises(EventTooLargeError):
            await repository.add_events(job_id, [log(), event])
        with pytest.raises(EventTooLargeError):
            await create(repository, event, id="new")
        assert await texts(repository, job_id) == []
        assert await repository.get_job("new") is None

    async def test_an_event_of_the_largest_size_is_kept(self, repository: JobRepository) -> None:
        """The limit itself is allowed."""
        job_id = await create(repository)
        await repository.add_event(job_id, log("x" * self.max_event_bytes))
        assert await texts(repository, job_id) == ["x" * self.max_event_bytes]

    @pytest.mark.parametrize("ended", [True, False])
    async def test_a_conflict_keeps_all_events_out(self, repository: JobRepository, ended: bool) -> None:
        """A result that contradicts the job's, or another one of the same call, refuses the whole call."""
        job_id = await create(repository)
        events = [*lines(2), complete(False), *lines(2)]
        if ended:
            await repository.complete_job(job_id, True, at(1))
        else:
            events.insert(1, complete(True))
        before = await fetch(repository, job_id)
        with pytest.raises(ResultConflictError):
            await repository.add_events(job_id, events)
        assert await fetch(repository, job_id) == before


class ReadingContract:
    """Reading events: everything after what the caller has seen."""

    @pytest.mark.parametrize("read", READS.values(), ids=READS)
    async def test_events_of_a_missing_job_are_an_error(
        self, repository: JobRepository, read: Callable[[JobRepository, str], Awaitable[object]]
    ) -> None:
        """An empty list would look like a job that is silent."""
        with pytest.raises(JobNotFoundError) as caught:
            await read(repository, "none")
        assert caught.value.job_id == "none"

    async def test_a_job_without_events_has_an_empty_list(self, repository: JobRepository) -> None:
        """It is there, and silent."""
        job_id = await create(repository)
        assert await repository.get_events_since(job_id, 0) == []
        assert await repository.read_events(job_id) == []

    async def test_reading_goes_on_from_any_position(self, repository: JobRepository) -> None:
        """For each number of events seen, the rest comes, and nothing twice; the complete event has a number too."""
        job_id = await create(repository, *lines(3))
        await repository.complete_job(job_id, True, at(9))
        await repository.add_event(job_id, log("late\n", timestamp=at(10)))
        everything = [*lines(3), complete(True, timestamp=at(9)), log("late\n", timestamp=at(10))]
        for seen in range(len(everything) + 1):
            rest = await repository.get_events_since(job_id, seen)
            assert rest == everything[seen:]
            assert ids(rest) == list(range(seen + 1, 6))

    @pytest.mark.parametrize("position", [4, 5, 1000, 2**53, 2**63, 2**64, 10**30])
    async def test_behind_the_end_is_nothing(self, repository: JobRepository, position: int) -> None:
        """An id past the end is no error."""
        job_id = await create(repository, *lines(3))
        assert await repository.get_events_since(job_id, position) == []
        assert await repository.read_events(job_id, position) == []

    async def test_one_may_count_what_one_received(self, repository: JobRepository) -> None:
        """A caller that asks again with the number of events it has misses none and sees none twice."""
        job_id = await create(repository, status="queued")
        seen: list[JobEvent] = []
        for step in range(4):
            await repository.update_job_status(job_id, "queued" if step % 2 else "running")
            await repository.add_events(job_id, lines(step))
            seen += await repository.get_events_since(job_id, len(seen))
        await repository.complete_job(job_id, True, at(1))
        seen += await repository.get_events_since(job_id, len(seen))
        assert seen == await repository.get_events_since(job_id, 0)
        assert ids(seen) == [1, 2, 3, 4, 5, 6, 7]

    async def test_pages_join_to_the_whole_log(self, repository: JobRepository) -> None:
        """Pages of every size give the same events."""
        job_id = await create(repository, *lines(7))
        for size in range(1, 9):
            seen: list[JobEvent] = []
            while page := await repository.read_events(job_id, after=len(seen), limit=size):
                assert ids(page) == list(range(len(seen) + 1, min(len(seen) + size, 7) + 1))
                seen += page
            assert seen == lines(7)

    async def test_a_page_has_a_thousand_events(self, repository: JobRepository) -> None:
        """That is the limit where none is given; `get_events_since` has none."""
        job_id = await create(repository, *lines(2100))
        assert await repository.read_events(job_id) == lines(2100)[:1000]
        assert await repository.read_events(job_id, 2000) == lines(2100)[2000:]
        assert len(await repository.get_events_since(job_id, 50)) == 2050

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_limit_of_nothing_gives_no_events(self, repository: JobRepository, limit: int) -> None:
        """It isn't a way to ask for everything."""
        job_id = await create(repository, *lines(3))
        assert await repository.read_events(job_id, limit=limit) == []

    async def test_jobs_have_separate_logs(self, repository: JobRepository) -> None:
        """Each job's events are numbered for themselves, and seen there only."""
        first, second = await create(repository, id="job"), await create(repository, id="job:1")
        for number in range(3):
            await repository.add_event(first, log(f"first {number}"))
            await repository.add_event(second, log(f"second {number}"))
        assert await texts(repository, first) == ["first 0", "first 1", "first 2"]
        assert ids(await repository.get_events_since(second, 0)) == [1, 2, 3]
