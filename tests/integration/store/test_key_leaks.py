"""What jobs leave behind in the store: `docs/format.md` names each key, and says how long it stays."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import LateOutputError
from ci_eventstore.events.append import LATE_BYTES
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from tests.servers import RealServer

FORMAT = Path(__file__).parents[3] / "docs" / "format.md"
ROWS = re.findall(
    r"^\| `([^`]+)` \|[^|]*\| ?([^|]*?) \|$", FORMAT.read_text().partition("Named already")[0], re.MULTILINE
)
LOG = JobEvent("log", "one more line of a log that is long\n")

Life = Callable[[RedisJobRepository, str], Awaitable[None]]


def kind_of(key: str) -> str:
    """Return what a key is called, as it stands between its tag and its next colon: `job` of `{ci:0}:job:a`."""
    return key.partition("}:")[2].partition(":")[0]


#: The kinds of keys that are in the table, and whether they expire.
EXPIRES = {kind_of(name.replace("<tag>", "{}")): text.endswith("expires") for name, text in ROWS if "<tag>" in name}
#: Those of one job.
OF_A_JOB = {kind_of(name.replace("<tag>", "{}")) for name, _ in ROWS if name.endswith(":<id>")}


async def waits(repository: RedisJobRepository, job_id: str) -> None:
    """Be created, and wait."""
    await repository.create_job(Job(id=job_id, status="queued", user_id="ada"))


async def runs(repository: RedisJobRepository, job_id: str) -> None:
    """Be created running, with a log."""
    await repository.create_job(Job(id=job_id, status="running", events=[LOG]))


async def is_created_ended(repository: RedisJobRepository, job_id: str) -> None:
    """Be created when all is over."""
    await repository.create_job(Job(id=job_id, status="completed", success=True, end_time=utc_now()))


async def ends(repository: RedisJobRepository, job_id: str) -> None:
    """Run and end without a controller."""
    await waits(repository, job_id)
    await repository.update_job_status(job_id, "running")
    await repository.add_event(job_id, LOG)
    await repository.complete_job(job_id, False, utc_now())


async def is_cancelled(repository: RedisJobRepository, job_id: str) -> None:
    """Be cancelled while it waits."""
    await waits(repository, job_id)
    await repository.cancel_job(job_id)


async def outgrows_its_budget(repository: RedisJobRepository, job_id: str) -> None:
    """Print more than a log may have, then end."""
    await runs(repository, job_id)
    await repository.add_events(job_id, [LOG] * 1200)
    await repository.complete_job(job_id, True, utc_now())


async def prints_late(repository: RedisJobRepository, job_id: str) -> None:
    """Print after the end, more than is taken."""
    await ends(repository, job_id)
    await repository.add_event(job_id, JobEvent("log", "x" * (LATE_BYTES // 2)))
    with pytest.raises(LateOutputError):
        await repository.add_events(job_id, [JobEvent("log", "x" * (LATE_BYTES // 2))] * 2)


async def is_held(repository: RedisJobRepository, job_id: str) -> None:
    """Be one of `ci-eventstore run`."""
    claim = await repository.engine.holders.create(Job(id=job_id, status="running"), "run-1", 30.0)
    await repository.writer(job_id, claim).append([LOG, JobEvent("complete", success=True)])


async def loses_its_holder(repository: RedisJobRepository, job_id: str) -> None:
    """Be left by its holder before it has ended: its lease stays until somebody looks."""
    await repository.engine.holders.create(Job(id=job_id, status="running"), "run-2", 30.0)


async def is_handled(repository: RedisJobRepository, job_id: str, *, is_given_back: bool = False) -> None:
    """Be run by a controller that offers to take it and is given it at once."""

    async def handler(job: ClaimedJob) -> None:
        await job.write("from the handler\n")
        if is_given_back:
            await job.hand_back("no disk")
        controller.stop()

    queue = f"q-{job_id}"
    settings = ControllerSettings(poll_seconds=0.2)
    await repository.create_job(Job(id=job_id, status="queued", user_id="ada", queue=queue))
    async with Controller(repository, queues=[queue], settings=settings) as controller:
        await controller.run(handler)


async def is_handed_back(repository: RedisJobRepository, job_id: str) -> None:
    """Be handed back by a controller whose machine can't run it."""
    await is_handled(repository, job_id, is_given_back=True)


async def is_offered(repository: RedisJobRepository, job_id: str) -> None:
    """Be created while a controller waits for it."""

    async def handler(job: ClaimedJob) -> None:
        if job.job.id == job_id:
            controller.stop()
        else:
            await repository.create_job(Job(id=job_id, status="queued", queue="offers"))

    await repository.create_job(Job(id=f"{job_id}-first", status="queued", queue="offers"))
    async with Controller(repository, queues=["offers"], settings=ControllerSettings(concurrency=2)) as controller:
        await controller.run(handler)


LIVES: list[Life] = [
    waits, runs, is_created_ended, ends, is_cancelled, outgrows_its_budget, prints_late, is_held, loses_its_holder,
    is_handled, is_handed_back, is_offered,
]  # fmt: skip


async def leaks(nodes: Nodes, keys: Keys) -> list[str]:
    """Return the keys of the store that nobody owns, or that stay longer than they may."""
    jobs = [member.decode() for member in await nodes.read("ZRANGE", keys.job("").ids, 0, -1)]
    owned = {key for job_id in jobs for key in keys.job(job_id).all()}
    found = []
    for key in [key.decode() for key in await nodes.read("KEYS", "*")]:
        kind, has_owner = kind_of(key), key in owned
        if key.startswith(f"{{{keys.prefix}:accounts}}:"):
            continue
        if kind not in EXPIRES or (kind in OF_A_JOB) != has_owner:
            found.append(f"{key} is nobody's")
        if EXPIRES.get(kind) and await nodes.read("PTTL", key) < 0:
            found.append(f"{key} stays for ever")
    return found


def test_the_table_is_read() -> None:
    """It says which keys are one job's, as the code does, and which ones expire."""
    assert {kind_of(key) for key in Keys("ci").job("a").all()} == OF_A_JOB
    assert set(EXPIRES) > OF_A_JOB | {"ids", "backlog", "clock", "queues"}
    assert {kind for kind, expires in EXPIRES.items() if expires} >= {"calls", "claims", "ends"}


@pytest.mark.parametrize("life", LIVES)
async def test_a_job_leaves_only_what_is_its_own(valkey: RealServer, server: Nodes, keys: Keys, life: Life) -> None:
    """Each key that is there after a life is a job's, expires, or is of those that are a queue's or a partition's."""
    async with RedisJobRepository.from_url(valkey.url, max_head_bytes=4096) as repository:
        await life(repository, "j")
        assert await leaks(server, keys) == []
        assert await repository.verify() == []
        job = await repository.get_job_summary("j")
        assert job is not None
        if job.end_time is not None:
            assert not await server.read("EXISTS", keys.job("j").ring)


async def test_a_leak_is_found(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Of a key that no table has, of one of a job that there isn't, and of one that should expire."""
    await waits(repository, "j")
    tag = keys.tag(0)
    made = [f"{tag}:other", f"{tag}:ring:gone", f"{tag}:claims:default"]
    for key in made:
        await server.read("SET", key, "x")
    assert sorted(await leaks(server, keys)) == [
        f"{tag}:claims:default stays for ever", f"{tag}:other is nobody's", f"{tag}:ring:gone is nobody's"
    ]  # fmt: skip
    await server.read("DEL", *made)
