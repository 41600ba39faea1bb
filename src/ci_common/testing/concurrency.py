"""What every repository does when many call at once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable

from ci_common.errors import (
    APIKeyAlreadyExistsError,
    EmailAlreadyExistsError,
    InvalidTransitionError,
    JobAlreadyExistsError,
    RepositoryError,
    ResultConflictError,
)
from ci_common.models import Job, JobEvent
from ci_common.repository import JobRepository
from ci_common.testing.samples import (
    PATIENCE_SECONDS,
    at,
    complete,
    completions,
    create,
    fetch,
    ids,
    lines,
    log,
    new_job,
    new_key,
    new_user,
)

WRITERS = 16


async def at_once(calls: Iterable[Awaitable[None]]) -> list[BaseException | None]:
    """Run calls side by side; return for each None or its error."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await asyncio.gather(*calls, return_exceptions=True)


def count(outcomes: Iterable[object]) -> dict[type, int]:
    """Return how often there was which outcome."""
    return dict(Counter(type(outcome) for outcome in outcomes))


def check_ended(job: Job, written: Iterable[str]) -> int:
    """Assert that a log is dense, ends once and has each line once; return the id of its complete event."""
    assert ids(job.events) == list(range(1, len(job.events) + 1))
    (end,) = completions(job.events)
    found = Counter(event.data for event in job.events if event.type == "log")
    assert found == Counter(written)
    assert end.id is not None
    return end.id


