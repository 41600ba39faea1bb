"""An error that nobody has thought of ends no loop in the background: it is logged, and what depends on it goes on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import connection as redis_connection

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.exchange import Exchange
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.following import hub
from ci_eventstore.following.hub import Hub
from ci_eventstore.queues import holders
from ci_eventstore.queues.holders import Holders
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.tasks import begin
from tests.waiting import wait_until

logger = logging.getLogger("ci_eventstore.tests")


class BreaksOnce:
    """Replaces a method: the first call that is meant breaks down, all others go through."""

    def __init__(self, method: Callable[..., Any], is_meant: Callable[..., bool] = lambda *_: True) -> None:
        self.calls = 0
        self._method = method
        self._is_meant = is_meant

    def install(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> "BreaksOnce":
        def call(*arguments: Any, **options: Any) -> Any:
            if self._is_meant(*arguments):
                self.calls += 1
                if self.calls == 1:
                    raise ZeroDivisionError
            return self._method(*arguments, **options)

        patch.setattr(owner, name, call)
        return self


async def follow_one(repository: RedisJobRepository) -> None:
    """Follow a job, and wait for an event that is written once the follower waits."""
    await repository.create_job(Job(id="j", status="running"))
    async with asyncio.timeout(20), aclosing(repository.follow_events("j")) as events:
        first = asyncio.ensure_future(anext(events))
        await wait_until(lambda: repository.following_stats().followers == 1)
        await repository.add_event("j", JobEvent("log", "one\n"))
        assert (await first).data == "one\n"


async def test_listening_goes_on_without_a_connection(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when credentials can't be got: the reader tries again. Nothing else brings the event within an hour."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 3600.0)
    subscription = repository.engine.hub._subscription
    assert isinstance(subscription, Subscription)
    pool = subscription._pool
    broken = BreaksOnce(type(pool).get_connection, lambda this: this is pool)
    broken.install(monkeypatch, type(pool), "get_connection")
    await follow_one(repository)
    assert broken.calls > 1
    assert "listening failed, and goes on" in caplog.text


async def test_listening_goes_on_though_nothing_can_be_sent(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The channels are sent again, over another connection."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 3600.0)
    kind = redis_connection.AbstractConnection
    broken = BreaksOnce(kind.send_command, lambda _, command, *rest: command == "SUBSCRIBE")
    broken.install(monkeypatch, kind, "send_command")
    await follow_one(repository)
    assert broken.calls > 1
    assert "listening failed, and goes on" in caplog.text


async def test_followed_jobs_are_looked_at_again(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What lost messages hid is still found."""
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.01)
    broken = BreaksOnce(Node.look_at_role).install(monkeypatch, Node, "look_at_role")
    await repository.create_job(Job(id="j", status="running"))
    async with aclosing(repository.follow_events("j")) as events:
        first = asyncio.ensure_future(anext(events))
        await wait_until(lambda: broken.calls > 1)
        # Nobody hears this one.
        monkeypatch.setattr(Hub, "_on_message", lambda *_: None)
        await repository.add_event("j", JobEvent("log", "one\n"))
        assert (await asyncio.wait_for(first, 20)).data == "one\n"
    assert "looking at followed jobs failed, and goes on" in caplog.text


async def test_lost_holders_are_looked_for_again(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs of a `run` that is gone end all the same."""
    monkeypatch.setattr(holders, "IDLE_SECONDS", 0.01)
    broken = BreaksOnce(Holders._end_lost_in).install(monkeypatch, Holders, "_end_lost_in")
    async with repository.engine.holders.watched():
        await wait_until(lambda: broken.calls > 2)
    assert "looking for jobs of lost holders failed, and goes on" in caplog.text


async def test_commands_that_cannot_be_sent_are_told(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for their replies in vain."""
    broken = BreaksOnce(Exchange.send).install(monkeypatch, Exchange, "send")
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await repository.engine.nodes.read_many([("PING",), ("PING",)])
        assert await repository.engine.nodes.read_many([("PING",)]) == [b"PONG"]
    assert broken.calls > 1


async def test_what_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With what it was to do; a cancellation isn't an error."""

    async def work(until: Awaitable[None]) -> None:
        await until
        raise ZeroDivisionError

    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    broken = begin(work(asyncio.sleep(0)), logger, "writing")
    cancelled = begin(work(waiting), logger, "reading")
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({broken, cancelled})
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["writing failed"]
    assert caplog.records[0].exc_info is not None


def test_a_fault_that_lasts_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of it."""
    outages = Outages()
    for error in (ZeroDivisionError(), ZeroDivisionError(), KeyError(), ZeroDivisionError()):
        outages.fault(logger, "reading", error)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError, KeyError]
