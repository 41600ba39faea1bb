"""Deletion leaves a tombstone and nothing else, and whoever asks for the job is told: by every way, in any order."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from ci_common.errors import InvalidTransitionError, JobGoneError, JobNotFoundError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.append import append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_logs
from ci_eventstore.facts.facts import FactKind
from ci_eventstore.jobs.create import create_waiting, waiting_job
from ci_eventstore.jobs.decide import decide_creation
from ci_eventstore.jobs.delete import DELETE
from ci_eventstore.jobs.tombstones import Reason, read_tombstone
from ci_eventstore.keys import Keys, gone_key
from ci_eventstore.repository import RedisJobRepository
from tests.claims import claim
from tests.fault_proxy import Fault, FaultProxy, at
from tests.integration.store.sealing import ended_job, seal_job
from tests.servers import RealServer
from tests.waiting import wait_until

Use = Callable[[RedisJobRepository], Awaitable[object]]


async def follow(repository: RedisJobRepository) -> None:
    """Follow the job from its beginning."""
    async for _ in repository.follow_events("j"):
        pass


USES: dict[str, Use] = {
    "create": lambda repository: repository.create_job(Job(id="j", status="queued")),
    "create with events": lambda repository: repository.create_job(
        Job(id="j", status="queued", events=[JobEvent("log", "a\n")])
    ),
    "create running": lambda repository: repository.create_job(Job(id="j", status="running", user_id="ada")),
    "append": lambda repository: repository.add_event("j", JobEvent("log", "late\n")),
    "change": lambda repository: repository.update_job_status("j", "running"),
    "complete": lambda repository: repository.complete_job("j", True, utc_now()),
    "cancel": lambda repository: repository.cancel_job("j"),
    "get": lambda repository: repository.get_job("j"),
    "summary": lambda repository: repository.get_job_summary("j"),
    "read": lambda repository: repository.read_events("j"),
    "read since": lambda repository: repository.get_events_since("j", 3),
    "line": lambda repository: repository.position_of_line("j", 3),
    "incarnation": lambda repository: repository.incarnation("j"),
    "verify": lambda repository: repository.verify("j"),
    "rebuild": lambda repository: repository.rebuild("j"),
    "follow": follow,
    "replay": lambda repository: anext(repository.replay("j")),
    "past state": lambda repository: repository.job_at("j", 1),
}


async def nothing_but_tombstones(server: Nodes) -> None:
    """See that no key of a partition is left but the tombstones', the queues' names and clocks."""
    found = {key async for page in server.scan("{ci:*}:*") for key in page}
    left = {key for key in found if ":accounts}" not in key}
    assert left <= {"{ci:0}:gone", "{ci:0}:queues", "{ci:0}:clock", "{ci:0}:dispatch:default"}, left


@pytest.mark.parametrize("is_sealed", [False, True], ids=["live", "sealed"])
async def test_all_that_uses_a_deleted_job_is_told(
    repository: RedisJobRepository, server: Nodes, keys: Keys, is_sealed: bool
) -> None:
    """Nothing of it is left, nothing makes it anew, and to delete it again does nothing."""
    await ended_job(repository)
    if is_sealed:
        await seal_job(repository)
        await repository.add_event("j", JobEvent("log", "late\n"))
    assert await repository.delete_job("j")
    await nothing_but_tombstones(server)
    tombstone = await read_tombstone(server, keys.job("j"))
    assert tombstone is not None
    assert (tombstone.reason, tombstone.status) == (Reason.ASKED, "completed")
    text = await server.read("HGET", gone_key("{ci:0}"), "j")
    # Numbers and the job's token, and nothing of its user.
    assert re.fullmatch(rb"ac \d+( [-\w]{10}){2} [a-z2-7]{12}", text)
    for use in USES.values():
        with pytest.raises(JobGoneError):
            await use(repository)
    assert not await repository.delete_job("j")
    assert await repository.list_jobs() == []
    await nothing_but_tombstones(server)


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_job_that_has_not_ended_is_not_deleted(repository: RedisJobRepository, status: str) -> None:
    """Nor is one that there never was, or that is another user's."""
    await repository.create_job(Job(id="j", status=status, user_id="ada"))
    with pytest.raises(InvalidTransitionError, match="cancel it first"):
        await repository.delete_job("j")
    for job_id, user_id in (("j", "bob"), ("other", None)):
        with pytest.raises(JobNotFoundError) as caught:
            await repository.delete_job(job_id, user_id)
        assert type(caught.value) is JobNotFoundError
    assert await repository.get_job_summary("j") is not None
    await repository.cancel_job("j")
    assert await repository.delete_job("j", "ada")


async def test_a_claimed_job(repository: RedisJobRepository, server: Nodes) -> None:
    """It is deleted after its controller has ended it, and leaves no lease and no ticket."""
    await repository.create_job(Job(id="j", status="queued", user_id="ada"))
    [claimed] = await claim(repository, "default", "controller", 1, 30)
    with pytest.raises(InvalidTransitionError):
        await repository.delete_job("j")
    await repository.writer("j", claimed.claim, claimed).complete(True, utc_now())
    assert await repository.delete_job("j")
    assert await repository.verify() == []


