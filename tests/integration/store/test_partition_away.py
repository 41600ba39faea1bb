"""One of two servers of a store is away: only the jobs of its partitions are."""

from collections.abc import AsyncIterator

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.connection import way
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.repository import RedisJobRepository
from tests.divided import ODD, PARTITIONS, divided, job_ids, opened
from tests.servers import RealServer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """Who goes on without a server gives it little time, and asks it again at once."""
    monkeypatch.setattr(way, "HURRIED_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(way, "AWAY_SECONDS", 0.0)


@pytest.fixture
async def both(
    monkeypatch: pytest.MonkeyPatch, server: object, own: RealServer, valkey: RealServer
) -> AsyncIterator[RedisJobRepository]:
    """A store whose odd partitions are on `own`; its projections must agree with its streams when that is back."""
    with divided(monkeypatch, own.url):
        async with opened(valkey.url) as repository:
            yield repository
            own.kill()
            own.start()
            assert await repository.verify() == []


async def fill(repository: RedisJobRepository, count: int = 2, status: str = "running") -> dict[int, list[str]]:
    """Create jobs in all partitions, and return their ids."""
    ids = {partition: job_ids(partition, count) for partition in range(PARTITIONS)}
    for number in range(count):
        for its in ids.values():
            await repository.create_job(Job(id=its[number], status=status))
    return ids


async def test_jobs_of_other_partitions_are_as_before(both: RedisJobRepository, own: RealServer) -> None:
    """They are created, written and read; an error names the partition that is away."""
    ids = await fill(both)
    own.kill()
    await both.create_job(Job(id=job_ids(0, 3)[2], status="queued"))
    await both.add_event(ids[2][0], JobEvent("log", "on it goes\n"))
    await both.complete_job(ids[2][0], True, (await both.get_job(ids[2][0])).created_at)  # type: ignore[union-attr]
    for partition in ODD:
        with pytest.raises(StoreUnavailableError, match=rf"^partition {partition} at unix:") as raised:
            await both.get_job(ids[partition][0])
        assert raised.value.partition == partition
    with pytest.raises(StoreUnavailableError, match=r"^partition 1 at unix:"):
        await both.add_event(ids[1][1], JobEvent("log", "not stored\n"))


async def test_a_server_that_gave_no_answer_is_not_asked_for_a_while(
    both: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on without it doesn't wait for it each time; any answer of the server ends that."""
    monkeypatch.setattr(way, "AWAY_SECONDS", 1000.0)
    ids = await fill(both, 1)
    own.kill()
    assert (await both.page_available_jobs()).unavailable == ODD
    monkeypatch.setattr(way, "HURRIED_PATIENCE_SECONDS", 1000.0)
    assert (await both.page_available_jobs()).unavailable == ODD
    own.start()
    assert (await both.page_available_jobs()).unavailable == ODD
    assert await both.get_job_summary(ids[1][0]) is not None
    assert (await both.page_available_jobs()).unavailable == ()


async def test_a_page_says_which_partitions_are_missing(both: RedisJobRepository, own: RealServer) -> None:
    """It has the others' jobs in their order, and pages that follow it are right; a whole list can't be had."""
    ids = await fill(both, 3)
    there = [ids[partition][number] for number in (2, 1, 0) for partition in (2, 0)]
    own.kill()
    page = await both.page_available_jobs(limit=4)
    assert ([job.id for job in page.jobs], page.unavailable) == (there[:4], ODD)
    own.start()
    page = await both.page_available_jobs(before=there[3])
    assert [job.id for job in page.jobs] == [ids[partition][0] for partition in (3, 2, 1, 0)]
    assert page.unavailable == ()
    own.kill()
    for status in (None, "running"):
        page = await both.page_available_jobs(status=status)
        assert ([job.id for job in page.jobs], page.unavailable) == (there, ODD)
        with pytest.raises(StoreUnavailableError, match=r"^partition [13] at"):
            await both.page_jobs(status=status)
    with pytest.raises(StoreUnavailableError, match=r"^partition [13] at"):
        await both.list_jobs()
