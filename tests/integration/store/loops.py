"""Every public entry of a repository, and every way in which programs come to a second event loop."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import uvloop
from asgiref.sync import async_to_sync

from ci_common.models import APIKey, Job, JobEvent, User, utc_now
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.repository import RedisJobRepository
from tests import claims

Work = Callable[[], Coroutine[Any, Any, None]]
Step = Callable[[RedisJobRepository, str], Awaitable[object]]
#: Runs each piece of work in an event loop of its own.
Runner = Callable[[list[Work]], None]


def with_asyncio_run(works: list[Work]) -> None:
    """As scripts do."""
    for work in works:
        asyncio.run(work())


def with_uvloop(works: list[Work]) -> None:
    """As scripts do that want to be fast."""
    for work in works:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())


def with_async_to_sync(works: list[Work]) -> None:
    """As Django does."""
    for work in works:
        async_to_sync(work)()


def with_threads(works: list[Work]) -> None:
    """As servers do whose threads have loops of their own."""
    for work in works:
        in_thread(work)


def with_closed_loops(works: list[Work]) -> None:
    """As old programs do, which close their loops without an end for what is open."""
    for work in works:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()


def by_turns(works: list[Work]) -> None:
    """As pytest-asyncio does, with fixtures in a loop that stands still while tests run in others."""
    loops = [asyncio.new_event_loop() for _ in works]
    for _ in range(2):
        for loop, work in zip(loops, works, strict=True):
            loop.run_until_complete(work())
    for loop in loops:
        with asyncio.Runner(loop_factory=lambda loop=loop: loop):  # type: ignore[misc]
            pass


def at_once(works: list[Work]) -> None:
    """As nobody should: in several loops that run at the same time."""
    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_thread(work: Work) -> None:
    """Run something in another thread's event loop, and wait for it."""
    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    thread.join()


RUNNERS: list[Runner] = [
    with_asyncio_run,
    with_uvloop,
    with_async_to_sync,
    with_threads,
    with_closed_loops,
    by_turns,
    at_once,
]


async def _follow_events(repository: RedisJobRepository, job: str) -> None:
    async with aclosing(repository.follow_events(job)) as events:
        assert (await anext(events)).data == "first\n"


async def _follow_records(repository: RedisJobRepository, job: str) -> None:
    async with aclosing(repository.follow_records(job)) as records:
        await anext(records)


async def _follow(repository: RedisJobRepository, job: str) -> None:
    follower = await repository.follow(job)
    try:
        assert (await follower.read()).records
        # It hears what comes later as well.
        await repository.add_event(job, JobEvent("log", "later\n"))
        async with asyncio.timeout(10):
            while not (await follower.read()).records:
                pass
    finally:
        follower.close()


async def _replay(repository: RedisJobRepository, job: str) -> None:
    async with aclosing(repository.replay(job)) as records:
        await anext(records)


async def _subscribe(repository: RedisJobRepository, job: str) -> None:
    async with aclosing(repository.subscribe(job)) as batches:
        batch = await anext(batches)
        assert batch.has_gap
        await batch.acknowledge()


async def _delete(repository: RedisJobRepository, job: str) -> None:
    await repository.create_job(Job(id=f"{job}-d", status="completed", success=True))
    await repository.delete_job(f"{job}-d")


async def _delete_log(repository: RedisJobRepository, job: str) -> None:
    await repository.create_job(Job(id=f"{job}-l", status="completed", success=True))
    assert await repository.delete_log(f"{job}-l")


async def _log_writer(repository: RedisJobRepository, job: str) -> None:
    async with repository.log_writer(job) as writer:
        await writer.write("written\n")
        await writer.flush()


async def _claim(repository: RedisJobRepository, job: str) -> None:
    await repository.create_job(Job(id=f"{job}-queued", status="queued", queue=job))
    [claimed] = await claims.claim(repository, job, "controller", 1, 30)
    writer = repository.writer(f"{job}-queued", claimed.claim, claimed)
    await writer.append([JobEvent("log", "claimed\n")])
    await writer.complete(True, utc_now())


