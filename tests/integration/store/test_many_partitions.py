"""Controllers of a store with many partitions: no job is left waiting, and those that are idle ask for little."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, islice
from typing import Any

import pytest

from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import Script
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues import claimer, watch
from ci_eventstore.queues.claimer import Claimer
from ci_eventstore.queues.outlook import SEEN_SECONDS
from ci_eventstore.queues.watch import share
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store.offers import Waiter
from tests.servers import RealServer
from tests.waiting import wait_until

PARTITIONS, FEW = 64, 16
#: Nothing is found by looking, or it looks all the time.
PATIENT = ControllerSettings(poll_seconds=3600.0, grace_seconds=0.2)
RESTLESS = ControllerSettings(poll_seconds=0.01, grace_seconds=0.2)

Handle = Callable[[ClaimedJob], Coroutine[Any, Any, None]]
Open = Callable[[int], Awaitable[RedisJobRepository]]


@pytest.fixture
async def parted(valkey: RealServer, server: Nodes) -> AsyncIterator[Open]:
    """Opens repositories of one store with so many partitions, as processes of their own would."""
    async with AsyncExitStack() as stack:
        opened: list[RedisJobRepository] = []

        async def open_one(partitions: int) -> RedisJobRepository:
            repository = RedisJobRepository.from_url(valkey.url, partitions=partitions)
            opened.append(await stack.enter_async_context(repository))
            return repository

        yield open_one
        assert await opened[0].verify() == []


@asynccontextmanager
async def controllers(
    open_one: Open,
    partitions: int,
    number: int,
    handle: Handle,
    settings: ControllerSettings,
) -> AsyncIterator[list[Controller]]:
    """Run controllers, each with a repository of its own, that have seen that there is nothing to do."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(number):
            repository = await open_one(partitions)
            found.append(await stack.enter_async_context(Controller(repository, settings=settings)))
        working = [asyncio.create_task(controller.run(handle)) for controller in found]
        await wait_until(lambda: all(is_waiting(controller) for controller in found))
        yield found
        for controller in found:
            controller.stop()
        await asyncio.gather(*working)


def is_waiting(controller: Controller) -> bool:
    """Return whether it hears messages of all partitions, looks at none and has made an offer."""
    claimer = claimer_of(controller)
    has_all = not claimer._outlook._unheard and not claimer._outlook.hinted
    return has_all and controller._is_waiting and not controller._woken.is_set() and claimer._offer.place is not None


def claimer_of(controller: Controller) -> Claimer:
    return controller._open_intake()._claimer


def ids_in(keys: Keys, tag: str) -> Iterator[str]:
    """Yield ids of jobs of one partition."""
    return (str(number) for number in count() if keys.job(str(number)).tag == tag)


async def calls_of(server: Nodes, *commands: str) -> int:
    """Return how often the server has run some commands, or all but for this one."""
    lines = (await server.read("INFO", "commandstats")).decode().splitlines()
    found = {
        line.partition(":")[0].removeprefix("cmdstat_"): int(line.partition("calls=")[2].partition(",")[0])
        for line in lines
        if line.startswith("cmdstat_")
    }
    return sum(number for name, number in found.items() if name in commands or (not commands and name != "info"))


async def test_jobs_of_one_partition_all_begin(parted: Open, server: Nodes) -> None:
    """Of 64, while three controllers wait; each by a message, at the cost of a few scripts and not of 64 questions."""
    begun: list[str] = []

    async def handle(job: ClaimedJob) -> None:
        begun.append(job.job.id)

    submitter = await parted(PARTITIONS)
    keys = submitter.engine.keys
    async with controllers(parted, PARTITIONS, 3, handle, PATIENT) as found:
        places = {claimer_of(controller)._offer.place for controller in found}
        free = next(tag for tag in keys.tags if QueueKeys("default", tag) not in places)
        before = await calls_of(server, "evalsha", "eval")
        ids = list(islice(ids_in(keys, free), 20))
        for number, job in enumerate(ids, 1):
            await submitter.create_job(Job(id=job, status="queued"))
            await wait_until(lambda number=number: len(begun) == number)  # type: ignore[misc]
        await wait_until(lambda: all(is_waiting(controller) for controller in found))
        scripts = await calls_of(server, "evalsha", "eval") - before
    assert begun == ids
    assert scripts <= 20 * len(ids)
    assert {await server.read("HGET", keys.job(job).hash, "attempts") for job in ids} == {b"1"}


