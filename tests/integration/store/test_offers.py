"""Offers: a controller that has nothing to do is given the next job in the step that creates it, whatever gets lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ci_common.models import Job, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import Script
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.queues.claim import PEEK
from ci_eventstore.queues.claimer import Heard
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store.offers import (
    CLOCK,
    DISPATCH,
    LEASE,
    OFFERED,
    OFFERS,
    Waiter,
    attempts_of,
    ids,
    open_waiter,
    status_of,
    submit,
    waiter,
)
from tests.waiting import wait_until

__all__ = ["open_waiter", "waiter"]


async def test_a_new_job_goes_to_whoever_waits(repository: RedisJobRepository, server: Nodes, waiter: Waiter) -> None:
    """It is claimed as any other: through the group, under a lease, with all that is derived from it."""
    await submit(repository, "a1")
    await wait_until(lambda: bool(waiter.given))
    [claimed] = waiter.given
    assert waiter.claimer._offer.place is None
    assert (claimed.job.id, claimed.job.user_id, claimed.attempts, claimed.lost_by) == ("a1", "a", 1, None)
    job = await repository.get_job("a1")
    assert job is not None
    assert job == claimed.job
    assert (job.status, [*job.events]) == ("running", [])
    stored = await repository.engine.jobs.state("a1")
    assert stored is not None
    # A mark is for readers: whoever has claimed a job writes by its version.
    assert stored.mark
    assert claimed.state == stored.but(mark=None)
    [group] = await server.read("XINFO", "GROUPS", DISPATCH)
    fields = dict(zip(group[::2], group[1::2], strict=True))
    assert (fields[b"pending"], fields[b"lag"]) == (1, 0)
    assert await server.read("ZCARD", OFFERS) == 0
    assert await repository.verify() == []
    await repository.writer("a1", claimed.claim).complete(True, utc_now())
    assert await server.read("XLEN", DISPATCH) == 0
    # It was one offer, for one job.
    await submit(repository, "a2", "a3")
    assert await status_of(repository, "a2") == "queued"
    assert [await waiter.ask(), await waiter.ask()] == [["a2"], ["a3"]]


async def test_nobody_is_overtaken(repository: RedisJobRepository, server: Nodes, waiter: Waiter) -> None:
    """While a job waits, whoever's, no new one is given away."""
    # As a release does it, or a creation with events, which are asked for.
    await repository.create_job(Job(id="b1", status="running"))
    await repository.update_job_status("b1", "queued")
    await submit(repository, "a1")
    assert (await status_of(repository, "a1"), waiter.given) == ("queued", [])
    assert [await waiter.ask(), await waiter.ask()] == [["b1"], ["a1"]]


async def test_the_latest_offer_that_is_heard_counts(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter]
) -> None:
    """Controllers that are gone are passed over; with nobody left the job waits, and all are told."""
    early, deaf = open_waiter("early"), open_waiter("deaf")
    await early.listen()
    assert (await early.ask(), await deaf.ask()) == ([], [])
    await server.read("ZINCRBY", OFFERS, 5, "deaf")
    await submit(repository, "a1")
    await wait_until(lambda: bool(early.given))
    assert await deaf.ask() == []
    await submit(repository, "a2", "a3")
    await wait_until(lambda: len(early.heard) == 2)
    assert early.heard[1] == Heard()
    assert await server.read("ZCARD", OFFERS) == 0
    assert [await early.ask(), await deaf.ask()] == [["a2"], ["a3"]]


async def test_an_offer_ends_by_the_partitions_clock(
    repository: RedisJobRepository, server: Nodes, waiter: Waiter
) -> None:
    """Of a controller that hangs, which would listen for ever."""
    await server.read("HINCRBY", CLOCK, "now", 60_000)
    await submit(repository, "a1")
    assert await status_of(repository, "a1") == "queued"
    assert await server.read("EXISTS", OFFERS) == 0
    assert await waiter.ask() == ["a1"]


async def test_an_offer_without_its_record_is_nobodys(
    repository: RedisJobRepository, server: Nodes, waiter: Waiter
) -> None:
    """However it was lost."""
    await server.read("DEL", OFFERED)
    await submit(repository, "a1")
    assert await waiter.ask() == ["a1"]


async def test_two_controllers_of_one_name(repository: RedisJobRepository, open_waiter: Callable[..., Waiter]) -> None:
    """Should be a mistake; the one whose offer it was has the job."""
    first, second = open_waiter("same"), open_waiter("same")
    for one in (first, second):
        await one.listen()
        assert await one.ask() == []
    await submit(repository, "a1")
    await wait_until(lambda: bool(second.given))
    assert (ids(first.given), ids(second.given)) == ([], ["a1"])
    assert (await first.ask(), await second.ask()) == ([], [])


