"""Senders are killed at any moment, and others take over: nothing is lost, and nothing is sent elsewhere."""

import asyncio
import logging
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ci_eventstore.connection import node
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks.webhook import DEFAULT_EVENTS
from tests.integration.store.conftest import seed
from tests.integration.webhooks import sender_program
from tests.integration.webhooks.conftest import run_job, sending, until
from tests.receivers import Received, receiver, status
from tests.servers import RealServer

__all__ = ["seed"]

logger = logging.getLogger("tests.chaos")
JOBS = 60
#: A sender has sent its first message by then.
CALLS = 16
USERS = ("ada", "bob")


@pytest.fixture
async def divided(own: RealServer) -> AsyncIterator[RedisJobRepository]:
    """A store of three partitions."""
    async with RedisJobRepository.from_url(own.url, partitions=3) as opened:
        yield opened
        assert await opened.verify() == []


@contextmanager
def senders(url: str, count: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start processes that send, one of them at a time; end all that are in the list by then."""
    started = [start(url) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def start(url: str) -> "subprocess.Popen[bytes]":
    root = Path(__file__).parents[3]
    return subprocess.Popen([sys.executable, "-m", sender_program.__name__, url], cwd=root)


@pytest.mark.slow  # Processes are started and killed again and again.
async def test_a_sender_may_be_killed_at_any_moment(divided: RedisJobRepository, own: RealServer, seed: int) -> None:
    """Each receiver gets each of its events, whatever it answers, and whoever sends; some come twice."""
    rng = random.Random(seed)

    async def moody(request: Received) -> bytes:
        return status(rng.choice([200, 500, 503]))

    async def slow(request: Received) -> bytes:
        await asyncio.sleep(0.05)
        return status(200)

    webhooks = divided.engine.webhooks
    async with receiver() as good, receiver(moody) as failing, receiver(slow) as late, receiver() as hers:
        opened = [good, failing, late, hers]
        hooks = [await webhooks.add(one.url, user_id="ada" if one is hers else None) for one in opened]
        with senders(own.url, 2) as processes:
            for number in range(JOBS):
                await run_job(divided, f"job-{number}", USERS[number % 2])
                if number % 6 == 5:
                    await asyncio.sleep(rng.uniform(0, 1))
                    place = rng.randrange(len(processes))
                    processes[place].kill()
                    processes[place].wait()
                    processes[place] = start(own.url)

            async def are_empty() -> bool:
                listed = await webhooks.all()
                groups = await divided.engine.facts.all()
                return all(one.waiting == 0 for one in listed) and all(group.behind_seconds == 0 for group in groups)

            await until(are_empty, 100)
        jobs = [f"job-{number}" for number in range(JOBS)]
        kinds = [kind for kind in DEFAULT_EVENTS if kind != "job.requeued"]
        for one, hook in zip(opened, hooks, strict=True):
            meant = jobs[::2] if one is hers else jobs
            by_id = dict[str, tuple[str, str]]()
            for request in one.received:
                data = request.verified(hook.secrets[0].text)
                told = data["type"], data["data"]["job_id"]
                assert by_id.setdefault(request.headers["webhook-id"], told) == told
            assert sorted(by_id.values()) == sorted((kind, job_id) for kind in kinds for job_id in meant)
            logger.info("%d messages, %d times", len(by_id), len(one.received))
        for listed in await webhooks.all():
            assert listed.webhook.is_enabled
            assert listed.webhook.notices == ()


@pytest.mark.slow  # A lease has to end by itself.
async def test_a_sender_ends_soon_while_the_store_is_away(
    divided: RedisJobRepository, own: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long others have patience: its leases end by themselves, and it goes on when the store is back."""
    hook = await divided.engine.webhooks.add("http://127.0.0.1:9/")
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 3600.0)
    async with sending(divided) as task:

        async def is_read() -> bool:
            groups = await divided.engine.facts.all()
            return bool(groups) and groups[0].read_now == 3

        await until(is_read)
        own.kill()
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 60)
        own.start()
    async with receiver() as opened:
        again = await divided.engine.webhooks.add(opened.url)
        await divided.engine.webhooks.delete(hook.id)
        await divided.engine.webhooks.test(again.id)
        async with sending(divided, "127.0.0.1"):

            async def has_come() -> bool:
                return bool(opened.received)

            await until(has_come)


@pytest.mark.slow  # As many senders as there are moments.
async def test_a_sender_ends_between_any_two_calls(divided: RedisJobRepository, own: RealServer) -> None:
    """Right before or after each of its first calls of the store; the next one does the rest."""
    webhooks = divided.engine.webhooks
    async with receiver() as opened:
        hook = await webhooks.add(opened.url, events=["job.ended"])
        for number in range(1, CALLS + 1):
            await run_job(divided, f"job-{number}")
            await stopped_at_call(own.url, number)
        with senders(own.url, 1):

            async def is_complete() -> bool:
                return len(set(opened.ids)) == CALLS and (await webhooks.get(hook.id)).waiting == 0

            await until(is_complete)
        told = {one.headers["webhook-id"]: one.verified(hook.secrets[0].text) for one in opened.received}
        assert sorted(data["data"]["job_id"] for data in told.values()) == sorted(
            f"job-{n}" for n in range(1, CALLS + 1)
        )


async def stopped_at_call(url: str, number: int) -> None:
    """Run a sender that is killed at one of its calls, by its count: before an odd one is sent, after an even one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{sender_program.__name__}_killed", url, str(number)), cwd=Path(__file__).parents[3]
    )
    assert await process.wait() == -9
