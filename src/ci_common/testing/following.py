"""What every repository does for those who follow a job's events as they come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest

from ci_common.errors import EventsLostError, JobNotFoundError
from ci_common.models import JobEvent
from ci_common.repository import JobRepository
from ci_common.testing.samples import PATIENCE_SECONDS, at, complete, create, ids, lines, log

ENDS: dict[str, Callable[[JobRepository, str], Awaitable[None]]] = {
    "complete_job": lambda repository, job_id: repository.complete_job(job_id, True, at(9)),
    "complete event": lambda repository, job_id: repository.add_event(job_id, complete(False)),
    "among events": lambda repository, job_id: repository.add_events(job_id, [complete(True), log("late\n")]),
    "failed": lambda repository, job_id: repository.update_job_status(job_id, "failed"),
    "cancelled": lambda repository, job_id: repository.update_job_status(job_id, "cancelled"),
}


async def follow(repository: JobRepository, job_id: str, last_event_id: int = 0) -> list[JobEvent]:
    """Follow a job to its end."""
    return await rest_of(repository.follow_events(job_id, last_event_id))


async def rest_of(following: AsyncIterator[JobEvent]) -> list[JobEvent]:
    """Return all that is left."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [event async for event in following]


async def follow_in_background(
    repository: JobRepository, job_id: str, last_event_id: int = 0
) -> tuple[list[JobEvent], "asyncio.Task[list[JobEvent]]"]:
    """Take a first event, so that the follower has begun for sure, and leave the rest to a task."""
    following = repository.follow_events(job_id, last_event_id)
    async with asyncio.timeout(PATIENCE_SECONDS):
        first = await anext(following)

    return [first], asyncio.create_task(rest_of(following))


