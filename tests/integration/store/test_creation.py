"""`create.lua` beside `append.lua`: a job that waits is the same, whichever of them has created it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ci_common.errors import JobAlreadyExistsError
from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text_map, as_texts
from ci_eventstore.events.append import append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import decode, encode_records
from ci_eventstore.events.records import Fact
from ci_eventstore.jobs.create import create_waiting, waiting_job
from ci_eventstore.jobs.decide import decide_creation
from ci_eventstore.jobs.evolve import evolve
from ci_eventstore.jobs.state import created_fields, decided_changes
from ci_eventstore.jobs.store import plan_change
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))
JOBS = [
    Job(id="j", status="queued", created_at=NOW),
    Job(id="j", status="queued", created_at=NOW, user_id="ü b", name="n\0\n", queue="big one"),
    Job(id="j", status="queued", created_at=NOW.astimezone(EAST), start_time=NOW, container_id="c", zip_file_path="/z"),
    Job(id="j", status="queued", created_at=NOW.replace(tzinfo=None), command=["a", "ü b", ""]),
    Job(id="j", status="queued", created_at=NOW, command=[], name=""),
]


async def create(server: Nodes, keys: Keys, job: Job, token: str = "t" * 16) -> None:
    created = waiting_job(decide_creation(job, [], NOW, token))
    assert created is not None
    await create_waiting(server, keys.job(job.id), created)


async def content(server: Nodes) -> dict[str, object]:
    """Return what is in all keys but those that recognise calls; of the stream, its records; tickets have other ids."""
    found: dict[str, object] = {}
    for key in sorted(as_texts(await server.read("KEYS", "*"))):
        match await server.read("TYPE", key):
            case b"hash" if ":tickets:" in key:
                found[key] = as_texts(await server.read("HKEYS", key))
            case b"hash" if ":calls:" not in key:
                found[key] = {**as_text_map(await server.read("HGETALL", key)), "mark": "of payloads that differ"}
            case b"zset":
                found[key] = await server.read("ZRANGE", key, 0, -1, "WITHSCORES")
            case b"stream" if ":dispatch:" in key:
                found[key] = [entry[1] for entry in await server.read("XRANGE", key, "-", "+")]
            case b"stream":
                entries = await server.read("XRANGE", key, "-", "+")
                found[key] = [(place, decode(fields[1], 0)) for place, fields in entries]
    return found


@pytest.mark.parametrize("job", JOBS, ids=range(len(JOBS)))
async def test_both_scripts_store_the_same(server: Nodes, keys: Keys, job: Job) -> None:
    """The record, the projection, the listings, the place in the queue."""
    await create(server, keys, job)
    after = await content(server)
    await server.read("FLUSHALL")
    records = decide_creation(job, [], NOW, "t" * 16)
    change = plan_change(keys.job(job.id), None, records)
    await append(server, keys.job(job.id), encode_records(records), call=Call("t"), change=change)
    assert await content(server) == after


@pytest.mark.parametrize("job", JOBS, ids=range(len(JOBS)))
def test_the_fields_are_those_of_the_fold(job: Job) -> None:
    """`created_fields` is a shorter way to what the state after the creation says."""
    [created] = decide_creation(job, [], NOW, "t" * 16)
    assert isinstance(created, Fact)
    assert (
        created_fields({**created.fields, "incarnation": created.token})
        == decided_changes(None, evolve(None, created))[0]
    )


@pytest.mark.parametrize(
    "job",
    [
        Job(id="j", status="running"),
        Job(id="j", status="completed"),
        Job(id="j", status="queued", events=[JobEvent("log", "a", timestamp=NOW)]),
    ],
    ids=lambda job: f"{job.status}-{len(job.events)}",
)
def test_other_jobs_go_the_way_of_all_appends(job: Job) -> None:
    """Those that don't wait, that have ended, that have events."""
    assert waiting_job(decide_creation(job, job.events, NOW)) is None


async def test_a_creation_is_recognised_by_its_token(server: Nodes, keys: Keys) -> None:
    """For ever, and by nothing else: another call with the same job is refused, whatever has become of the job."""
    await create(server, keys, JOBS[0], "1" * 16)
    before = await content(server)
    await create(server, keys, JOBS[0], "1" * 16)
    with pytest.raises(JobAlreadyExistsError):
        await create(server, keys, JOBS[0], "2" * 16)
    assert await content(server) == before


async def test_a_creation_is_recognised_after_the_job_has_ended(
    repository: RedisJobRepository, server: Nodes, keys: Keys
) -> None:
    """A call may be held up anywhere."""
    await create(server, keys, JOBS[0], "1" * 16)
    await repository.cancel_job("j")
    await create(server, keys, JOBS[0], "1" * 16)
    assert [event.type for event in await repository.get_events_since("j", 0)] == ["log", "complete"]


@pytest.mark.parametrize("part", ["job", "events"])
async def test_what_is_left_of_a_job_is_no_free_place(
    repository: RedisJobRepository, server: Nodes, keys: Keys, part: str
) -> None:
    """Whichever half of it is gone."""
    await create(server, keys, JOBS[0])
    await server.read("DEL", f"{{ci:0}}:{'events' if part == 'job' else 'job'}:j")
    with pytest.raises(JobAlreadyExistsError):
        await repository.create_job(JOBS[0])
    await server.read("FLUSHALL")


async def test_an_offer_that_nobody_hears_leaves_a_job_that_waits(server: Nodes, keys: Keys) -> None:
    """As it would be without the offer."""
    await server.read("ZADD", "{ci:0}:offers:default", 60_000, "gone")
    await server.read("HSET", "{ci:0}:offered:default", "gone", "abc-1 30000")
    await create(server, keys, JOBS[0])
    after = await content(server)
    assert after.pop("{ci:0}:offered:default")
    assert after.pop("{ci:0}:clock")
    await server.read("FLUSHALL")
    await create(server, keys, JOBS[0])
    assert await content(server) == after


@pytest.mark.parametrize(
    "job",
    [
        Job(id="j", status="queued"),
        Job(id="j", status="running"),
        Job(id="j", status="completed", success=True),
        Job(id="j", status="queued", events=[JobEvent("log", "a", timestamp=NOW)]),
    ],
    ids=lambda job: f"{job.status}-{len(job.events)}",
)
async def test_each_job_has_an_incarnation(repository: RedisJobRepository, job: Job) -> None:
    """A job that is created under the id of one that is gone has another one."""
    parts, found = repository.engine, set()
    for _ in range(2):
        await repository.create_job(job)
        state = await parts.jobs.state("j")
        assert state is not None
        found.add(state.incarnation)
        assert await repository.verify() == []
        await parts.nodes.read("FLUSHALL")
        await repository.initialize()
    assert None not in found
    assert len(found) == 2
