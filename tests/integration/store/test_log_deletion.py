"""A job's log is deleted and the job stays: whoever asks for what was in it is told, and what comes later goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from ci_common.errors import InvalidTransitionError, JobGoneError, JobNotFoundError, LogDeletedError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_logs
from ci_eventstore.facts.facts import FactKind
from ci_eventstore.history.copied_stores import StoreSource, StoreTarget
from ci_eventstore.history.copying import Copier
from ci_eventstore.history.seal import Sealed
from ci_eventstore.jobs.delete import DELETE_LOG
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from tests.claims import claim
from tests.fault_proxy import Fault, FaultProxy, at
from tests.integration.store.sealing import NOW, ended_job, lines, seal_job
from tests.servers import RealServer
from tests.waiting import wait_until

Use = Callable[[RedisJobRepository], Awaitable[object]]


async def follow(repository: RedisJobRepository, after: int = 0) -> list[int | None]:
    """Follow the job from a position to its end."""
    return [event.id async for event in repository.follow_events("j", after)]


async def replayed(repository: RedisJobRepository, since: int) -> list[int | None]:
    """Return the positions of all events that a replay has."""
    return [record.id async for record in repository.replay("j", since=since) if isinstance(record, JobEvent)]


#: Whatever asks for something that was in the log of a job with 31 events.
USES: dict[str, Use] = {
    "read": lambda repository: repository.read_events("j"),
    "read the last one": lambda repository: repository.read_events("j", 30),
    "read since": lambda repository: repository.get_events_since("j", 3),
    "follow": follow,
    "replay": lambda repository: anext(repository.replay("j")),
    "replay from a position": lambda repository: anext(repository.replay("j", since=31)),
    "replay from a time": lambda repository: anext(repository.replay("j", since=NOW)),
    "state at a position": lambda repository: repository.job_at("j", 30),
    "state at a time": lambda repository: repository.job_at("j", NOW),
}


async def see_that_the_log_is_gone(repository: RedisJobRepository) -> None:
    """Every reader is told, none gets an empty log; the record says so, and has all else."""
    for use in USES.values():
        with pytest.raises(LogDeletedError, match="up to event 31"):
            await use(repository)
    job = await repository.get_job("j")
    assert job is not None
    assert (job.status, job.success, job.name, job.log_deleted) == ("completed", True, "build", True)
    assert (job.command, job.end_time) == (["make"], NOW + timedelta(hours=1))
    summary = await repository.get_job_summary("j")
    assert summary is not None
    assert summary.log_deleted
    assert [listed.log_deleted for listed in await repository.list_jobs()] == [True]
    assert [listed.id for listed in await repository.page_jobs("ada", "completed")] == ["j"]


async def see_that_it_goes_on(repository: RedisJobRepository, count: int = 1) -> None:
    """What was written later has the positions that come next, for every reader."""
    expected = [*range(32, 32 + count)]
    assert [event.id for event in await repository.read_events("j", 31)] == expected
    assert await follow(repository, 31) == expected
    assert await replayed(repository, 32) == expected
    job = await repository.get_job("j")
    assert job is not None
    assert [event.id for event in job.events] == expected
    state = await repository.job_at("j", 31 + count)
    assert state is not None
    assert state.status == "completed"


async def no_text_is_left(server: Nodes, word: bytes = b"line 7") -> None:
    """See that no key has a line of the log, nor what is packed of it."""
    async for page in server.scan("{ci:0}:*"):
        for key in page:
            assert word not in (await server.read("DUMP", key) or b""), key
            assert ":segment:" not in key


@pytest.mark.parametrize("form", ["live", "sealed", "sealed and late", "two segments"])
async def test_its_readers_are_told(repository: RedisJobRepository, server: Nodes, form: str) -> None:
    """Before and after it is sealed again, and written to again; a second deletion does nothing."""
    await ended_job(repository, count=30 if form in ("live", "sealed") else 28)
    if form != "live":
        await seal_job(repository)
    if form.startswith(("sealed and", "two")):
        await repository.add_events("j", lines(2, 100))
    if form == "two segments":
        await seal_job(repository)
    assert await repository.delete_log("j")
    await no_text_is_left(server)
    for _ in range(2):
        await see_that_the_log_is_gone(repository)
        assert not await repository.delete_log("j")
        assert await repository.verify(deep=True) == []
        assert await seal_job(repository) in (Sealed.SEALED, Sealed.ALREADY)
    await repository.add_event("j", JobEvent("log", "late\n"))
    for _ in range(2):
        await see_that_the_log_is_gone(repository)
        await see_that_it_goes_on(repository)
        assert await repository.verify(deep=True) == []
        await seal_job(repository)
    assert await repository.delete_log("j")
    with pytest.raises(LogDeletedError, match="up to event 32"):
        await repository.read_events("j", 31)
    assert await repository.verify(deep=True) == []


@pytest.mark.parametrize("is_sealed", [False, True], ids=["live", "sealed"])
@pytest.mark.parametrize("is_late", [False, True], ids=["alone", "with late output"])
async def test_a_lost_record_is_made_of_what_is_left(
    repository: RedisJobRepository, server: Nodes, keys: Keys, is_sealed: bool, is_late: bool
) -> None:
    """The entry that stands for the log has the whole state."""
    await ended_job(repository)
    await repository.delete_log("j")
    if is_sealed:
        await seal_job(repository)
    if is_late:
        await repository.add_event("j", JobEvent("log", "late\n"))
    before = await repository.engine.jobs.state("j")
    await server.read("DEL", keys.job("j").hash)
    assert await repository.verify() != []
    await repository.rebuild()
    assert await repository.engine.jobs.state("j") == before
    await see_that_the_log_is_gone(repository)
    assert await repository.verify(deep=True) == []


async def test_a_long_log(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Its sparse index begins with the end of what was deleted, so that later lines are found by their numbers."""
    await ended_job(repository, count=2500)
    await repository.delete_log("j")
    await repository.add_events("j", lines(5, 3000))
    for _ in range(2):
        assert await repository.position_of_line("j", 2503) == 2501
        [event] = await repository.read_events("j", 2501, 1)
        assert event.data == "line 3000 ü\n"
        assert await repository.verify(deep=True) == []
        await seal_job(repository)
    await server.read("DEL", keys.job("j").hash)
    await repository.rebuild()
    assert await repository.verify(deep=True) == []


