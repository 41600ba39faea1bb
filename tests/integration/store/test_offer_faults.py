"""Offers through a connection that fails: each job is given once, whatever gets lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.jobs.create import CREATE
from ci_eventstore.queues import asking
from ci_eventstore.queues.claim import PEEK
from ci_eventstore.queues.claim import peek as ask_whose_turn
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.fault_proxy import Fault, FaultProxy, at_script
from tests.integration.store.offers import (
    FAULTS,
    LEASE,
    OFFERS,
    Waiter,
    attempts_of,
    far_waiter,
    ids,
    open_waiter,
    proxy,
    remote,
    status_of,
    submit,
    waiter,
)
from tests.waiting import wait_until

__all__ = ["far_waiter", "open_waiter", "proxy", "remote", "waiter"]


async def test_a_lost_message_costs_no_attempt(
    repository: RedisJobRepository,
    proxy: FaultProxy,
    server: Nodes,
    far_waiter: Waiter,
) -> None:
    """The answer to the next question tells of the job; a message that comes after that tells nothing new."""
    proxy.loses_messages = True
    await submit(repository, "a1")
    assert await status_of(repository, "a1") == "running"
    assert await far_waiter.ask() == ["a1"]
    assert await attempts_of(server, "a1") == 1
    assert await server.read("ZCARD", OFFERS) == 0
    # Only now is there an offer again, and the job isn't told of any more.
    assert await far_waiter.ask() == []
    await submit(repository, "a2")
    assert await far_waiter.ask() == ["a2"]
    assert far_waiter.given == []


async def test_a_job_that_is_over_isnt_told_of(
    repository: RedisJobRepository,
    proxy: FaultProxy,
    server: Nodes,
    far_waiter: Waiter,
) -> None:
    """Another controller may have taken it over before its own asked again."""
    proxy.loses_messages = True
    await submit(repository, "a1")
    await server.read("ZADD", "{ci:0}:leases:default", 0, "a1")
    [taken] = await claims.claim(repository, "default", "c2", 1, LEASE)
    assert taken.lost_by == "c1"
    assert await far_waiter.ask() == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_question_whose_answer_is_lost(
    repository: RedisJobRepository,
    proxy: FaultProxy,
    server: Nodes,
    far_waiter: Waiter,
    fault: Fault,
) -> None:
    """Neither the offer that it takes back nor the one that it makes loses a job."""
    proxy.loses_messages = True
    await submit(repository, "a1")
    proxy.plan = at_script(PEEK, fault)
    assert await far_waiter.ask() == ["a1"]
    proxy.plan = at_script(PEEK, fault)
    assert await far_waiter.ask() == []
    await submit(repository, "a2")
    assert await far_waiter.ask() == ["a2"]
    assert [await attempts_of(server, job_id) for job_id in ("a1", "a2")] == [1, 1]
    # Two questions and two messages.
    await wait_until(lambda: proxy.faults == 4)


async def test_a_question_that_comes_late_makes_no_offer(
    repository: RedisJobRepository,
    remote: RedisJobRepository,
    proxy: FaultProxy,
    server: Nodes,
    open_waiter: Callable[..., Waiter],
) -> None:
    """Its controller has asked again since, and stopped: a job would wait for it in vain."""
    waiter = open_waiter("c1", through=remote)
    await waiter.listen()
    proxy.plan = at_script(PEEK, Fault.LATE)
    assert await waiter.ask() == []
    assert await waiter.claimer.withdraw() == []
    await proxy.delivered()
    await submit(repository, "a1")
    assert await status_of(repository, "a1") == "queued"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_creation_whose_answer_is_lost_gives_the_job_once(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, waiter: Waiter, fault: Fault
) -> None:
    """To the one that was told of it, though it is sent again."""
    proxy.plan = at_script(CREATE, fault)
    await submit(remote, "a1")
    assert proxy.faults == 1
    await wait_until(lambda: bool(waiter.given))
    assert ids(waiter.given) == ["a1"]
    assert await waiter.ask() == []


async def test_what_comes_with_the_withdrawal_is_returned(
    repository: RedisJobRepository, proxy: FaultProxy, far_waiter: Waiter
) -> None:
    """So that a controller that stops can give it back."""
    proxy.loses_messages = True
    await submit(repository, "a1")
    assert ids(await far_waiter.claimer.withdraw()) == ["a1"]
    await submit(repository, "a2")
    assert await status_of(repository, "a2") == "queued"
    assert await far_waiter.claimer.withdraw() == []


async def test_what_an_offer_has_brought_comes_before_all_else(
    repository: RedisJobRepository, remote: RedisJobRepository, proxy: FaultProxy, far_waiter: Waiter
) -> None:
    """Also before jobs that another controller of this process was told would be the next ones."""
    proxy.loses_messages = True
    await submit(repository, "a1", "a2", "a3", "a4")
    assert ids(await claims.claim(remote, "default", "c2", 2, LEASE)) == ["a2", "a3"]
    assert [await far_waiter.ask(), await far_waiter.ask()] == [["a1"], ["a4"]]


@pytest.mark.parametrize("queues", [["default"], ["default", "other"]], ids=len)
async def test_who_is_given_a_job_while_it_asks_takes_no_other(
    repository: RedisJobRepository,
    remote: RedisJobRepository,
    proxy: FaultProxy,
    server: Nodes,
    open_waiter: Callable[..., Waiter],
    monkeypatch: pytest.MonkeyPatch,
    queues: list[str],
) -> None:
    """The message comes before the answer to the question, which shows a job that waits: there is no room for it."""
    waiter = open_waiter("c1", *queues, through=remote)
    waiter.claimer.listen()
    await wait_until(lambda: len(waiter.heard) == 1)
    assert await waiter.ask() == []
    offers = [await server.read("ZCARD", f"{{ci:0}}:offers:{queue}") for queue in queues]
    offered_in = queues[offers.index(1)]
    messages: list[tuple[str, bytes]] = []
    listening = asyncio.Event()
    subscription = server.subscription(
        lambda channel, data: messages.append((channel, data)), lambda channel: listening.set()
    )
    subscription.listen(*waiter.claimer._own_channels)
    await listening.wait()
    proxy.loses_messages = True
    await submit(repository, "a1", queue=offered_in)
    await submit(repository, "a2", queue=queues[-1 if offered_in == queues[0] else 0])
    await wait_until(lambda: bool(messages))

    async def slow_peek(*arguments: Any) -> Any:
        answer = await ask_whose_turn(*arguments)
        waiter.claimer._on_message(*messages[0])
        return answer

    monkeypatch.setattr(asking, "peek", slow_peek)
    assert await waiter.ask() == []
    assert ids(waiter.given) == ["a1"]
    assert await status_of(repository, "a2") == "queued"
    monkeypatch.undo()
    assert await waiter.ask() == ["a2"]


async def test_another_ones_sign_off_takes_nothing_away(
    repository: RedisJobRepository, proxy: FaultProxy, far_waiter: Waiter
) -> None:
    """Of what a controller has still to be told."""
    proxy.loses_messages = True
    await submit(repository, "a1")
    await claims.sign_off(repository, "default", "c2")
    assert await far_waiter.ask() == ["a1"]


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["error", "cancelled"])
async def test_what_an_offer_has_brought_isnt_forgotten_by_a_failure(
    repository: RedisJobRepository,
    proxy: FaultProxy,
    far_waiter: Waiter,
    monkeypatch: pytest.MonkeyPatch,
    is_cancelled: bool,
) -> None:
    """The answer tells of a job, and reading that fails, or the task is cancelled: it can still be given back."""
    proxy.loses_messages = True
    await submit(repository, "a1")
    reading = asyncio.Event()
    read = Nodes.read

    async def fail(self: Nodes, *command: str | int | bytes) -> Any:
        if command[0] != "HGETALL":
            return await read(self, *command)
        reading.set()
        if is_cancelled:
            await asyncio.sleep(3600)
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(Nodes, "read", fail)
        asking = asyncio.create_task(far_waiter.ask())
        await reading.wait()
        if is_cancelled:
            asking.cancel()
        await asyncio.wait({asking})
    assert ids(await far_waiter.claimer.withdraw()) == ["a1"]
