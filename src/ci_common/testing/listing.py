"""What every repository does when jobs are read: one, all, a page, and only one's own."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ci_common.errors import JobNotFoundError, UnknownStatusError
from ci_common.models import Job
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, create, fetch, lines, new_job

#: Every read of one job's events, and the one write, that a user may be named with.
RESTRICTED: dict[str, Callable[[JobRepository, str, str], Awaitable[object]]] = {
    "get_events_since": lambda repository, job_id, user_id: repository.get_events_since(job_id, 0, user_id=user_id),
    "read_events": lambda repository, job_id, user_id: repository.read_events(job_id, user_id=user_id),
    "follow_events": lambda repository, job_id, user_id: anext(repository.follow_events(job_id, user_id=user_id)),
    "cancel_job": lambda repository, job_id, user_id: repository.cancel_job(job_id, user_id=user_id),
}


async def create_row(repository: JobRepository) -> list[str]:
    """Create jobs of two users, two of them at the same moment; return their ids as a list shows them."""
    for job in [
        new_job(id="old", created_at=at(1), user_id="ada", status="queued"),
        new_job(id="twin-b", created_at=at(2), user_id="ada", status="failed"),
        new_job(id="twin-a", created_at=at(2), user_id="bob", status="queued"),
        new_job(id="new", created_at=at(4), user_id="ada", status="queued"),
        new_job(id="middle", created_at=at(3), status="queued"),
    ]:
        await repository.create_job(job)
    return ["new", "middle", "twin-b", "twin-a", "old"]


def names(jobs: list[Job]) -> list[str]:
    """Return the ids of some jobs."""
    return [job.id for job in jobs]


class ListingContract:
    """Reading jobs: newest first, page by page, without events."""

    async def test_a_missing_job_reads_as_none(self, repository: JobRepository) -> None:
        """An unknown id is no error."""
        assert await repository.get_job("none") is None
        assert await repository.get_job_summary("none") is None

    async def test_no_jobs_are_an_empty_list(self, repository: JobRepository) -> None:
        """A new store has no jobs."""
        assert await repository.list_jobs() == []
        assert await repository.page_jobs() == []

    async def test_a_job_is_read_with_its_events(self, repository: JobRepository) -> None:
        """`get_job` gives all events, with their ids."""
        job_id = await create(repository)
        await repository.add_events(job_id, lines(1200))
        job = await fetch(repository, job_id)
        assert job.events == lines(1200)
        assert [event.id for event in job.events] == list(range(1, 1201))

    async def test_lists_and_summaries_have_no_events(self, repository: JobRepository) -> None:
        """They are the same job otherwise."""
        job_id = await create(repository, *lines(3), user_id="ada", name="build")
        bare = replace(await fetch(repository, job_id), events=[])
        assert await repository.get_job_summary(job_id) == bare
        assert await repository.list_jobs() == [bare]
        assert await repository.page_jobs() == [bare]

    async def test_jobs_are_listed_newest_first(self, repository: JobRepository) -> None:
        """Jobs of the same moment come by id, downwards."""
        row = await create_row(repository)
        assert names(await repository.list_jobs()) == row
        assert names(await repository.page_jobs()) == row

    async def test_the_order_is_that_of_the_times(self, repository: JobRepository) -> None:
        """Microseconds count, and so does a time before 1970."""
        for name, seconds in {"second": 0.000001, "third": 0, "first": 0.000002, "last": -3e9}.items():
            await create(repository, id=name, created_at=at(seconds))
        assert names(await repository.list_jobs()) == ["first", "second", "third", "last"]

    async def test_a_list_is_up_to_date(self, repository: JobRepository) -> None:
        """A list shows the states that the jobs have now; a change of state doesn't change its order."""
        row = await create_row(repository)
        await repository.update_job_status("old", "running", start_time=at(9))
        await repository.cancel_job("new")
        assert names(await repository.list_jobs()) == row
        statuses = {job.id: str(job.status) for job in await repository.list_jobs()}
        assert (statuses["old"], statuses["new"], statuses["middle"]) == ("running", "cancelled", "queued")

    async def test_pages_join_to_the_whole_list(self, repository: JobRepository) -> None:
        """With the last id of each page as `before`, every job comes once, equal times or not."""
        row = await create_row(repository)
        for size in range(1, 7):
            seen: list[str] = []
            while page := names(await repository.page_jobs(limit=size, before=seen[-1] if seen else None)):
                assert len(page) <= size
                seen += page
            assert seen == row

    async def test_a_page_begins_behind_its_job(self, repository: JobRepository) -> None:
        """Jobs that are created later don't move a page."""
        await create_row(repository)
        await create(repository, id="newest", created_at=at(9))
        assert names(await repository.page_jobs(limit=2, before="middle")) == ["twin-b", "twin-a"]
        assert names(await repository.page_jobs(before="old")) == []

    async def test_a_page_has_a_hundred_jobs(self, repository: JobRepository) -> None:
        """That is the limit where none is given."""
        for number in range(102):
            await create(repository, created_at=at(number))
        assert len(await repository.page_jobs()) == 100

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_limit_of_nothing_gives_no_jobs(self, repository: JobRepository, limit: int) -> None:
        """It isn't a way to ask for everything."""
        await create_row(repository)
        assert await repository.page_jobs(limit=limit) == []

    async def test_a_page_of_a_status(self, repository: JobRepository) -> None:
        """Only jobs that have the status now are in the page, and the limit counts those."""
        await create_row(repository)
        assert names(await repository.page_jobs(status="queued", limit=3)) == ["new", "middle", "twin-a"]
        await repository.update_job_status("middle", "running")
        assert names(await repository.page_jobs(status="queued", limit=3)) == ["new", "twin-a", "old"]
        assert names(await repository.page_jobs(status="running")) == ["middle"]
        assert names(await repository.page_jobs(status="cancelled")) == []
        assert names(await repository.page_jobs(status="queued", before="twin-b")) == ["twin-a", "old"]

    async def test_a_page_of_a_user(self, repository: JobRepository) -> None:
        """User, status, limit and `before` go together."""
        await create_row(repository)
        assert names(await repository.page_jobs("ada")) == ["new", "twin-b", "old"]
        assert names(await repository.page_jobs("ada", "queued", 1, "new")) == ["old"]
        assert names(await repository.page_jobs("nobody")) == []

    async def test_a_page_behind_a_missing_job_is_an_error(self, repository: JobRepository) -> None:
        """So is one after another user's job."""
        await create_row(repository)
        for user_id, before in [(None, "none"), ("ada", "twin-a"), ("ada", "middle")]:
            with pytest.raises(JobNotFoundError) as caught:
                await repository.page_jobs(user_id, before=before)
            assert caught.value.job_id == before

    async def test_a_page_of_an_unknown_status_is_an_error(self, repository: JobRepository) -> None:
        """The error says which statuses there are."""
        with pytest.raises(UnknownStatusError, match="queued, running, completed, failed or cancelled"):
            await repository.page_jobs(status="done")


