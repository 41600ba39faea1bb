"""Servers that refuse: what each reply of a real server does to reads and writes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ci_common.models import Job, JobEvent
from ci_eventstore.connection import node
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import (
    AuthenticationError,
    MissingRightsError,
    NotReplicatedError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnsuitableServerError,
)
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.store_format import INITIALIZE
from tests.fault_proxy import Fault, FaultProxy, at
from tests.integration.store.refusals import PASSING, State, setting, without_replicas
from tests.servers import RealServer, find_redis7, find_valkey
from tests.waiting import wait_until

BINARIES = [pytest.param(find_redis7, marks=pytest.mark.needs("redis7")), find_valkey]


@pytest.fixture(scope="module", params=BINARIES, ids=["redis 7.0", "valkey"])
def refusing(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    find: Callable[[], Path] = request.param
    with RealServer(find(), "enable-debug-command yes", tcp=True) as started:
        yield started


@pytest.fixture
async def admin(refusing: RealServer) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=str(refusing.socket_path)) as opened:
        await opened.flushall()
        yield opened


#: A server that loads answers too seldom for this, and one without a free connection may close it before it is read.
LASTING = {name: row for name, row in PASSING.items() if name not in ("LOADING", "max clients")}


@pytest.mark.slow
@pytest.mark.parametrize(("state", "words", "raised"), PASSING.values(), ids=PASSING)
async def test_a_refusal_that_passes(
    refusing: RealServer, admin: Redis, state: State, words: str, raised: type[Exception]
) -> None:
    """A write that is refused for a moment is tried again, and has its effect once."""
    async with RedisJobRepository.from_url(refusing.url) as repository:
        counters = repository.engine.nodes.counters
        await repository.create_job(Job(id="j", status="running"))
        async with state(admin, refusing):
            write = asyncio.create_task(repository.add_event("j", JobEvent("log", "once\n")))
            await wait_until(lambda: counters.retries > 0 or write.done())
        await write
        assert counters.retries > 0
        assert counters.errors == 0
        assert [event.data for event in await repository.get_events_since("j", 0)] == ["once\n"]
        assert await repository.verify() == []


@pytest.mark.slow
@pytest.mark.parametrize(("state", "words", "raised"), LASTING.values(), ids=LASTING)
async def test_a_refusal_that_lasts(
    refusing: RealServer,
    admin: Redis,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    words: str,
    raised: type[Exception],
) -> None:
    """A write that is refused for longer than its patience raises what the server says; nothing was changed."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.5)
    async with RedisJobRepository.from_url(refusing.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        async with state(admin, refusing):
            for write in (
                repository.add_event("j", JobEvent("log", "never\n")),
                repository.create_job(Job(id="k", status="queued")),
            ):
                with pytest.raises(raised) as caught:
                    await write
                assert type(caught.value) is raised
                assert words in str(caught.value)
                assert "@user_script" not in str(caught.value)
        monkeypatch.undo()
        assert await repository.get_events_since("j", 0) == []
        assert [job.id for job in await repository.list_jobs()] == ["j"]
        assert await repository.verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NOREPLICAS", "BUSY", "OOM", "READONLY"])
async def test_a_call_is_given_a_patience_of_its_own(refusing: RealServer, admin: Redis, name: str) -> None:
    """Who has no time, such as a lease's keeper, is told soon; also if there is no answer at all."""
    state, words, raised = PASSING[name]
    async with opened(refusing.url) as server:
        await server.run(INITIALIZE, ["{ci:accounts}:store"], [1, 1, "0"])
        await admin.flushall()
        async with state(admin, refusing):
            with pytest.raises(raised, match=words):
                # The last try begins after some 0.8 s and has time: one that the end cuts off is of unknown outcome.
                await within(5, server.run(INITIALIZE, ["{ci:accounts}:store"], [1, 1, "0"], patience_seconds=1.5))


async def test_a_call_with_patience_gets_no_answer(refusing: RealServer, admin: Redis) -> None:
    """A server that is silent is waited for no longer than the patience, not for the connection's own time."""
    async with FaultProxy(refusing.socket_path) as proxy, opened(proxy.url) as server:
        await server.run(INITIALIZE, ["{ci:accounts}:store"], [1, 1, "0"])
        proxy.plan = at(Fault.STALL, b"EVALSHA", times=100)
        with pytest.raises(OutcomeUnknownError):
            await within(3, server.run(INITIALIZE, ["{ci:accounts}:store"], [1, 1, "0"], patience_seconds=0.5))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Nodes]:
    server = Nodes(from_url(url))
    try:
        yield server
    finally:
        await server.close()


