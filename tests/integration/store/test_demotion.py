"""A failover by hand: the old primary becomes a replica, the address leads to the new one, connections stay open."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller
from ci_eventstore.following import hub
from ci_eventstore.repository import RedisJobRepository
from tests.fault_proxy import FaultProxy
from tests.integration.store.replicas import Pair
from tests.servers import RealServer
from tests.waiting import wait_until

WRITERS = 20


@pytest.fixture
async def proxy(pair: Pair) -> AsyncIterator[FaultProxy]:
    """The address, which leads to the primary at first."""
    async with FaultProxy(pair[0].socket_path) as opened:
        yield opened


async def demote(pair: Pair, proxy: FaultProxy, seconds_between: float = 0.0) -> None:
    """Make the replica the primary, and the primary its replica, without a loss; the address follows a little later."""
    primary, other = pair
    async with Redis(port=primary.port) as old, Redis(port=other.port) as new:
        await old.client_pause(5000, all=False)
        while await offset(old, "master_repl_offset") != await offset(new, "slave_repl_offset"):
            pass
        await new.execute_command("REPLICAOF", "NO", "ONE")
        await old.execute_command("REPLICAOF", "127.0.0.1", other.port)
        await old.client_unpause()
    await asyncio.sleep(seconds_between)
    proxy.upstream = other.socket_path


async def offset(server: Redis, name: str) -> int:
    return int((await server.info("replication"))[name])


async def listeners(server: RealServer) -> int:
    """Return how many connections listen to channels."""
    async with Redis(port=server.port) as admin:
        return len(await admin.client_list(_type="pubsub"))


async def until_listening_at(server: RealServer, not_at: RealServer) -> None:
    while not await listeners(server) or await listeners(not_at):  # noqa: ASYNC110 - the servers have no event to wait for
        await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seconds_between", [0.0, 3.0])
async def test_writes_go_on_at_the_new_primary(pair: Pair, proxy: FaultProxy, seconds_between: float) -> None:
    """Writers and a follower with connections to the old primary go on at the new one, at once."""
    async with RedisJobRepository.from_url(proxy.url) as repository:
        for number in range(WRITERS):
            await repository.create_job(Job(id=f"j{number}", status="running"))
            await repository.add_event(f"j{number}", JobEvent("log", "before\n"))
        following = repository.follow_events("j0")
        assert (await anext(following)).data == "before\n"
        await demote(pair, proxy, seconds_between)
        began = time.monotonic()
        writes = [repository.add_event(f"j{number}", JobEvent("log", "after\n")) for number in range(WRITERS)]
        await asyncio.gather(*writes)
        # Two tenths of a second on a quiet machine.
        assert time.monotonic() - began < 5.0
        async with asyncio.timeout(10):
            assert (await anext(following)).data == "after\n"
            await until_listening_at(pair[1], not_at=pair[0])
        await repository.add_event("j0", JobEvent("log", "last\n"))
        assert (await anext(following)).data == "last\n"
        await following.aclose()
        for number in range(WRITERS):
            events = await repository.get_events_since(f"j{number}", 0)
            assert [event.data for event in events][:2] == ["before\n", "after\n"]
        assert await repository.verify() == []


@pytest.mark.slow
async def test_writes_wait_for_an_address_that_follows_later(pair: Pair, proxy: FaultProxy) -> None:
    """Writes that meet the demoted primary first are refused there, and stored once at the new one."""
    async with RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        moving = asyncio.create_task(demote(pair, proxy, 2.0))
        written = 0
        while not moving.done() or written < 100:
            await repository.add_event("j", JobEvent("log", f"{written}\n"))
            written += 1
        await moving
        events = await repository.get_events_since("j", 0)
        assert [event.data for event in events] == [f"{number}\n" for number in range(written)]
        assert repository.engine.nodes.counters.errors == 0
        assert await repository.verify() == []


@pytest.mark.slow
async def test_who_only_reads_leaves_the_old_primary_too(
    pair: Pair, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that only follows is never refused; it looks at the server's role, and listens at the new primary."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.2)
    async with RedisJobRepository.from_url(proxy.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        following = repository.follow_events("j")
        waiting = asyncio.ensure_future(anext(following))
        async with asyncio.timeout(10):
            await until_listening_at(pair[0], not_at=pair[1])
        await wait_until(lambda: repository.engine.nodes.all[0].role == "master")
        await demote(pair, proxy)
        async with asyncio.timeout(20):
            await until_listening_at(pair[1], not_at=pair[0])
        async with RedisJobRepository.from_url(pair[1].url) as writer:
            await writer.add_event("j", JobEvent("log", "news\n"))
        assert (await waiting).data == "news\n"
        await following.aclose()


@pytest.mark.slow
async def test_writers_followers_and_controllers_move_together(pair: Pair, proxy: FaultProxy) -> None:
    """20 writers, as many followers and two controllers go on at the new primary; no job runs twice."""
    runs, slowest = Counter[str](), 0.0
    async with AsyncExitStack() as stack:
        writing, following, *controlling = [
            await stack.enter_async_context(RedisJobRepository.from_url(proxy.url)) for _ in range(4)
        ]
        written, is_over = Counter[str](), False

        async def write(job_id: str) -> None:
            nonlocal slowest
            while not is_over:
                began = time.monotonic()
                await writing.add_event(job_id, JobEvent("log", f"{written[job_id]}\n"))
                slowest = max(slowest, time.monotonic() - began)
                written[job_id] += 1
                await asyncio.sleep(0.01)
            await writing.complete_job(job_id, True, utc_now())

        async def follow(job_id: str) -> list[str | None]:
            return [event.data async for event in following.follow_events(job_id)]

        async def handle(claimed: ClaimedJob) -> None:
            runs[claimed.job.id] += 1
            await asyncio.sleep(0.2)

        async def submit() -> None:
            while not is_over:
                await writing.create_job(Job(id=f"queued-{written['queued']}", status="queued"))
                written["queued"] += 1
                await asyncio.sleep(0.1)

        jobs = [f"j{number}" for number in range(WRITERS)]
        for job_id in jobs:
            await writing.create_job(Job(id=job_id, status="running"))
        controllers = [await stack.enter_async_context(Controller(repository)) for repository in controlling]
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(follow(job_id)) for job_id in jobs]
            controls = [group.create_task(controller.run(handle)) for controller in controllers]
            writers = [group.create_task(write(job_id)) for job_id in jobs]
            writers.append(group.create_task(submit()))
            await asyncio.sleep(1.0)
            await demote(pair, proxy, 1.0)
            await asyncio.sleep(4.0)
            is_over = True
            await asyncio.gather(*writers)
            async with asyncio.timeout(60):
                while await writing.page_jobs(status="queued") or await writing.page_jobs(status="running"):
                    pass
            for controller in controllers:
                controller.stop()
            await asyncio.gather(*controls)
        for job_id, follower in zip(jobs, followers, strict=True):
            lines = [f"{number}\n" for number in range(written[job_id])]
            assert follower.result()[:-1] == lines
        assert runs == Counter({f"queued-{number}": 1 for number in range(written["queued"])})
        logging.getLogger("tests.demotion").warning("the slowest write took %.2f seconds, the move one", slowest)
        assert slowest < 10
        assert await writing.verify() == []