class IsolationContract:
    """Users: with `user_id`, another user's job is as a missing one."""

    async def test_one_sees_ones_own_jobs(self, repository: JobRepository) -> None:
        """Lists have a user's jobs only, and all of them without a user."""
        await create_row(repository)
        assert names(await repository.list_jobs("ada")) == ["new", "twin-b", "old"]
        assert names(await repository.list_jobs("bob")) == ["twin-a"]
        assert names(await repository.list_jobs("nobody")) == []

    async def test_a_job_is_read_by_its_owner(self, repository: JobRepository) -> None:
        """With the owner's id, or with none, the job is there."""
        job_id = await create(repository, *lines(2), user_id="ada")
        job = await fetch(repository, job_id)
        assert await repository.get_job(job_id, "ada") == job
        assert await repository.get_job_summary(job_id, user_id="ada") == replace(job, events=[])
        assert await repository.get_events_since(job_id, 1, user_id="ada") == lines(2)[1:]
        assert await repository.read_events(job_id, user_id="ada") == lines(2)

    @pytest.mark.parametrize("owner", ["bob", "ad", "ada2", "ADA", None])
    async def test_anothers_job_reads_as_none(self, repository: JobRepository, owner: str | None) -> None:
        """It is the same for a job that nobody owns, and for ids that are nearly equal."""
        job_id = await create(repository, user_id=owner)
        assert await repository.get_job(job_id, "ada") is None
        assert await repository.get_job_summary(job_id, "ada") is None
        assert await repository.list_jobs("ada") == []

    @pytest.mark.parametrize("call", RESTRICTED.values(), ids=RESTRICTED)
    async def test_anothers_events_are_not_found(
        self, repository: JobRepository, call: Callable[[JobRepository, str, str], Awaitable[object]]
    ) -> None:
        """The error is that of a missing job, and nothing changes."""
        job_id = await create(repository, *lines(2), user_id="bob")
        before = await fetch(repository, job_id)
        with pytest.raises(JobNotFoundError) as caught:
            await call(repository, job_id, "ada")
        with pytest.raises(JobNotFoundError) as missing:
            await call(repository, "none", "ada")
        assert str(caught.value) == str(missing.value).replace("none", job_id)
        assert await fetch(repository, job_id) == before

    async def test_the_owner_cancels(self, repository: JobRepository) -> None:
        """With the owner's id a job is cancelled."""
        job_id = await create(repository, user_id="ada")
        await repository.cancel_job(job_id, user_id="ada")
        assert (await fetch(repository, job_id)).status == "cancelled"
