"""Users of the server with few rights: those of the document are enough, and each one that is missing is named."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

import ci_eventstore
from ci_common.models import APIKey, Job, JobEvent, User, utc_now
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller
from ci_eventstore.errors import MissingRightsError, ReadOnlyAccessError, StoreFormatError
from ci_eventstore.history.seal import Sealed
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.requirements import ACCOUNTS, LISTENING, READING, WRITING, commands_of, describe, names_of
from tests.examples import slow
from tests.integration.store.sealing import seal_job
from tests.servers import RealServer, find_redis7, find_valkey

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
LINES = dict(re.findall(r"^    ACL SETUSER (ci-\w+) (.*)$", DOCUMENT.read_text(), re.MULTILINE))
BINARIES = [pytest.param(find_redis7, marks=pytest.mark.needs("redis7")), find_valkey]
#: What may be missing.
OPTIONAL = ("+info", "+hello", "+ping", "+unsubscribe", "+select", "+wait")
#: Words in scripts that aren't commands.
WORDS = set(
    re.findall(
        "[A-Z]+",
        "CONSUMERS COUNT CREATE DELCONSUMER GROUP GROUPS JUSTID LIMIT MAXLEN MINID NOMKSTREAM NUMSUB NX PX STREAMS",
    )
)
WORDS |= {"DAMAGED", "WRONGTYPE"}
WORDS |= {"FORCE", "IDLE", "RETRYCOUNT", "STREAM"}
#: What only `verify` and `rebuild` need, and `user erase`; `+srem` lets `serve` forget queues.
MAINTENANCE: tuple[str, ...] = (
    "+scan",
    "+sscan",
    "+hscan",
    "+zscan",
    "+zmscore",
    "+pttl",
    "+srem",
    "+sismember",
    "+rename",
)
MAINTENANCE += ("+xpending", "+xsetid", "+xinfo|stream")


@pytest.fixture(scope="module", params=BINARIES, ids=["redis 7.0", "valkey"])
def guarded(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    find: Callable[[], Path] = request.param
    with RealServer(find(), "appendonly no", tcp=True) as started:
        yield started


@pytest.fixture
async def admin(guarded: RealServer) -> AsyncIterator[Redis]:
    async with Redis(port=guarded.port) as opened:
        await opened.flushall()
        await opened.acl_log_reset()
        yield opened


async def user_of(admin: Redis, server: RealServer, name: str, *changes: str) -> str:
    """Make a user as the document says, with changes, and return its URL."""
    rules = LINES[name].replace("PASSWORD", "sesame").split()
    await admin.execute_command("ACL", "DELUSER", name)
    await admin.execute_command("ACL", "SETUSER", name, *[rule for rule in rules if rule not in changes], *changes)
    return f"redis://{name}:sesame@127.0.0.1:{server.port}"


def rules_of(name: str) -> list[str]:
    return [rule for rule in LINES[name].split() if rule.startswith("+")]


async def refused_commands(admin: Redis) -> list[object]:
    # Which redis-py asks of each connection, and does without.
    return [entry["object"] for entry in await admin.acl_log() if entry["object"] != "client|setinfo"]


async def work_as_a_controller(repository: RedisJobRepository) -> None:
    """Run two jobs, one of which is there before, and let one be cancelled."""
    ended = asyncio.Event()

    async def handle(claimed: ClaimedJob) -> None:
        await claimed.log.write("hello\n")
        if claimed.job.id == "fails":
            ended.set()
            raise ValueError(claimed.job.id)

    await repository.create_job(Job(id="before", status="queued", user_id="ada"))
    async with Controller(repository) as controller, asyncio.timeout(30):
        running = asyncio.create_task(controller.run(handle))
        await asyncio.sleep(0.3)
        await repository.create_job(Job(id="after", status="queued", user_id="ada"))
        await repository.create_job(Job(id="fails", status="queued"))
        await ended.wait()
        async for _ in repository.follow_events("after"):
            pass
        controller.stop()
        await running
    async with asyncio.timeout(30):
        while any(job.success is None for job in await repository.list_jobs()):
            pass


async def work_as_a_server(repository: RedisJobRepository) -> None:
    """Use accounts, sessions and the tools."""
    now = utc_now()
    await repository.create_user(User(id="ada", name="A", email="a@x.org", created_at=now))
    await repository.create_api_key(APIKey(id="k", user_id="ada", key_hash="hash", created_at=now))
    assert (await repository.get_user_by_email("a@x.org")) is not None
    await repository.revoke_api_key("k")
    await repository.update_user_active("ada", False)
    sessions = repository.engine.sessions
    token = await sessions.create("hash")
    assert await sessions.find(token) == "hash"
    await sessions.end(token)
    await repository.create_job(Job(id="long", status="running"))
    await repository.add_event("long", JobEvent("log", "x\n"))
    await repository.update_job_status("long", "failed")
    await repository.create_job(Job(id="waits", status="queued"))
    await repository.cancel_job("waits", "why")
    assert await seal_job(repository, "long") is Sealed.SEALED
    # Its segments say what it was.
    await repository.engine.nodes.read("DEL", repository.engine.keys.job("long").hash)
    await repository.rebuild()
    assert await repository.verify() == []
    assert await repository.get_job("long") is not None


async def test_the_server_needs_no_more(admin: Redis, guarded: RealServer) -> None:
    """A user with the document's rights has users, sessions and jobs, runs controllers, verifies and rebuilds."""
    url = await user_of(admin, guarded, "ci-server")
    async with RedisJobRepository.from_url(url, max_head_bytes=1) as repository:
        await work_as_a_server(repository)
        await work_as_a_controller(repository)
        assert await repository.verify() == []
    assert await refused_commands(admin) == []