async def test_repeated_calls_are_told(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """A creation and an append whose replies were lost, and that come again after the deletion."""
    job = keys.job("j")
    created = waiting_job(decide_creation(Job(id="j", status="queued"), [], utc_now(), "token", None))
    assert created is not None
    await create_waiting(server, job, created)
    await append(server, job, encode_logs([JobEvent("log", "a\n", timestamp=utc_now())]), call=Call("writer", 1))
    await repository.cancel_job("j")
    await repository.delete_job("j")
    with pytest.raises(JobGoneError):
        await create_waiting(server, job, created)
    for number in (1, 2):
        with pytest.raises(JobGoneError):
            await repository.engine.jobs.write(
                "j", encode_logs([JobEvent("log", "a\n", timestamp=utc_now())]), Call("writer", number)
            )


async def test_two_delete_at_once_beside_late_output(repository: RedisJobRepository, server: Nodes) -> None:
    """One of them has deleted it; a write comes before, or is told; the sealer stands aside."""
    for _ in range(20):
        await server.read("FLUSHALL")
        await ended_job(repository)

        async def write() -> None:
            try:
                for n in range(5):
                    await repository.add_event("j", JobEvent("log", f"late {n}\n"))
            except JobGoneError:
                pass

        deletions = [repository.delete_job("j") for _ in range(3)]
        found, _, _ = await asyncio.gather(asyncio.gather(*deletions), write(), seal_job(repository))
        assert sorted(found) == [False, False, True]
        assert await repository.verify() == []


async def test_it_is_a_fact_of_all_jobs(repository: RedisJobRepository) -> None:
    """Told once, with the last status."""
    batches = repository.subscribe("group")
    await (await anext(batches)).acknowledge()
    await ended_job(repository)
    await repository.delete_job("j")
    await repository.delete_job("j")
    kinds: list[FactKind] = []
    while FactKind.DELETED not in kinds:
        batch = await anext(batches)
        kinds += [fact.kind for fact in batch.facts]
        await batch.acknowledge()
    await batches.aclose()
    assert kinds == [FactKind.CREATED, FactKind.ENDED, FactKind.DELETED]


async def test_a_list_goes_on_after_a_deleted_job(repository: RedisJobRepository) -> None:
    """The place of a page is a place in time, not a job."""
    for n in range(6):
        await ended_job(repository, f"job-{n}", 1)
    listed = [job.id for job in await repository.list_jobs()]
    first = await repository.page_jobs(limit=3)
    await repository.delete_job(first[-1].id)
    assert [job.id for job in await repository.page_jobs(limit=3, before=first[-1].id)] == listed[3:]


async def test_a_list_whose_jobs_are_deleted_while_it_is_paged(repository: RedisJobRepository) -> None:
    """The last one of each page, and one of the next page: all others come once, in their order."""
    for n in range(24):
        await ended_job(repository, f"job-{n:02}", 1)
    listed = [job.id for job in await repository.list_jobs()]
    found, before, deleted = list[str](), None, set[str]()
    while page := await repository.page_jobs("ada", limit=4, before=before):
        found += [job.id for job in page]
        before = page[-1].id
        for job_id in (before, *listed[len(found) + len(deleted - set(found)) :][:1]):
            deleted.add(job_id)
            await repository.delete_job(job_id)
    assert [job_id for job_id in found if job_id not in deleted] == [one for one in listed if one not in deleted]
    assert len(found) == len(set(found))
    assert len(deleted) > 8


@pytest.mark.parametrize("what", ["stream", "hash"])
async def test_what_is_left_of_a_deleted_job_is_removed(
    repository: RedisJobRepository, server: Nodes, keys: Keys, what: str
) -> None:
    """The tombstone wins: `verify` names what is left, `rebuild` and another deletion make no job of it."""
    await ended_job(repository)
    job = keys.job("j")
    key = job.stream if what == "stream" else job.hash
    dumped = await server.read("DUMP", key)
    await repository.delete_job("j")
    await server.read("RESTORE", key, 0, dumped)
    assert [difference.place for difference in await repository.verify()] == [f"key {key}"]
    await repository.rebuild()
    await nothing_but_tombstones(server)


async def test_a_server_without_memory(own: RealServer) -> None:
    """To delete is what helps then."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await ended_job(repository)
        nodes = repository.engine.nodes
        await nodes.read("CONFIG", "SET", "maxmemory", "1")
        try:
            assert await repository.delete_job("j")
        finally:
            await nodes.read("CONFIG", "SET", "maxmemory", "0")
        assert await repository.verify() == []


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
@pytest.mark.usefixtures("impatient")
async def test_a_reply_is_lost(own: RealServer, proxy: FaultProxy, fault: Fault) -> None:
    """Wherever the network fails once, the job is deleted once, and no late command finds another of its name."""
    async with RedisJobRepository.from_url(own.url) as repository, RedisJobRepository.from_url(proxy.url) as remote:
        await ended_job(repository)
        await repository.engine.nodes.read("SCRIPT", "LOAD", DELETE.source)
        proxy.plan = at(fault, b"EVALSHA")
        await remote.delete_job("j")
        assert proxy.faults == 1
        await proxy.delivered()
        with pytest.raises(JobGoneError):
            await repository.get_job("j")
        assert not await repository.delete_job("j")
        assert await repository.verify() == []


async def test_the_server_is_killed(own: RealServer) -> None:
    """What was deleted stays so, and each other job is there whole."""
    deleted: list[str] = []
    async with RedisJobRepository.from_url(own.url) as repository:
        for n in range(40):
            await ended_job(repository, f"j-{n}", 5)

        async def delete_all() -> None:
            for n in range(40):
                await repository.delete_job(f"j-{n}")
                deleted.append(f"j-{n}")

        work = asyncio.create_task(delete_all())
        await wait_until(lambda: len(deleted) >= 10)
        own.kill()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    own.start()
    async with RedisJobRepository.from_url(own.url) as repository:
        assert await repository.verify() == []
        there = {job.id for job in await repository.list_jobs()}
        assert not there & set(deleted)
        for job_id in there:
            assert len(await repository.read_events(job_id)) == 6
        for n in range(40):
            await repository.delete_job(f"j-{n}")
        assert await repository.list_jobs() == []