async def test_jobs_that_come_while_all_are_busy_run(parted: Open) -> None:
    """In many partitions: whoever has room again knows where jobs wait, without a poll."""
    begun, may_end = set[str](), asyncio.Event()

    async def handle(job: ClaimedJob) -> None:
        begun.add(job.job.id)
        await may_end.wait()

    submitter = await parted(PARTITIONS)
    async with controllers(parted, PARTITIONS, 3, handle, PATIENT):
        for number in range(40):
            await submitter.create_job(Job(id=f"{number}", status="queued", user_id=f"{number % 3}"))
        await wait_until(lambda: len(begun) == 3)
        may_end.set()
        await wait_until(lambda: len(begun) == 40)
    assert {str(job.status) for job in await submitter.list_jobs()} == {"completed"}


@pytest.mark.parametrize("what", ["waits", "is lost"])
async def test_what_no_message_tells_of_is_found(
    parted: Open, server: Nodes, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A job whose message was lost, and one whose controller is gone: somebody looks at each partition."""
    begun: list[str] = []

    async def handle(job: ClaimedJob) -> None:
        begun.append(job.job.id)

    submitter = await parted(FEW)
    ids, engine = [f"{number}" for number in range(2 * FEW)], submitter.engine
    if what == "is lost":
        await create(submitter, ids)
        assert len(await claims.claim(submitter, "default", "dead", len(ids), 30.0)) == len(ids)
    async with controllers(parted, FEW, 2, handle, RESTLESS):
        monkeypatch.setattr(Claimer, "_read", lambda self, channel, message: None)
        if what == "waits":
            await create(submitter, ids)
        else:
            for tag in engine.keys.tags:
                await server.read("HINCRBY", QueueKeys("default", tag).clock, "now", 31_000)
        await wait_until(lambda: len(begun) == len(ids))
        monkeypatch.undo()
    assert sorted(begun, key=int) == ids


async def create(repository: RedisJobRepository, ids: list[str]) -> None:
    for job_id in ids:
        await repository.create_job(Job(id=job_id, status="queued"))


async def test_a_damaged_partition_harms_no_other(
    parted: Open, server: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its jobs wait until it is mended; a controller whose offer stands there runs those of others."""
    begun: list[str] = []

    async def handle(job: ClaimedJob) -> None:
        begun.append(job.job.id)

    submitter = await parted(FEW)
    keys = submitter.engine.keys
    async with controllers(parted, FEW, 1, handle, RESTLESS) as [controller]:
        place = claimer_of(controller)._offer.place
        assert place is not None
        await server.read("SET", place.dispatch, "damage")
        ids = [f"{number}" for number in range(2 * FEW) if keys.job(f"{number}").tag != place.tag]
        await create(submitter, ids)
        await wait_until(lambda: len(begun) == len(ids))
        assert "no jobs can be claimed" in caplog.text
        await server.read("DEL", place.dispatch)
        [late] = islice(ids_in(keys, place.tag), 1)
        await create(submitter, [late])
        await wait_until(lambda: begun[-1] == late)


async def test_a_partition_that_is_away_holds_nobody_up(
    parted: Open, server: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller whose offer stands there runs the jobs of others, and makes its offer elsewhere."""
    begun: list[str] = []

    async def handle(job: ClaimedJob) -> None:
        begun.append(job.job.id)

    run, read_many = Nodes.run, Nodes.read_many
    for module in (claimer, watch):
        monkeypatch.setattr(module, "ASK_SECONDS", 0.05)
    submitter = await parted(FEW)
    keys = submitter.engine.keys
    async with controllers(parted, FEW, 1, handle, RESTLESS) as [controller]:
        place = claimer_of(controller)._offer.place
        assert place is not None

        async def hang(self: Nodes, script: Script, *arguments: Any) -> Any:
            is_away = script.name in ("peek", "claim", "share") and place.tag in str(arguments)
            return await (asyncio.sleep(3600) if is_away else run(self, script, *arguments))

        async def hang_together(self: Nodes, commands: Any) -> Any:
            return await (asyncio.sleep(3600) if place.tag in str(commands) else read_many(self, commands))

        with monkeypatch.context() as patched:
            patched.setattr(Nodes, "run", hang)
            patched.setattr(Nodes, "read_many", hang_together)
            ids = [f"{number}" for number in range(2 * FEW) if keys.job(f"{number}").tag != place.tag]
            await create(submitter, ids)
            await wait_until(lambda: len(begun) == len(ids))
            await wait_until(lambda: claimer_of(controller)._offer.place not in (None, place))
        [late] = islice(ids_in(keys, place.tag), 1)
        await create(submitter, [late])
        await wait_until(lambda: begun[-1] == late)


@pytest.mark.slow
async def test_idle_controllers_ask_for_the_sum_and_not_the_product(parted: Open, server: Nodes) -> None:
    """Slow, as it waits for ten polls: eight controllers and 64 partitions, counted by the server."""
    number, polls, seconds = 8, 10, 0.2

    async def handle(job: ClaimedJob) -> None:
        raise AssertionError("there was to be nothing to do")

    settings = ControllerSettings(poll_seconds=seconds, grace_seconds=0.2)
    async with controllers(parted, PARTITIONS, number, handle, settings):
        loop, before = asyncio.get_running_loop(), await calls_of(server)
        began_at, asked_before = loop.time(), await calls_of(server, "evalsha")
        # A poll has a question, and may have a script that counts the controllers.
        while await calls_of(server, "evalsha") < asked_before + 2 * number * polls:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.05)
        commands, passed = await calls_of(server) - before, loop.time() - began_at
    # At most so many polls were made in that time; each has at most 30 commands, those of its own look among them.
    most = number * (passed / (seconds / 2) + 1)
    assert commands <= 30 * most + 10 * PARTITIONS * (1 + passed / SEEN_SECONDS)


async def test_who_shares_partitions_is_counted(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """For as long as it said, or until it leaves; the count is in the partition of the queue's name, and expires."""
    sharing = QueueKeys("default", keys.job("default").tag).sharing
    for number, session in enumerate(("1", "2", "2", "3")):
        assert await share(server, keys, "default", session, 60_000) == number + (number < 2)
    await server.read("ZADD", sharing, 1, "gone", 2, "as well")
    assert await share(server, keys, "default", "3", 0) == 2
    assert await server.read("ZRANGE", sharing, 0, -1) == [b"1", b"2"]
    assert 0 < await server.read("PTTL", sharing) <= 86_400_000
    assert await share(server, keys, "other", "1", 60_000) == 1


async def test_controllers_know_how_many_they_are(parted: Open, server: Nodes) -> None:
    """Those that come are counted by all others; those that end are so no longer, and nothing is left of them."""

    async def handle(job: ClaimedJob) -> None:
        raise AssertionError("there was to be nothing to do")

    submitter = await parted(FEW)
    keys = submitter.engine.keys
    async with controllers(parted, FEW, 3, handle, RESTLESS) as found:
        slices = [claimer_of(controller)._outlook.slices["default"] for controller in found]
        await wait_until(lambda: [one.controllers for one in slices] == [3, 3, 3])
        found[0].stop()
    left = await server.read("KEYS", "*:sharing:default")
    assert (left, await server.read("KEYS", "*:offer*")) == ([], [])
    assert keys.partitions == FEW


async def test_a_waiter_that_isnt_needed_only_remembers_a_message(
    parted: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many idle controllers some follow it at once; the others look there when they ask the next time."""
    repository = await parted(FEW)
    waiter = Waiter(repository, "c1")
    await waiter.listen()
    assert await waiter.ask() == []
    waiter.claimer._outlook.slices["default"].count(1000, 0.0)
    place = waiter.claimer._offer.place
    assert place is not None
    job = next(f"{number}" for number in count() if repository.engine.keys.job(f"{number}").tag != place.tag)
    monkeypatch.setattr("ci_eventstore.queues.claimer.random.random", lambda: 0.5)
    await repository.create_job(Job(id=job, status="queued"))
    await wait_until(lambda: bool(waiter.claimer._outlook.hinted))
    assert waiter.heard == []
    assert await waiter.ask() == [job]
    await waiter.close()