async def _keep_leases(repository: RedisJobRepository, job: str) -> None:
    keeper = repository.keep_leases(30, lambda claim, answer: None)
    keeper.start()
    keeper.hold("default", Claim(job, 1, "0"))
    await keeper.stop()


async def _accounts(repository: RedisJobRepository, job: str) -> None:
    now = utc_now()
    await repository.create_user(User(id=f"{job}-user", email=f"{job}@x.org", name="Ada", created_at=now))
    key = APIKey(id=f"{job}-key", user_id=f"{job}-user", key_hash=f"{job}-hash", name="ci", created_at=now)
    await repository.create_api_key(key)


def _sync(call: Callable[[RedisJobRepository, str], object]) -> Step:
    async def step(repository: RedisJobRepository, job: str) -> None:
        call(repository, job)

    return step


#: By name, in this order: some need what others have made.
ENTRIES: dict[str, Step] = {
    "initialize": lambda repository, job: repository.initialize(),
    "create_job": lambda repository, job: repository.create_job(Job(id=job, status="running")),
    "add_event": lambda repository, job: repository.add_event(job, JobEvent("log", "first\n")),
    "add_events": lambda repository, job: repository.add_events(job, [JobEvent("log", "second\n")]),
    "get_job": lambda repository, job: repository.get_job(job),
    "get_job_summary": lambda repository, job: repository.get_job_summary(job),
    "list_jobs": lambda repository, job: repository.list_jobs(),
    "page_jobs": lambda repository, job: repository.page_jobs(),
    "page_available_jobs": lambda repository, job: repository.page_available_jobs(),
    "resolve_job_id": lambda repository, job: repository.resolve_job_id(job),
    "update_job_status": lambda repository, job: repository.update_job_status(job, "running"),
    "get_events_since": lambda repository, job: repository.get_events_since(job, 0),
    "read_events": lambda repository, job: repository.read_events(job),
    "follow_events": _follow_events,
    "follow_records": _follow_records,
    "follow": _follow,
    "replay": _replay,
    "job_at": lambda repository, job: repository.job_at(job, 1),
    "subscribe": _subscribe,
    "keep_job": lambda repository, job: repository.keep_job(job),
    "delete_log": _delete_log,
    "delete_job": _delete,
    "incarnation": lambda repository, job: repository.incarnation(job),
    "following_stats": _sync(lambda repository, job: repository.following_stats()),
    "position_of_line": lambda repository, job: repository.position_of_line(job, 1),
    "log_writer": _log_writer,
    "writer": _claim,
    "keep_leases": _keep_leases,
    "engine": _sync(lambda repository, job: repository.engine),
    "complete_job": lambda repository, job: repository.complete_job(job, True, utc_now()),
    "cancel_job": lambda repository, job: repository.create_job(Job(id=f"{job}-c", status="running")),
    "create_user": _accounts,
    "create_api_key": _sync(lambda repository, job: None),
    "get_user": lambda repository, job: repository.get_user(f"{job}-user"),
    "get_user_by_email": lambda repository, job: repository.get_user_by_email(f"{job}@x.org"),
    "list_users": lambda repository, job: repository.list_users(),
    "update_user_active": lambda repository, job: repository.update_user_active(f"{job}-user", True),
    "get_api_key_by_hash": lambda repository, job: repository.get_api_key_by_hash(f"{job}-hash"),
    "list_api_keys": lambda repository, job: repository.list_api_keys(),
    "update_api_key_last_used": lambda repository, job: repository.update_api_key_last_used(f"{job}-key", utc_now()),
    "revoke_api_key": lambda repository, job: repository.revoke_api_key(f"{job}-key"),
    "verify": lambda repository, job: repository.verify(job),
    "rebuild": lambda repository, job: repository.rebuild(job),
    "restored": lambda repository, job: repository.restored(),
}