class ConcurrencyContract:
    """Side by side: nothing is lost, doubled, or half done."""

    async def test_fifty_appenders_leave_no_hole(self, repository: JobRepository) -> None:
        """Ids are dense, every event is there once, and each writer's stand in its order."""
        job_id = await create(repository)

        async def write(writer: int) -> None:
            for number in range(20):
                await repository.add_event(job_id, log(f"{writer} {number}"))

        assert await at_once(write(writer) for writer in range(50)) == [None] * 50
        events = await repository.get_events_since(job_id, 0)
        assert ids(events) == list(range(1, 1001))
        for writer in range(50):
            own = [event.data for event in events if (event.data or "").startswith(f"{writer} ")]
            assert own == [f"{writer} {number}" for number in range(20)]

    async def test_batches_stay_in_their_order(self, repository: JobRepository) -> None:
        """Several `add_events` side by side: each one's events come in order, and none is lost."""
        job_id = await create(repository)
        await at_once(repository.add_events(job_id, lines(700, f"{batch}")) for batch in range(5))
        events = await repository.get_events_since(job_id, 0)
        assert ids(events) == list(range(1, 3501))
        for batch in range(5):
            assert [event for event in events if (event.data or "").startswith(f"{batch} ")] == lines(700, f"{batch}")

    async def test_a_completion_beside_busy_writers(self, repository: JobRepository) -> None:
        """All that was acknowledged before the completion began stands before `complete`, the rest after or before."""
        job_id = await create(repository)
        acknowledged: list[str] = []
        busy = asyncio.Event()

        async def write(writer: int) -> None:
            for number in range(25):
                await repository.add_event(job_id, log(f"{writer} {number}"))
                acknowledged.append(f"{writer} {number}")
                if len(acknowledged) > 100:
                    busy.set()

        async def end() -> list[str]:
            await busy.wait()
            earlier = list(acknowledged)
            await repository.complete_job(job_id, True, at(9))
            return earlier

        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            ending = group.create_task(end())
            for writer in range(WRITERS):
                group.create_task(write(writer))
        job = await fetch(repository, job_id)
        position = check_ended(job, acknowledged)
        assert set(ending.result()) <= {event.data for event in job.events[: position - 1]}
        assert (job.status, job.success, job.end_time) == ("completed", True, at(9))

    async def test_one_result_wins(self, repository: JobRepository) -> None:
        """Of contradicting completions at once, one result is stored and the others are conflicts."""
        job_id = await create(repository)
        outcomes = await at_once(repository.complete_job(job_id, number % 2 == 0, at(number)) for number in range(10))
        job = await fetch(repository, job_id)
        (end,) = completions(job.events)
        assert end.success == job.success
        assert count(outcomes) == {type(None): 5, ResultConflictError: 5}
        winners = [at(number) for number, outcome in enumerate(outcomes) if outcome is None]
        assert job.end_time == end.timestamp
        assert job.end_time in winners

    async def test_one_end_wins(self, repository: JobRepository) -> None:
        """Whatever ends a job first, there is one complete event, and the state agrees with it."""
        for _ in range(10):
            job_id = await create(repository)
            await at_once(
                [
                    repository.update_job_status(job_id, "failed"),
                    repository.cancel_job(job_id, "enough"),
                    repository.complete_job(job_id, True, at(1)),
                    repository.add_event(job_id, complete(True)),
                    repository.add_events(job_id, [log(), complete(False)]),
                    repository.update_job_status(job_id, "queued"),
                    *(repository.add_event(job_id, log()) for _ in range(5)),
                ]
            )
            job = await fetch(repository, job_id)
            (end,) = completions(job.events)
            assert job.success == end.success == (job.status == "completed" and end.success)
            assert ids(job.events) == list(range(1, len(job.events) + 1))
            said = [event.id for event in job.events if event.data == "[cancelled: enough]\n"]
            assert said == ([(end.id or 0) - 1] if job.status == "cancelled" else [])

    async def test_one_cancellation_says_why(self, repository: JobRepository) -> None:
        """Of several cancellations at once, one has its reason in the log; all of them succeed."""
        job_id = await create(repository)
        outcomes = await at_once(repository.cancel_job(job_id, f"{number}") for number in range(8))
        assert outcomes == [None] * 8
        assert [event.type for event in (await fetch(repository, job_id)).events] == ["log", "complete"]

    async def test_one_start_wins(self, repository: JobRepository) -> None:
        """Of several that start a job at once, all succeed, and one start time stays."""
        job_id = await create(repository, status="queued")
        starts = [repository.update_job_status(job_id, "running", start_time=at(number)) for number in range(8)]
        assert await at_once(starts) == [None] * 8
        started = await fetch(repository, job_id)
        assert started.start_time in [at(number) for number in range(8)]
        await repository.update_job_status(job_id, "running", start_time=at(9))
        assert await fetch(repository, job_id) == started

    async def test_one_creation_wins(self, repository: JobRepository) -> None:
        """Of several jobs of one id at once, one is stored whole; the others are refused."""
        jobs = [new_job(id="same", name=f"{number}", events=lines(3, f"{number}")) for number in range(10)]
        outcomes = await at_once(repository.create_job(job) for job in jobs)
        assert count(outcomes) == {type(None): 1, JobAlreadyExistsError: 9}
        assert await repository.get_job("same") == jobs[outcomes.index(None)]
        assert len(await repository.list_jobs()) == 1

    async def test_one_account_wins(self, repository: JobRepository) -> None:
        """The same goes for an email in several cases and for the hash of a key."""
        users = [new_user(email=email) for email in ("a@b.org", "A@b.org", "a@B.org", "A@B.ORG")]
        outcomes = await at_once(repository.create_user(user) for user in users)
        assert count(outcomes) == {type(None): 1, EmailAlreadyExistsError: 3}
        winner = users[outcomes.index(None)]
        assert await repository.list_users() == [winner]
        keys = [new_key(winner, key_hash="same") for _ in range(4)]
        outcomes = await at_once(repository.create_api_key(key) for key in keys)
        assert count(outcomes) == {type(None): 1, APIKeyAlreadyExistsError: 3}
        assert await repository.list_api_keys() == [keys[outcomes.index(None)]]

    async def test_readers_see_whole_steps(self, repository: JobRepository) -> None:
        """While a job is written and ends, its events and its state belong together, in every read."""
        job_id = await create(repository)

        async def write() -> None:
            for number in range(100):
                await repository.add_event(job_id, log(f"{number}"))
            await repository.complete_job(job_id, True, at(1))

        async def read() -> None:
            known: list[JobEvent] = []
            is_ended = False
            while not is_ended:
                job = await fetch(repository, job_id)
                is_ended = job.status == "completed"
                assert len(completions(job.events)) == (1 if is_ended else 0)
                assert (job.success, job.end_time) == ((True, at(1)) if is_ended else (None, None))
                assert list(job.events[: len(known)]) == known
                known = list(job.events)
                # A store that never leaves the event loop would let no writer in.
                await asyncio.sleep(0)

        assert await at_once([write(), read(), read(), read()]) == [None] * 4

    async def test_many_jobs_at_once(self, repository: JobRepository) -> None:
        """Fifty jobs live side by side without touching each other."""

        async def live(number: int) -> None:
            job_id = await create(repository, id=f"job {number}", status="queued", created_at=at(number))
            await repository.update_job_status(job_id, "running")
            await repository.add_events(job_id, lines(number, f"{number}"))
            await repository.complete_job(job_id, number % 2 == 0, at(number))

        assert await at_once(live(number) for number in range(50)) == [None] * 50
        jobs = await repository.list_jobs()
        assert [job.id for job in jobs] == [f"job {number}" for number in reversed(range(50))]
        for number, job in enumerate(reversed(jobs)):
            stored = await repository.get_events_since(job.id, 0)
            assert stored == [*lines(number, f"{number}"), complete(number % 2 == 0, timestamp=at(number))]

    async def test_errors_come_to_their_callers(self, repository: JobRepository) -> None:
        """A bad call among good ones fails alone."""
        job_id = await create(repository)
        outcomes = await at_once(
            [
                repository.add_event(job_id, log("1")),
                repository.add_event(job_id, JobEvent("progress")),
                repository.add_event("none", log()),
                repository.update_job_status(job_id, "completed"),
                repository.add_event(job_id, log("2")),
            ]
        )
        assert [isinstance(outcome, RepositoryError) for outcome in outcomes] == [False, True, True, True, False]
        assert isinstance(outcomes[3], InvalidTransitionError)
        assert [event.data for event in await repository.get_events_since(job_id, 0)] == ["1", "2"]