async def test_a_controller_needs_no_more(admin: Redis, guarded: RealServer) -> None:
    """A user with the document's rights creates and runs jobs, and can't read an API key."""
    url = await user_of(admin, guarded, "ci-controller")
    async with RedisJobRepository.from_url(url) as repository:
        await work_as_a_controller(repository)
        assert await refused_commands(admin) == []
        with pytest.raises(MissingRightsError):
            await repository.get_api_key_by_hash("hash")
    async with RedisJobRepository.from_url(guarded.url) as repository:
        assert await repository.verify() == []


async def test_a_reader_needs_no_more(admin: Redis, guarded: RealServer) -> None:
    """A user with the document's rights lists, shows and follows jobs; each write is refused before it is sent."""
    url = await user_of(admin, guarded, "ci-reader")
    with pytest.raises(StoreFormatError, match="access='write'"):
        await RedisJobRepository.from_url(url, access="read").initialize()
    async with (
        RedisJobRepository.from_url(guarded.url) as writer,
        RedisJobRepository.from_url(url, access="read") as repository,
    ):
        await writer.create_job(Job(id="j", status="running", user_id="ada"))
        await writer.add_event("j", JobEvent("log", "one\n"))
        following = repository.follow_events("j")
        assert (await anext(following)).data == "one\n"
        await writer.add_event("j", JobEvent("log", "two\n"))
        assert (await anext(following)).data == "two\n"
        await following.aclose()
        assert [job.id for job in await repository.list_jobs()] == ["j"]
        assert [job.id for job in await repository.list_jobs("ada")] == ["j"]
        assert [job.id for job in await repository.page_jobs(status="running")] == ["j"]
        assert (await repository.get_job("j")) is not None
        assert await repository.resolve_job_id("j") == "j"
        assert await repository.position_of_line("j", 2) == 0
        for write in (
            repository.add_event("j", JobEvent("log", "x")),
            repository.create_job(Job(id="k", status="queued")),
            repository.complete_job("j", True, utc_now()),
            repository.cancel_job("j"),
            repository.engine.sessions.create("hash"),
        ):
            with pytest.raises(ReadOnlyAccessError, match="access='read'"):
                await write
        assert await refused_commands(admin) == []


async def test_without_what_may_be_missing(admin: Redis, guarded: RealServer) -> None:
    """A server that doesn't say what it is may be a good one."""
    minus = [f"-{rule[1:]}" for rule in ("+info", "+hello")]
    url = await user_of(admin, guarded, "ci-server", *minus)
    async with RedisJobRepository.from_url(url) as repository:
        await repository.create_job(Job(id="j", status="running"))
    url = await user_of(admin, guarded, "ci-reader", *minus)
    async with RedisJobRepository.from_url(url, access="read") as repository:
        assert await repository.list_jobs() != []


