"""Two copies into one store at the same time: everything comes once, and each of them says what it has done."""

import asyncio
import random

import pytest

from tests.examples import slow
from tests.integration.store.sealing import lines, seal_job
from tests.integration.store.test_copying import copy, fill, kept_for_a_while, seen, store
from tests.servers import RealServer


@pytest.mark.parametrize("jobs", [5, slow(25)])
async def test_two_copy_into_one_store_at_once(own: RealServer, seed: int, jobs: int) -> None:
    """Each job is brought by one of them, once, and found by the other one; so is what is new the next time."""
    choose = random.Random(seed)
    async with store(own, "a") as source, store(own, "b", 3) as one, store(own, "b", 3) as other:
        await fill(source, choose, jobs)
        for number in range(2):
            before = await seen(source)
            known = (await seen(one))["events"]
            news = sum(known.get(job_id) != events for job_id, events in before["events"].items())
            reports = await asyncio.gather(copy(source, one), copy(source, other))
            for report in reports:
                # Both make the users and keys; one of them may find that the other one was faster.
                assert not [what for what in report.left if what.startswith("job ")]
                assert report.different == []
                assert report.copied + report.already == len(before["events"])
                assert report.source_digest == report.target_digest
            assert sum(report.copied for report in reports) == news
            assert await seen(one) == before
            assert await one.verify(deep=True) == []
            assert [key for key in await kept_for_a_while(one) if ":staged:" not in key] == []
            for job in await source.list_jobs():
                if job.status != "queued":
                    await source.add_events(job.id, lines(choose.randrange(1, 4), 200 + 10 * number))
                    await seal_job(choose.choice([source, one]), job.id)