class FollowingContract:
    """Following: from any position, every event once and in order, until the job ends."""

    async def test_an_ended_job_is_followed_from_each_position(self, repository: JobRepository) -> None:
        """What comes after the position is there, with ids, and the follower ends."""
        job_id = await create(repository, *lines(4))
        await repository.complete_job(job_id, True, at(9))
        everything = [*lines(4), complete(True, timestamp=at(9))]
        for seen in range(len(everything) + 1):
            events = await follow(repository, job_id, seen)
            assert events == everything[seen:]
            assert ids(events) == list(range(seen + 1, 6))

    async def test_a_running_job_is_joined_at_each_position(self, repository: JobRepository) -> None:
        """Old events and new ones come without a seam."""
        job_id = await create(repository, *lines(3))
        followers = [await follow_in_background(repository, job_id, seen) for seen in range(3)]
        for number in range(3):
            await repository.add_events(job_id, lines(2, f"new {number}"))
        await repository.complete_job(job_id, True, at(9))
        everything = await repository.get_events_since(job_id, 0)
        for seen, (first, rest) in enumerate(followers):
            assert first + await rest == everything[seen:]

    async def test_an_event_comes_while_the_job_runs(self, repository: JobRepository) -> None:
        """A follower doesn't wait for the end; each event comes before the next one is written."""
        job_id = await create(repository, status="queued")
        async with aclosing(repository.follow_events(job_id)) as following, asyncio.timeout(PATIENCE_SECONDS):
            for number in range(3):
                waiting = asyncio.ensure_future(anext(following))
                await repository.update_job_status(job_id, "queued" if number % 2 else "running")
                await repository.add_event(job_id, log(f"{number}"))
                assert (await waiting).data == f"{number}"

    @pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
    async def test_a_follower_ends_with_the_job(
        self, repository: JobRepository, end: Callable[[JobRepository, str], Awaitable[None]]
    ) -> None:
        """However the job ends, its complete event is the last thing that a follower sees."""
        job_id = await create(repository, *lines(1))
        first, rest = await follow_in_background(repository, job_id)
        await end(repository, job_id)
        events = first + await rest
        assert [event.type for event in events] == ["log", "complete"]

    async def test_a_cancelled_job_says_so_to_its_followers(self, repository: JobRepository) -> None:
        """The line with the reason comes before the end."""
        job_id = await create(repository, *lines(1))
        first, rest = await follow_in_background(repository, job_id)
        await repository.cancel_job(job_id, "enough")
        assert [event.data for event in first + await rest] == ["line 1\n", "[cancelled: enough]\n", None]

    async def test_a_follower_ends_behind_complete(self, repository: JobRepository) -> None:
        """Late output isn't for those who follow from before the end."""
        job_id = await create(repository, *lines(1))
        await repository.complete_job(job_id, True, at(9))
        await repository.add_event(job_id, log("late\n"))
        assert ids(await follow(repository, job_id)) == [1, 2]
        assert ids(await follow(repository, job_id, 1)) == [2]

    async def test_late_output_is_for_those_who_have_seen_the_end(self, repository: JobRepository) -> None:
        """A follower that starts at the complete event, or after it, gets what is there and ends."""
        job_id = await create(repository, *lines(1))
        await repository.complete_job(job_id, True, at(9))
        await repository.add_events(job_id, lines(2, "late"))
        assert await follow(repository, job_id, 2) == lines(2, "late")
        assert await follow(repository, job_id, 3) == lines(2, "late")[1:]
        assert await follow(repository, job_id, 4) == []

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    async def test_a_job_created_ended_ends_its_followers(self, repository: JobRepository, status: str) -> None:
        """Without a complete event, what is there comes, from any position, and the follower ends."""
        job_id = await create(repository, *lines(2), status=status)
        for seen in range(3):
            assert await follow(repository, job_id, seen) == lines(2)[seen:]
        silent = await create(repository, status=status)
        assert await follow(repository, silent) == []

    async def test_a_job_created_ended_may_get_a_complete_event(self, repository: JobRepository) -> None:
        """Then followers end after it as with any job."""
        job_id = await create(repository, *lines(2), status="completed")
        await repository.complete_job(job_id, True, at(9))
        await repository.add_event(job_id, log("late\n"))
        assert await follow(repository, job_id) == [*lines(2), complete(True, timestamp=at(9))]

    @pytest.mark.parametrize("ahead", [1, 2, 99])
    @pytest.mark.parametrize("count", [0, 2])
    @pytest.mark.parametrize("status", ["queued", "running", "completed"])
    async def test_nobody_waits_ahead_of_the_log(
        self, repository: JobRepository, status: str, count: int, ahead: int
    ) -> None:
        """A follower that has seen an event that the log lacks gets an error at once, whatever the job does."""
        job_id = await create(repository, *lines(count), status=status)
        with pytest.raises(EventsLostError) as raised:
            await follow(repository, job_id, count + ahead)
        assert (raised.value.job_id, raised.value.expected) == (job_id, count + ahead)

    async def test_a_log_that_grows_again_hides_nothing(self, repository: JobRepository) -> None:
        """What comes in the place of events that somebody has seen isn't skipped: that was told before."""
        job_id = await create(repository, *lines(1))
        following = repository.follow_events(job_id, 3)
        waiting = asyncio.ensure_future(anext(following))
        with pytest.raises(EventsLostError):
            await waiting
        await repository.add_events(job_id, lines(4, "new"))
        await repository.complete_job(job_id, True, at(9))
        assert await rest_of(following) == []
        assert ids(await follow(repository, job_id, 3)) == [4, 5, 6]

    async def test_late_output_isnt_waited_for(self, repository: JobRepository) -> None:
        """A position past the end of a job that has ended is no end."""
        job_id = await create(repository, *lines(1))
        await repository.complete_job(job_id, True, at(9))
        with pytest.raises(EventsLostError):
            await follow(repository, job_id, 3)
        with pytest.raises(JobNotFoundError):
            await follow(repository, "another", 3)

    async def test_many_follow_one_job(self, repository: JobRepository) -> None:
        """Each gets every event, while others come and go."""
        job_id = await create(repository, *lines(1))
        followers = [await follow_in_background(repository, job_id) for _ in range(20)]
        for number in range(10):
            await repository.add_event(job_id, log(f"{number}"))
        for _, rest in followers[::2]:
            rest.cancel()
        await repository.complete_job(job_id, True, at(9))
        everything = await repository.get_events_since(job_id, 0)
        for first, rest in followers[1::2]:
            assert first + await rest == everything
        outcomes = await asyncio.gather(*(rest for _, rest in followers[::2]), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {asyncio.CancelledError, list}

    async def test_a_long_log_is_followed_in_order(self, repository: JobRepository) -> None:
        """More events than a page, old and new, come once each."""
        job_id = await create(repository, *lines(2500))
        first, rest = await follow_in_background(repository, job_id)
        for start in range(5):
            await repository.add_events(job_id, lines(500, f"new {start}"))
        await repository.complete_job(job_id, True, at(9))
        assert ids(first + await rest) == list(range(1, 5002))

    async def test_a_follower_may_leave(self, repository: JobRepository) -> None:
        """One that stops early leaves the job and the store as they are."""
        job_id = await create(repository, *lines(2))
        async with aclosing(repository.follow_events(job_id)) as following:
            assert (await anext(following)).id == 1
        await repository.complete_job(job_id, True, at(9))
        assert len(await follow(repository, job_id)) == 3

    async def test_a_waiting_follower_can_be_cancelled(self, repository: JobRepository) -> None:
        """Cancelling the task ends it at once, though the job is still running."""
        job_id = await create(repository, *lines(1))
        _, rest = await follow_in_background(repository, job_id)
        rest.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rest
        await repository.add_event(job_id, log())