async def test_a_log_without_events(repository: RedisJobRepository) -> None:
    """There was nothing to read, so nobody is told that it is gone; the job says so."""
    await repository.create_job(Job(id="j", status="cancelled", user_id="ada"))
    assert await repository.delete_log("j")
    assert not await repository.delete_log("j")
    assert await repository.read_events("j") == []
    assert await follow(repository) == []
    assert await repository.verify(deep=True) == []
    await seal_job(repository)
    await repository.add_event("j", JobEvent("log", "late\n"))
    assert await follow(repository) == [1]
    assert await repository.verify(deep=True) == []


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_job_that_has_not_ended_keeps_its_log(repository: RedisJobRepository, status: str) -> None:
    """So does one that is another user's, or that isn't there."""
    await repository.create_job(Job(id="j", status=status, user_id="ada"))
    with pytest.raises(InvalidTransitionError, match="cancel it first"):
        await repository.delete_log("j")
    for job_id, user_id in (("j", "bob"), ("other", None)):
        with pytest.raises(JobNotFoundError):
            await repository.delete_log(job_id, user_id)
    await repository.cancel_job("j")
    assert await repository.delete_log("j", "ada")
    await repository.delete_job("j")
    with pytest.raises(JobGoneError):
        await repository.delete_log("j")


async def test_a_claimed_job_keeps_its_log(repository: RedisJobRepository) -> None:
    """Until its controller has ended it."""
    await repository.create_job(Job(id="j", status="queued", user_id="ada"))
    [claimed] = await claim(repository, "default", "controller", 1, 30)
    with pytest.raises(InvalidTransitionError):
        await repository.delete_log("j")
    await repository.writer("j", claimed.claim, claimed).complete(True, utc_now())
    assert await repository.delete_log("j")
    assert await repository.verify() == []


async def test_repeated_calls(repository: RedisJobRepository) -> None:
    """An append whose reply was lost is known when it comes again, a late one goes on, and a creation is a repeat."""
    await ended_job(repository)
    batch = encode_logs([JobEvent("log", "late\n", timestamp=utc_now())])
    await repository.engine.jobs.write("j", batch, Call("writer", 1))
    await repository.delete_log("j")
    for number in (1, 1, 2, 2):
        await repository.engine.jobs.write("j", batch, Call("writer", number))
    assert [event.id for event in await repository.read_events("j", 32)] == [33]
    assert await repository.verify() == []


async def test_two_delete_it_beside_late_output_and_a_sealer(repository: RedisJobRepository, server: Nodes) -> None:
    """Each late line is deleted with the log, or can be read after it."""
    for _ in range(15):
        await server.read("FLUSHALL")
        await ended_job(repository)

        async def write() -> None:
            for n in range(5):
                await repository.add_event("j", JobEvent("log", f"late {n}\n"))

        await asyncio.gather(
            *(repository.delete_log("j") for _ in range(3)),
            write(),
            seal_job(repository),
            follow_until_told(repository),
        )
        state = await repository.engine.jobs.state("j")
        assert state is not None
        assert state.deleted_to is not None
        assert state.position == 36
        assert len(await repository.read_events("j", state.deleted_to)) == 36 - state.deleted_to
        assert await repository.verify(deep=True) == []


