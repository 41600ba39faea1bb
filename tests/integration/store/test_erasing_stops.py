"""An erasure is stopped at each of its calls, and repeated: it ends the same."""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from ci_common.errors import UserNotFoundError
from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.erasing import Eraser
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.erasing import account, ended, erase, found_in_keys
from tests.integration.store.sealing import seal_job
from tests.servers import RealServer


class Stopped(BaseException):
    """Raised in place of a call, or of its answer."""


class StoppingNodes:
    """The nodes of a store, which stop whoever uses them at the n-th call, before it is sent or after its answer."""

    def __init__(self, nodes: Nodes, number: int, *, after: bool) -> None:
        self._nodes = nodes
        self._left = number
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._nodes, name)
        if name not in ("read", "read_many", "read_together", "run"):
            return found

        async def call(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Stopped
            answer = await found(*arguments, **more)
            if self._left == 0:
                raise Stopped
            return answer

        return call


@pytest.mark.slow  # Each call of an erasure is the last one once, and is or isn't done.
@pytest.mark.parametrize("after", [False, True], ids=["not sent", "without an answer"])
async def test_it_is_stopped_anywhere_and_repeated(repository: RedisJobRepository, server: Nodes, after: bool) -> None:
    """It ends the same: with nothing of the user."""
    for number in range(1, 1000):
        await server.read("FLUSHALL")
        await repository.initialize()
        await small_store(repository)
        eraser = Eraser(repository, "zebedee-id", settle_seconds=0)
        engine = repository.engine
        eraser._engine = Stand(engine, StoppingNodes(engine.nodes, number, after=after))  # type: ignore[assignment]
        was_stopped = False
        try:
            await eraser.erase()
        except Stopped:
            was_stopped = True
        with suppress(UserNotFoundError):
            await erase(repository)
        assert await found_in_keys(server) == []
        assert [user.id for user in await repository.list_users()] == ["bob"]
        assert await repository.verify() == []
        if not was_stopped:
            assert number > 20
            return


async def small_store(repository: RedisJobRepository) -> None:
    """Fill a store with one job of each kind that is erased in another way."""
    await account(repository)
    await ended(repository, "live")
    await ended(repository, "sealed")
    await seal_job(repository, "sealed")
    await repository.create_job(Job(id="waits", status="queued", user_id="zebedee-id", name="zebedee-build"))


class Stand:
    """An open store with other nodes."""

    def __init__(self, engine: Any, nodes: Any) -> None:
        self._engine = engine
        self.nodes = nodes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.mark.slow  # Starts a server and the program again and again.
async def test_the_program_and_the_server_are_killed(own: RealServer) -> None:
    """Whatever is killed in the middle, the same call goes on; what it had deleted stays so."""
    async with RedisJobRepository.from_url(own.url) as repository:
        await account(repository)
        await asyncio.gather(*(ended(repository, f"j-{n}") for n in range(200)))
        for left in (150, 80):
            program = start_erasing(own.url)
            await until_there_are(repository, left)
            program.kill()
            program.communicate()
            assert program.returncode == -signal.SIGKILL
            if left == 80:
                own.kill()
                own.start()
            assert await repository.verify() == []
            user = await repository.get_user("zebedee-id")
            assert user is not None
            assert not user.is_active
        program = start_erasing(own.url)
        out, err = await asyncio.to_thread(program.communicate)
        assert program.returncode == 0, err
        receipt = json.loads(out)
        assert 0 < receipt["jobs"] < 150
        assert receipt["accounts"] == 1
        assert await found_in_keys(repository.engine.nodes) == []
        assert await repository.list_jobs("zebedee-id") == []
        assert await repository.verify() == []


async def until_there_are(repository: RedisJobRepository, count: int) -> None:
    """Wait until the user has no more jobs than that."""
    for _ in range(10_000):
        if len(await repository.list_jobs("zebedee-id")) <= count:
            return
        await asyncio.sleep(0.005)


def start_erasing(url: str) -> "subprocess.Popen[bytes]":
    """Erase the user by a program of its own."""
    command = [sys.executable, "-m", "ci_eventstore.cli", "--url", url, "user", "erase", "zebedee-id", "--settle", "0s"]
    return subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