async def within(seconds: float, waited: Awaitable[object]) -> None:
    async with asyncio.timeout(seconds):
        await waited


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OOM", "NOREPLICAS", "MISCONF", "BUSY", "READONLY", "MASTERDOWN", "max clients"])
async def test_a_new_store_isnt_begun_on_a_server_that_refuses(
    refusing: RealServer, admin: Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`initialize` says what the server says, within some seconds."""
    monkeypatch.setattr(node, "REFUSAL_PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(node, "FULL_PATIENCE_SECONDS", 1.0)
    state, words, raised = PASSING[name]
    async with state(admin, refusing):
        with pytest.raises((raised, StoreUnavailableError, UnsuitableServerError)) as caught:
            await within(10, RedisJobRepository.from_url(refusing.url, prefix="new").initialize())
        # A server without a free connection may have closed it before its words were read.
        assert any(said in str(caught.value) for said in (words, "replica", "Connection"))


async def test_a_refusal_after_a_lost_answer_leaves_the_outcome_open(
    refusing: RealServer, admin: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try may have arrived; what is refused later says nothing of it."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.5)
    async with (
        FaultProxy(refusing.socket_path) as proxy,
        RedisJobRepository.from_url(proxy.url) as repository,
        AsyncExitStack() as later,
    ):
        await repository.create_job(Job(id="j", status="running"))
        # So that the server knows the script.
        await repository.add_event("j", JobEvent("log", "first\n"))
        proxy.plan = at(Fault.CUT_AFTER, b"EVALSHA")
        write = asyncio.create_task(repository.add_event("j", JobEvent("log", "once\n")))
        await wait_until(lambda: proxy.faults > 0)
        await later.enter_async_context(without_replicas(admin, refusing))
        [outcome] = await asyncio.gather(write, return_exceptions=True)
        await later.aclose()
        # The answer to a repeated call needs no write, and may come in spite of the refusal.
        assert outcome is None or isinstance(outcome, OutcomeUnknownError)
        assert [event.data for event in await repository.get_events_since("j", 1)] == ["once\n"]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (("~*", "&*", "+@all", "-@scripting"), "evalsha"),
        (("~ci:*", "&*", "+@all"), "key"),
        (("~*", "&*", "+@all", "-xadd"), "command|xadd"),
    ],
    ids=["commands", "keys", "in scripts"],
)
async def test_a_missing_right_is_told_at_once(
    refusing: RealServer, admin: Redis, rules: tuple[str, ...], words: str
) -> None:
    """A user without the rights gets an error that says so, without a wait, and nothing is written."""
    async with RedisJobRepository.from_url(refusing.url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        await admin.execute_command("ACL", "SETUSER", "default", "reset", "on", "nopass", *rules, "+auth", "+acl")
        try:
            began = time.monotonic()
            with pytest.raises(MissingRightsError, match=words):
                await repository.add_event("j", JobEvent("log", "x"))
            assert time.monotonic() - began < 2
        finally:
            await admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
        await repository.add_event("j", JobEvent("log", "y"))
        assert [event.data for event in await repository.get_events_since("j", 0)] == ["y"]
        assert await repository.verify() == []


async def test_a_write_whose_replicas_cant_be_asked_is_done(refusing: RealServer, admin: Redis) -> None:
    """A server that refuses WAIT after the write has taken effect: it is told as not replicated, not as refused."""
    await admin.execute_command("ACL", "SETUSER", "default", "-wait")
    server = Nodes(from_url(refusing.url), replicas=1)
    try:
        with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
            await server.run(INITIALIZE, ["{ci:accounts}:store"], [1, 1, "0"])
        assert await admin.exists("{ci:accounts}:store")
    finally:
        await admin.execute_command("ACL", "SETUSER", "default", "+@all")
        await server.close()


async def test_what_isnt_redis_is_told_at_once() -> None:
    """Another server at the address is no outage."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as played:
        port = played.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnavailableError, match=r"[Pp]rotocol"):
            await within(3, RedisJobRepository.from_url(f"redis://127.0.0.1:{port}").initialize())


@pytest.mark.slow
async def test_a_server_without_tls_is_told_at_once(refusing: RealServer) -> None:
    """`rediss://` at a server that speaks no TLS is told after one try of five seconds; so is an unknown name."""
    with pytest.raises(StoreUnavailableError):
        await within(9, RedisJobRepository.from_url(f"rediss://127.0.0.1:{refusing.port}").initialize())
    with pytest.raises(StoreUnavailableError, match="no-such-host"):
        await within(9, RedisJobRepository.from_url("redis://no-such-host.invalid").initialize())


async def test_a_changed_password_is_told(refusing: RealServer, admin: Redis) -> None:
    """A server that asks for a password it didn't ask for before is no outage."""
    async with setting(admin, "requirepass", "sesame"):
        with pytest.raises(AuthenticationError, match="NOAUTH Authentication required"):
            await RedisJobRepository.from_url(refusing.url).initialize()
        with pytest.raises(AuthenticationError, match="WRONGPASS"):
            await RedisJobRepository.from_url(refusing.url.replace("//", "//:wrong@")).initialize()
        await admin.execute_command("AUTH", "sesame")
