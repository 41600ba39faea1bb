"""Damage that scripts meet: the job is left alone and named, its queue and the other jobs go on."""

import logging

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ProjectionMissingError, StoreFormatError
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.repository import RedisJobRepository
from tests import claims

FIELDS = ("attempts", "part", "position", "version", "epoch", "status", "created_at")


async def submit(repository: RedisJobRepository, *jobs: str) -> None:
    for job_id in jobs:
        await repository.create_job(Job(id=job_id, status="queued", user_id=job_id[0]))


async def take(repository: RedisJobRepository, count: int = 9, controller: str = "c1") -> list[Claimed]:
    return await claims.claim(repository, "default", controller, count, 30)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("field", [*FIELDS, "its hash", "its events"])
async def test_a_queue_goes_on_without_a_damaged_job(
    repository: RedisJobRepository, server: Nodes, field: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are claimed, also the same user's; it is named once, and comes back when it is mended."""
    await submit(repository, "a1", "a2", "b1")
    key = f"{{ci:0}}:{'events' if field == 'its events' else 'job'}:a1"
    await server.read("RENAME", key, "aside") if field.startswith("its") else None
    await server.read(*(("SET", key, "x") if field.startswith("its") else ("HSET", key, field, "garbage")))
    claimed: list[str] = []
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            claimed += [one.job.id for one in await take(repository, count)]
    assert sorted(claimed) == ["a2", "b1"]
    assert sum("a1" in message for message in caplog.messages) == 1
    if field.startswith("its"):
        await server.read("RENAME", "aside", key)
    assert any(difference.subject == "job a1" for difference in await repository.rebuild())
    await server.read("HINCRBY", "{ci:0}:clock", "now", 31_000)
    assert "a1" in [one.job.id for one in await take(repository)]


async def test_a_claim_makes_no_stream(repository: RedisJobRepository, server: Nodes) -> None:
    """A job whose events are gone is left alone, and nothing is written in their place."""
    await submit(repository, "a1", "b1")
    await server.read("RENAME", "{ci:0}:events:a1", "aside")
    assert [one.job.id for one in await take(repository)] == ["b1"]
    assert await server.read("EXISTS", "{ci:0}:events:a1") == 0
    assert await server.read("HGET", "{ci:0}:job:a1", "status") == b"queued"
    await server.read("RENAME", "aside", "{ci:0}:events:a1")
    await repository.rebuild()
    assert [one.job.id for one in await take(repository)] == ["a1"]


@pytest.mark.parametrize("field", FIELDS[:-1])
async def test_a_lost_job_that_is_damaged_holds_nobody_up(
    repository: RedisJobRepository, server: Nodes, field: str
) -> None:
    """Its lease goes, and comes back when it is mended."""
    await submit(repository, "a1", "b1")
    await take(repository, 1)
    await server.read("HSET", "{ci:0}:job:a1", field, "garbage")
    await server.read("HINCRBY", "{ci:0}:clock", "now", 31_000)
    claimed = [one.job.id for _ in range(3) for one in await take(repository, 1, "c2")]
    assert claimed == ["b1"]
    await repository.rebuild()
    await server.read("HINCRBY", "{ci:0}:clock", "now", 31_000)
    assert "a1" in [one.job.id for one in await take(repository, 9, "c3")]


@pytest.mark.parametrize("field", ["position", "part", "bytes", "lines", "end_position"])
async def test_a_damaged_counter_is_named(repository: RedisJobRepository, server: Nodes, field: str) -> None:
    """Nothing is written to that job until it is mended."""
    await repository.create_job(Job(id="a1", status="running"))
    await server.read("HSET", "{ci:0}:job:a1", field, "garbage")
    with pytest.raises(StoreFormatError, match="a1"):
        await repository.add_event("a1", JobEvent("log", "x"))
    await repository.rebuild()
    await repository.add_event("a1", JobEvent("log", "x"))
    assert len(await repository.get_events_since("a1", 0)) == 1


async def test_a_stream_ahead_of_its_hash_is_no_raw_error(repository: RedisJobRepository, server: Nodes) -> None:
    """As older versions left it where a channel was forbidden: said, mended, and then it goes on."""
    await repository.create_job(Job(id="a1", status="running"))
    await repository.add_event("a1", JobEvent("log", "x"))
    await server.read("HSET", "{ci:0}:job:a1", "position", "0", "part", "1")
    with pytest.raises(ProjectionMissingError, match="rebuild"):
        await repository.add_event("a1", JobEvent("log", "y"))
    await repository.rebuild()
    await repository.add_event("a1", JobEvent("log", "y"))
    assert [event.data for event in await repository.get_events_since("a1", 0)] == ["x", "y"]


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("clock", "now"),
        ("clock", "seen"),
        ("clock", "lease:30000"),
        ("tickets:default", "a"),
        ("offered:default", "c2"),
        ("claims:default", "c1"),
    ],
)
async def test_a_damaged_entry_of_a_queue_stops_nobody(
    repository: RedisJobRepository, server: Nodes, key: str, field: str
) -> None:
    """Jobs are created, claimed, renewed and completed."""
    await submit(repository, "a1", "b1")
    await take(repository, 1)
    await server.read("HSET", f"{{ci:0}}:{key}", field, "garbage")
    if key.startswith("offered"):
        await server.read("ZADD", "{ci:0}:offers:default", 9_000_000, "c2")
    await submit(repository, "a2")
    claimed = [*await take(repository, 1), *await take(repository, 9)]
    assert {one.job.id for one in claimed} == {"b1", "a2"}
    assert set((await claims.renew(repository, "default", [one.claim for one in claimed], 30)).values()) == {"held"}
    for one in claimed:
        await repository.writer(one.job.id, one.claim).complete(True, utc_now())
    await repository.rebuild()