@pytest.mark.parametrize("name", ["ci-server", *map(slow, ("ci-controller", "ci-reader"))])
async def test_each_missing_command_is_named(admin: Redis, guarded: RealServer, name: str) -> None:
    """Whichever command a user lacks, opening the repository says which, at once, and writes nothing."""
    async with RedisJobRepository.from_url(guarded.url):
        pass
    before = await admin.dbsize()
    for rule in rules_of(name):
        if rule in (*OPTIONAL, *MAINTENANCE):
            continue
        url = await user_of(admin, guarded, name, f"-{rule[1:]}")
        with pytest.raises(MissingRightsError) as caught:
            await RedisJobRepository.from_url(url, access="read" if name == "ci-reader" else "write").initialize()
        assert rule[1:] in str(caught.value), rule
    assert await admin.dbsize() == before


async def test_all_that_is_missing_is_named_together(admin: Redis, guarded: RealServer) -> None:
    """Redis 7 gives a new user no channels: that, keys and commands are told in one message."""
    rules = ("on", ">sesame", "~{ci:0}:[^c]*", "~{ci:accounts}:*", "+@all", "-zadd", "-xadd", "resetchannels")
    await admin.execute_command("ACL", "SETUSER", "half", "reset", *rules)
    with pytest.raises(MissingRightsError) as caught:
        await RedisJobRepository.from_url(f"redis://half:sesame@127.0.0.1:{guarded.port}").initialize()
    said = str(caught.value)
    for missing in ("+xadd", "+zadd", "~{ci:0}:calls:*", "~{ci:0}:clock", "&{ci:0}:events:*", "&{ci:0}:wake:*"):
        assert f" {missing} " in said
    assert "+publish" not in said
    assert "+hset" not in said
    assert not await admin.keys("*")


async def test_rights_that_are_lost_later_damage_nothing(admin: Redis, guarded: RealServer) -> None:
    """A user that loses its channels in between goes on writing; one that loses a command is told, and mended later."""
    url = await user_of(admin, guarded, "ci-server")
    async with RedisJobRepository.from_url(url) as repository:
        await repository.create_job(Job(id="j", status="running"))
        await user_of(admin, guarded, "ci-server", "resetchannels", "-zadd")
        await repository.add_event("j", JobEvent("log", "unheard\n"))
        with pytest.raises(MissingRightsError, match="zadd"):
            await repository.update_job_status("j", "failed")
        await user_of(admin, guarded, "ci-server")
        assert await repository.verify() == []
        await repository.update_job_status("j", "failed")
        assert await repository.verify() == []


async def test_opening_takes_few_round_trips(admin: Redis, guarded: RealServer) -> None:
    """Rights are asked about in one script; the server counts what it was sent."""
    async with RedisJobRepository.from_url(guarded.url):
        pass
    await admin.config_resetstat()
    async with RedisJobRepository.from_url(guarded.url):
        pass
    stats = await admin.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): its["calls"] for name, its in stats.items()}
    assert calls["evalsha"] == 2
    assert {name for name in calls if name.startswith(("h", "x", "z"))} <= {"hget", "hsetnx", "hmget"}


def test_missing_rights_are_named_as_acls_have_them() -> None:
    """What is refused on each key is a missing command, a key that is refused to each command a missing key."""
    names = names_of(Keys("ci"), 0)
    asked = commands_of(READING + LISTENING + WRITING, names)
    assert describe(asked, []) == []
    assert describe(asked, [command for command in asked if command[0] == "HSET"]) == ["+hset"]
    assert describe(asked, [command for command in asked if names["clock"] in command]) == ["~{ci:0}:clock"]
    both = [command for command in asked if command[0] == "HSET" or names["clock"] in command]
    assert describe(asked, both) == ["+hset", "~{ci:0}:clock"]
    one = ("HSET", names["job"], "f", "v")
    assert describe(asked, [one]) == ["+hset on ~{ci:0}:job:*"]
    assert describe(asked, asked)[:2] == ["+eval", "+evalsha"]
    assert commands_of(ACCOUNTS, names)


def test_every_command_of_the_scripts_is_asked_about() -> None:
    """A command that a script begins to use is in the table, and in the document."""
    words = set[str]()
    for path in Path(ci_eventstore.__file__).parent.rglob("*.lua"):
        words |= set(re.findall(r"'([A-Z]{2,})'", path.read_text()))
    asked = {command[0] for command in commands_of(WRITING + READING + ACCOUNTS, names_of(Keys("ci"), 0))}
    words -= {rule[1:].upper() for rule in [*MAINTENANCE, *rules_of("ci-upgrade")]}
    assert words - asked - WORDS == set()
    granted = {rule[1:].split("|")[0].upper() for rule in rules_of("ci-server")}
    assert asked <= granted