async def follow_until_told(repository: RedisJobRepository) -> None:
    """Follow the job: all of it, or up to where it is told that the log was deleted."""
    seen = 0
    try:
        async for event in repository.follow_events("j"):
            seen += 1
            assert event.id == seen
    except LogDeletedError:
        return
    assert seen >= 31


async def test_a_follower_that_is_slow_is_told(repository: RedisJobRepository) -> None:
    """It gets what it has, then that the rest is gone; one that gets notices goes on with what came later."""
    await ended_job(repository, count=3000)
    events, records = repository.follow_events("j"), repository.follow_records("j")
    for _ in range(10):
        await anext(events)
        await anext(records)
    await repository.delete_log("j")
    with pytest.raises(LogDeletedError):
        async for _ in events:
            pass
    kinds = [record.type async for record in records]
    assert kinds[-2:] == ["gap", "log_deleted"]


async def test_it_is_a_fact_of_all_jobs(repository: RedisJobRepository) -> None:
    """Told once, with the last status."""
    batches = repository.subscribe("group")
    await (await anext(batches)).acknowledge()
    await ended_job(repository)
    await repository.delete_log("j")
    await repository.delete_log("j")
    await repository.delete_job("j")
    kinds: list[FactKind] = []
    while FactKind.DELETED not in kinds:
        batch = await anext(batches)
        kinds += [fact.kind for fact in batch.facts]
        await batch.acknowledge()
    await batches.aclose()
    assert kinds == [FactKind.CREATED, FactKind.ENDED, FactKind.LOG_DELETED, FactKind.DELETED]


async def test_a_server_without_memory(own: RealServer) -> None:
    """To delete is what helps then."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await ended_job(repository)
        nodes = repository.engine.nodes
        await nodes.read("CONFIG", "SET", "maxmemory", "1")
        try:
            assert await repository.delete_log("j")
        finally:
            await nodes.read("CONFIG", "SET", "maxmemory", "0")
        assert await repository.verify() == []


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
@pytest.mark.usefixtures("impatient")
async def test_a_reply_is_lost(own: RealServer, proxy: FaultProxy, fault: Fault) -> None:
    """Wherever the network fails once, the log is deleted once, and no late command deletes what came after it."""
    async with RedisJobRepository.from_url(own.url) as repository, RedisJobRepository.from_url(proxy.url) as remote:
        await ended_job(repository)
        await repository.engine.nodes.read("SCRIPT", "LOAD", DELETE_LOG.source)
        proxy.plan = at(fault, b"EVALSHA")
        await remote.delete_log("j")
        assert proxy.faults == 1
        await repository.add_event("j", JobEvent("log", "late\n"))
        await proxy.delivered()
        await see_that_it_goes_on(repository)
        assert await repository.verify() == []


@pytest.mark.slow
async def test_the_server_is_killed(own: RealServer) -> None:
    """What was deleted stays so, each other log is there whole, and the rest is deleted by doing it again."""
    deleted: list[str] = []
    async with RedisJobRepository.from_url(own.url) as repository:
        for n in range(40):
            await ended_job(repository, f"j-{n}", 5)

        async def delete_all() -> None:
            for n in range(40):
                await repository.delete_log(f"j-{n}")
                deleted.append(f"j-{n}")

        work = asyncio.create_task(delete_all())
        await wait_until(lambda: len(deleted) >= 10)
        own.kill()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    own.start()
    async with RedisJobRepository.from_url(own.url) as repository:
        assert await repository.verify() == []
        jobs = await repository.list_jobs()
        assert len(jobs) == 40
        assert set(deleted) <= {job.id for job in jobs if job.log_deleted}
        for job in jobs:
            if not job.log_deleted:
                assert len(await repository.read_events(job.id)) == 6
            await repository.delete_log(job.id)
        assert all(job.log_deleted for job in await repository.list_jobs())
        assert await repository.verify(deep=True) == []


async def test_a_copy_has_what_is_left(repository: RedisJobRepository, own: RealServer) -> None:
    """Also where the target has the log of before, and where it has both."""
    for n, is_sealed in enumerate((False, True)):
        await ended_job(repository, f"j{n}")
        if is_sealed:
            await seal_job(repository, f"j{n}")
    async with RedisJobRepository.from_url(own.url, partitions=3) as target:
        assert (await Copier(StoreSource(repository.engine), StoreTarget(target.engine)).copy()).is_whole
        for n in range(2):
            await repository.delete_log(f"j{n}")
        await seal_job(repository, "j1")
        await repository.add_event("j1", JobEvent("log", "late\n"))
        report = await Copier(StoreSource(repository.engine), StoreTarget(target.engine)).copy()
        assert report.is_whole, report
        assert report.copied == 2
        assert [event.data for event in await target.read_events("j1", 31)] == ["late\n"]
        with pytest.raises(LogDeletedError):
            await target.read_events("j0")
        assert await target.verify(deep=True) == []