async def test_a_group_that_is_gone_is_made_again(
    repository: RedisJobRepository, server: Nodes, waiter: Waiter
) -> None:
    """The tickets of running jobs, which it hands out again, are for nobody."""
    await submit(repository, "a1")
    await wait_until(lambda: bool(waiter.given))
    assert await waiter.ask() == []
    await server.read("XGROUP", "DESTROY", DISPATCH, "controllers")
    await submit(repository, "a2")
    await wait_until(lambda: len(waiter.given) == 2)
    for claimed in waiter.given:
        await repository.writer(claimed.job.id, claimed.claim).complete(True, utc_now())
    [group] = await server.read("XINFO", "GROUPS", DISPATCH)
    assert dict(zip(group[::2], group[1::2], strict=True))[b"pending"] == 0
    assert await server.read("XLEN", DISPATCH) == 0


async def test_tickets_for_nobody_are_cleared_away(
    repository: RedisJobRepository, server: Nodes, waiter: Waiter
) -> None:
    """They may be left by a group that was made again."""
    await submit(repository, "a1")
    for _ in range(3):
        await server.read("XADD", DISPATCH, "*", "user", "nobody")
    await wait_until(lambda: bool(waiter.given))
    await server.read("ZADD", OFFERS, 1_000_000, "c1")
    await submit(repository, "a2")
    await wait_until(lambda: len(waiter.given) == 2)
    [group] = await server.read("XINFO", "GROUPS", DISPATCH)
    assert dict(zip(group[::2], group[1::2], strict=True))[b"pending"] == 2
    assert await server.read("XLEN", DISPATCH) == 2


async def test_there_is_one_offer_at_a_time(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter]
) -> None:
    """Of a controller with several queues, in one of them; what comes in others it is told of, and takes that back."""
    waiter = open_waiter("c1", "a", "b", "c")
    waiter.claimer.listen()
    await wait_until(lambda: len(waiter.heard) == 1)
    for number in range(20):
        assert await waiter.ask() == []
        offers = [await server.read("ZCARD", f"{{ci:0}}:offers:{queue}") for queue in "abc"]
        assert sorted(offers) == [0, 0, 1]
        queue = "abc"[number % 3]
        await submit(repository, f"{number}", queue=queue)
        if offers["abc".index(queue)]:
            await wait_until(lambda: bool(waiter.given))
            waiter.heard.clear()
        else:
            assert await waiter.ask() == [f"{number}"]
            assert await waiter.claimer.claim(0, is_idle=False) == []
            assert not waiter.claimer.is_offering
            assert await server.read("EXISTS", *(f"{{ci:0}}:offers:{queue}" for queue in "abc")) == 0


async def test_who_finds_a_job_makes_no_offer(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter]
) -> None:
    """Nor in a queue that it asks after the one that had it."""
    waiter = open_waiter("c1", "a", "b")
    for number in range(10):
        await submit(repository, f"{number}", queue="a")
        assert ids(await waiter.claimer.claim(5, is_idle=True)) == [f"{number}"]
        assert await server.read("EXISTS", "{ci:0}:offers:a", "{ci:0}:offers:b") == 0


async def test_who_signs_off_offers_nothing(repository: RedisJobRepository, server: Nodes, waiter: Waiter) -> None:
    """Nor is anything kept of it, nor of one that was gone for an hour; of one that was there lately it is."""
    await claims.sign_off(repository, "default", "somebody")
    assert await server.read("EXISTS", OFFERS, OFFERED) == 2
    await server.read("HSET", OFFERED, "gone", "abc-1 30000 0\na b")
    await server.read("HINCRBY", CLOCK, "now", 3_600_001)
    assert await waiter.ask() == []
    await claims.sign_off(repository, "default", "somebody")
    assert await server.read("HKEYS", OFFERED) == [b"c1"]
    await waiter.claimer.sign_off()
    assert await server.read("EXISTS", OFFERS, OFFERED) == 0


async def test_a_message_that_cant_be_read_is_passed_over(
    repository: RedisJobRepository, server: Nodes, waiter: Waiter, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sent it."""
    for message in (b"", b"nonsense", b"x-1\n1\n2\n\xff\xff\xff", b"\xff\n\xff\n\xff\n"):
        assert await server.read("PUBLISH", *waiter.claimer._own_channels, message) == 1
    await submit(repository, "a1")
    await wait_until(lambda: bool(waiter.given))
    assert ids(waiter.given) == ["a1"]
    assert "can't be read" in caplog.text


async def test_a_question_that_comes_twice_makes_no_offer(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held up on one connection, answered on another: the second time its controller may have found a job."""
    calls: list[tuple[Any, ...]] = []
    run = Nodes.run

    async def note(self: Nodes, script: Script, *arguments: Any) -> Any:
        if script is PEEK:
            calls.append(arguments)
        return await run(self, script, *arguments)

    monkeypatch.setattr(Nodes, "run", note)
    waiter = open_waiter("c1")
    await submit(repository, "a1")
    assert await waiter.ask() == ["a1"]
    await run(server, PEEK, *calls[-1])
    assert await server.read("ZCARD", OFFERS) == 0
    assert await waiter.ask() == []
    # An offer that stands is confirmed.
    reply = await run(server, PEEK, *calls[-1])
    assert (reply[3], await server.read("ZCARD", OFFERS)) == (1, 1)


async def test_a_dead_controllers_successor_isnt_given_its_jobs(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter]
) -> None:
    """Though it has its name: it wouldn't know them."""
    dead, successor = open_waiter("c1"), open_waiter("c1")
    await dead.listen()
    assert await dead.ask() == []
    await dead.claimer.close()
    await successor.listen()
    await submit(repository, "a1")
    assert await status_of(repository, "a1") == "queued"
    assert await successor.ask() == ["a1"]


async def test_a_lost_job_comes_before_a_new_one(repository: RedisJobRepository, server: Nodes, waiter: Waiter) -> None:
    """Whoever offers is told to ask, and gets the job whose lease has run out."""
    await server.read("ZREM", OFFERS, "c1")
    await submit(repository, "a1")
    assert ids(await claims.claim(repository, "default", "dead", 1, LEASE)) == ["a1"]
    assert await waiter.ask() == []
    await server.read("HINCRBY", CLOCK, "now", 31_000)
    await submit(repository, "a2")
    assert await status_of(repository, "a2") == "queued"
    assert [await waiter.ask(), await waiter.ask()] == [["a1"], ["a2"]]


async def test_a_second_offer_waits_for_the_first_ones_end(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the partition in which that stands doesn't answer."""
    waiter = open_waiter("c1", "a", "b")
    assert await waiter.ask() == []
    stands_in = waiter.claimer._offer.place
    assert stands_in is not None
    run = Nodes.run

    async def fail(self: Nodes, script: Script, keys: Sequence[str], arguments: Any) -> Any:
        if stands_in.dispatch in keys:
            raise StoreUnavailableError("away")
        return await run(self, script, keys, arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Nodes, "run", fail)
        assert await waiter.ask() == []
    offers = [await server.read("ZCARD", f"{{ci:0}}:offers:{queue}") for queue in "ab"]
    assert sorted(offers) == [0, 1]


async def test_who_claims_foreseen_jobs_makes_no_offer(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter]
) -> None:
    """Though the question for the rest shows nothing."""
    waiter = open_waiter("c1")
    await submit(repository, "a1", "a2", "a3")
    assert ids(await waiter.claimer.claim(2, is_idle=True)) == ["a1", "a2"]
    assert ids(await waiter.claimer.claim(2, is_idle=True)) == ["a3"]
    assert await server.read("ZCARD", OFFERS) == 0


async def test_offers_go_on_when_the_store_has_lost_its_last_moments(
    repository: RedisJobRepository, server: Nodes, waiter: Waiter
) -> None:
    """It then tells of a job before the last one."""
    before = b""
    for job_id in ("a1", "a2"):
        before = await server.read("HGET", OFFERED, "c1")
        await submit(repository, job_id)
        await wait_until(lambda name=job_id: ids(waiter.given)[-1:] == [name])  # type: ignore[misc]
        assert await waiter.ask() == []
    assert b"a1" in before
    await server.read("HSET", OFFERED, "c1", before)
    assert [await waiter.ask(), await waiter.ask()] == [[], []]
    assert await server.read("ZCARD", OFFERS) == 1


async def test_in_any_order_each_job_is_given_once(
    repository: RedisJobRepository, server: Nodes, open_waiter: Callable[..., Waiter]
) -> None:
    """Questions, creations and withdrawals of several controllers at the same time."""
    waiters = [open_waiter(f"c{number}") for number in range(4)]
    found: list[str] = []

    async def work(waiter: Waiter) -> None:
        await waiter.listen()
        while len(found) + sum(len(one.given) for one in waiters) < 300:
            found.extend(await waiter.ask())
            found.extend(ids(await waiter.claimer.withdraw()) if len(found) % 5 == 0 else [])
            await asyncio.sleep(0)

    async def create(user: str) -> None:
        for number in range(100):
            await submit(repository, f"{user}{number}")
            await asyncio.sleep(number % 7 / 1000)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for waiter in waiters:
            group.create_task(work(waiter))
        for user in "abc":
            group.create_task(create(user))
    given = [job_id for waiter in waiters for job_id in ids(waiter.given)]
    assert sorted(found + given) == sorted(f"{user}{number}" for user in "abc" for number in range(100))
    attempts = {await attempts_of(server, job_id) for job_id in found + given}
    assert attempts == {1}
