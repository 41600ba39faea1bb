"""`upgrade`: killed at any step and run again, what it waits for, who is refused meanwhile, and the way back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from redis.asyncio import Redis
from redis.driver_info import DriverInfo

from ci_eventstore.connection.connections import DRIVER
from ci_eventstore.connection.deployments import from_client, from_url
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.errors import ReadOnlyAccessError, StoreFormatError
from ci_eventstore.events.codec import decode_event
from ci_eventstore.events.log_index import milliseconds_of
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.records import Place
from ci_eventstore.keys import Keys
from ci_eventstore.members import member_job_id, sort_key_of
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.store_format import FORMAT_VERSION
from ci_eventstore.upgrade import conversions
from ci_eventstore.upgrade import upgrade as upgrading
from ci_eventstore.upgrade.conversions import add_times, index_ended, rename_waiting
from ci_eventstore.upgrade.upgrade import CLIENT_NAME, MOVES, UNSEEN, Dialog, Stage, cancel, old_clients, upgrade
from tests import old_store
from tests.deployments.homes import Home
from tests.servers import BINARIES, RealServer
from tests.waiting import wait_until

STORE = Keys("ci").store
#: What a client calls itself that isn't of the old version, for servers that show it.
ANOTHER = DriverInfo("another")


class KilledError(BaseException):
    """Ends an upgrade where it is, as `kill -9` does."""


@pytest.fixture(scope="module", params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param()
    return found


@pytest.fixture
def server(binary: Path) -> Iterator[RealServer]:
    with RealServer(binary, "appendonly no", tcp=True) as started:
        yield started


@pytest.fixture
async def client(server: RealServer) -> AsyncIterator[Redis]:
    """The old store on a server, as a client sees it that has nothing to do with it."""
    async with Redis(port=server.port) as loading:
        await old_store.load(loading)
    async with Redis(port=server.port, db=1) as elsewhere:
        await elsewhere.ping()
        async with Redis(port=server.port, decode_responses=True, driver_info=ANOTHER) as opened:
            yield opened


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "LOOK_SECONDS", 0.01)


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, *, is_sent: bool) -> None:
    """Have the upgrade killed at one of its commands, before it is sent or after."""
    left = [step]

    def dying(name: str) -> None:
        method = getattr(Node, name)

        async def send(self: Node, *args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not is_sent:
                raise KilledError
            try:
                return await method(self, *args, **options)
            finally:
                if left[0] == 0:
                    raise KilledError

        monkeypatch.setattr(Node, name, send)

    for name in ("read", "read_many", "run"):
        dying(name)


# A store is written, upgraded and verified for each of some twenty commands.
@pytest.mark.slow
@pytest.mark.parametrize("version", old_store.PATHS)
@pytest.mark.parametrize("is_sent", [False, True], ids=["before", "after"])
async def test_killed_at_any_command_it_goes_on(valkey: Home, is_sent: bool, version: int) -> None:
    """Wherever it ends, no program opens the store; run again it comes to its end, and all is as it should be."""
    async with Redis(unix_socket_path=str(valkey.socket_path)) as client:
        await _kill_at_each_step(client, version, is_sent=is_sent)
        found = await client.hgetall(STORE)
    assert (found[b"format"], found[b"partitions"], b"upgrading" in found) == (b"5", b"1", False)


async def _kill_at_each_step(client: Redis, version: int, *, is_sent: bool) -> None:
    deployment = from_client(client)
    for step in range(1, 200):
        await client.flushall()
        await old_store.load(client, version)
        with pytest.MonkeyPatch.context() as patch:
            killed_at(step, patch, is_sent=is_sent)
            try:
                await old_store.upgraded(deployment)
            except KilledError:
                pass
            else:
                break
        if await client.hget(STORE, "format") != b"5":
            with pytest.raises(StoreFormatError, match="ci-eventstore upgrade"):
                await RedisJobRepository(client).initialize()
        assert await old_store.upgraded(deployment) is Stage.DONE
        async with RedisJobRepository(client) as repository:
            assert await repository.verify() == []
    else:
        pytest.fail("it never came to its end")
    assert step > (3 if version == 4 else 5)


async def test_what_has_another_form_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backlogs have shorter keys and NULs, sparse indexes a time, page by page; what is converted is left alone."""
    monkeypatch.setattr(conversions, "PAGE_ENTRIES", 1)
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    await old_store.load(client)
    nodes, keys = Nodes(from_client(client)), Keys("ci")
    for _ in range(2):
        backlogs = {f"{{ci:0}}:backlog:{queue}": queue for queue in ("builds", "default")}
        await rename_waiting(nodes, keys, backlogs)
        await add_times(nodes, keys, {keys.job(name).log_index: name for name in ("long", "truncated-ended")})
    assert await client.zrange("{ci:0}:backlog:builds", 0, -1) == [
        f"Zoë\0{sort_key_of(0x00E321179039F240)}\0waiting-zip".encode()
    ]
    waiting = await client.zrange("{ci:0}:backlog:default", 0, -1)
    assert waiting[:3] == [
        f"\0{sort_key_of(0x00E32117902C9240)}\0waiting-nobody".encode(),
        f"ada\0{sort_key_of(0x00E32117902C9240)}\0waiting-1".encode(),
        f"ada\0{sort_key_of(0x00E32117903BD480)}\0waiting-2".encode(),
    ]
    assert (len(waiting), any(b":" in member for member in waiting)) == (5, False)
    index = await client.lrange(keys.job("long").log_index, 0, -1)
    assert [entry.split()[:3] for entry in index] == [[b"1000", b"1000", b"5780"], [b"2000", b"2000", b"11560"]]
    source = LogSource(nodes)
    for entry in [*index, *await client.lrange(keys.job("truncated-ended").log_index, 0, -1)]:
        position, _, _, time = map(int, entry.split())
        job = "long" if entry in index else "truncated-ended"
        [(_, payload)] = await source.range(keys.job(job), Place(position), Place(position), 1)
        event = decode_event(payload, position)
        assert event.timestamp is not None
        assert abs(event.timestamp.timestamp() * 1000 - time) < 1
    await nodes.close()


async def test_ended_jobs_are_indexed() -> None:
    """All of them, by their ends; their logs count as written to now, also when it is done again."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    await old_store.load(client, 2)
    nodes, keys = Nodes(from_client(client)), Keys("ci")
    hashes = {key: key.partition(":job:")[2] for key in as_texts(await nodes.read("KEYS", "{ci:0}:job:*"))}
    begun, job = int((await nodes.read("TIME"))[0]) * 1000, keys.job("")
    await index_ended(nodes, keys, hashes)
    found = as_texts(await nodes.read("ZRANGE", job.unsealed, 0, -1))
    assert set(found) >= old_store.ENDED
    assert await nodes.read("ZCOUNT", job.unsealed, begun, "+inf") == len(found)
    members = as_texts(await nodes.read("ZRANGE", job.ended, 0, -1))
    # Both have ends that were given: 2024 and 2025.
    assert [member_job_id(member) for member in members[:2]] == ["2-failed-made", "2-completed-moved"]
    assert {member_job_id(member) for member in members} == set(found)
    await nodes.read("ZADD", job.unsealed, 7, found[0])
    await index_ended(nodes, keys, hashes)
    assert float(await nodes.read("ZSCORE", job.unsealed, found[0])) == 7
    assert as_texts(await nodes.read("ZRANGE", job.ended, 0, -1)) == members
    await nodes.close()


async def test_listings_of_all_jobs_are_dropped() -> None:
    """Those of all statuses, and no others: whoever lists all jobs merges them."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    await old_store.load(client)
    before = set(as_texts(await client.keys("{ci:0}:[jo]*:*")))
    dropped = {key for key in before if key.split(":")[3] == "all"}
    assert dropped == {"{ci:0}:jobs:all", *(f"{{ci:0}}:owned:all:{user}" for user in ("ada", "bob", "Zoë"))}
    assert await old_store.upgraded(from_client(client)) is Stage.DONE
    assert set(as_texts(await client.keys("{ci:0}:[jo]*:*"))) == before - dropped


@pytest.mark.parametrize(("version", "stage"), [(2, Stage.WAITING_2), (3, Stage.WAITING_3), (4, Stage.WAITING_4)])
async def test_a_store_is_given_back_as_what_it_was(server: RealServer, version: int, stage: Stage) -> None:
    """Until anything is converted."""
    async with Redis(port=server.port, decode_responses=True) as client:
        await old_store.load(client, version)
        dialog = Dialog(has_backup=lambda: False, waiting=lambda _: None)
        assert await upgrade(from_url(server.url), "ci", dialog, is_forced=True, access="write") is stage
        await cancel(from_url(server.url), "ci", "write")
        found = await client.hgetall(STORE)
        assert (found["format"], "upgrading" in found) == (str(version), False)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, 1999, tzinfo=UTC), 1001),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(2026, 1, 1), 0),
    ],
)
def test_milliseconds_of_a_time(time: datetime, expected: int) -> None:
    """They count from 1970, UTC; a time without a zone has none."""
    assert milliseconds_of(time) == expected


async def test_what_is_damaged_stops_no_upgrade(valkey: Home) -> None:
    """Keys of other types and members that aren't any are left to `verify` and `rebuild`, for which it has to end."""
    async with Redis(unix_socket_path=str(valkey.socket_path)) as client:
        await client.flushall()
        await old_store.load(client, 3)
        for key in ("{ci:0}:owned:queued:ada", "{ci:0}:backlog:default", "{ci:0}:index:long", "{ci:0}:job:failed"):
            await client.delete(key)
            await client.set(key, "text")
        for key in ("{ci:0}:jobs:queued", "{ci:0}:ended"):
            await client.zadd(key, {b"ffffffffffffffff:x": 0, b"\xff": 0})
        assert await old_store.upgraded(from_client(client)) is Stage.DONE
        async with RedisJobRepository(client) as repository:
            assert await repository.verify()
            await repository.rebuild()
            assert await repository.verify() == []


async def test_progress_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each page of keys, up to all that the server has."""
    monkeypatch.setattr(conversions, "PAGE_KEYS", 50)
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(version=(7, 0)))
    await client.mset({f"{{ci:0}}:other:{number}": "" for number in range(2500)})
    nodes, seen = Nodes(from_client(client)), list[tuple[int, int]]()
    await conversions.convert(nodes, Keys("ci"), lambda done, total: seen.append((done, total)))
    assert seen == [(50, 2500), (100, 2500), (150, 2500)]
    await nodes.close()


@pytest.mark.slow
async def test_it_waits_until_nobody_uses_the_store(server: RealServer, client: Redis) -> None:
    """Leases, offers, listeners and clients of the old version are named until they are gone."""
    seen: list[str] = []
    url = server.url
    dialog = Dialog(has_backup=lambda: True, waiting=lambda found: seen.append("; ".join(found)))
    async with (
        Redis(port=server.port, decode_responses=True) as old,
        old.pubsub() as listening,
        asyncio.TaskGroup() as tasks,
    ):
        await listening.subscribe("ci:wake:work")
        await old.zadd("{ci:0}:offers:work", {"controller-1": 7})
        running = tasks.create_task(upgrade(from_url(url), "ci", dialog, is_forced=False, access="write"))
        await _wait_for(seen, "4 claimed jobs; 1 idle controller; 1 channel that is listened to; client 127.0.0.1:")
        assert await client.hget(STORE, "format") == "0"
        await client.delete("{ci:0}:offers:work")
        await _wait_for(seen, "4 claimed jobs; 1 channel that is listened to; client")
        await client.delete("{ci:0}:leases:offers", "{ci:0}:leases:work")
        await _wait_for(seen, "1 channel that is listened to; client")
        await listening.aclose()
        await _wait_for(seen, "client 127.0.0.1:")
        await old.aclose()
        if (await client.info())["redis_version"].startswith("7.0"):
            # It doesn't show what clients call themselves: this one counts, too.
            await client.aclose()
        assert await running is Stage.DONE
    async with RedisJobRepository.from_url(url) as repository:
        # The leases that were taken away above.
        assert len(await repository.rebuild()) == len(old_store.CLAIMED)
        assert await repository.verify() == []


async def _wait_for(seen: list[str], beginning: str) -> None:
    await wait_until(lambda: bool(seen) and seen[-1].startswith(beginning))


async def test_without_a_backup_nothing_is_converted(server: RealServer, client: Redis) -> None:
    """The store stays marked; given back, it is what it was; once it is converted, there is no way back."""
    before = {key: await client.dump(key) for key in await client.keys()}
    deployment = from_url(server.url)
    dialog = Dialog(has_backup=lambda: False, waiting=lambda _: None)
    assert await upgrade(deployment, "ci", dialog, is_forced=True, access="write") is Stage.WAITING_1
    with pytest.raises(StoreFormatError, match="is being upgraded"):
        await RedisJobRepository.from_url(server.url).initialize()
    await cancel(deployment, "ci", "write")
    assert await client.hgetall(STORE) == {"format": "1", "partitions": "1"}
    await cancel(deployment, "ci", "write")
    assert {key: await client.dump(key) for key in await client.keys()} == before
    await client.hset(STORE, mapping={"format": "0", "upgrading": "converting"})
    with pytest.raises(StoreFormatError, match="restore the backup"):
        await cancel(deployment, "ci", "write")
    assert await upgrade(deployment, "ci", dialog, is_forced=False, access="write") is Stage.DONE
    with pytest.raises(StoreFormatError, match="only the backup"):
        await cancel(deployment, "ci", "write")


async def test_what_cannot_be_upgraded(server: RealServer, client: Redis) -> None:
    """No store, one of a later version, and one that may only be read: each is an error, and nothing is changed."""
    with pytest.raises(StoreFormatError, match="there is no store 'other'"):
        await upgrade(from_url(server.url), "other", _consent(), is_forced=True, access="write")
    with pytest.raises(ReadOnlyAccessError):
        await upgrade(from_url(server.url), "ci", _consent(), is_forced=True, access="read")
    await client.hset(STORE, "format", "6")
    with pytest.raises(StoreFormatError, match="has format version 6, this program reads 5"):
        await upgrade(from_url(server.url), "ci", _consent(), is_forced=True, access="write")
    assert await client.hgetall(STORE) == {"format": "6", "partitions": "1"}


def _consent() -> Dialog:
    return Dialog(has_backup=lambda: True, waiting=lambda _: None)


async def test_clients_that_cannot_be_seen_are_in_the_way(server: RealServer, client: Redis) -> None:
    """A user that may not list clients is told so, and only force leads on."""
    await client.execute_command(
        "ACL", "SETUSER", "blind", "on", ">sesame", "allkeys", "allchannels", "+@all", "-client|list"
    )
    await client.delete("{ci:0}:leases:offers", "{ci:0}:leases:work")
    seen: list[str] = []
    dialog = Dialog(has_backup=lambda: False, waiting=seen.extend)
    blind = from_url(f"redis://blind:sesame@127.0.0.1:{server.port}")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await upgrade(blind, "ci", dialog, is_forced=False, access="write")
    assert seen == [UNSEEN]
    assert await upgrade(blind, "ci", _consent(), is_forced=True, access="write") is Stage.DONE


def test_clients_of_the_old_version_are_told_from_others() -> None:
    """By what they call themselves, in the store's database; no replica, sentinel or program of today counts."""
    lines = [
        f"id=1 addr=own:1 name={CLIENT_NAME} db=2 flags=N cmd=client|list lib-name=redis-py({DRIVER}_v0.1.0)",
        "id=2 addr=old:1 name= db=2 flags=N cmd=evalsha lib-name=redis-py idle=3",
        "id=3 addr=old:2 name= db=2 flags=P cmd=subscribe lib-name= idle=4",
        f"id=4 addr=new:1 name= db=2 flags=N cmd=evalsha lib-name=redis-py({DRIVER}_v0.1.0) idle=0",
        "id=5 addr=elsewhere:1 name= db=0 flags=N cmd=evalsha lib-name=redis-py idle=0",
        "id=6 addr=replica:1 name= db=2 flags=S cmd=replconf lib-name= idle=0",
        "id=7 addr=sentinel:1 name=sentinel-12345678-cmd db=2 flags=N cmd=ping lib-name= idle=0",
        "id=8 addr=other:1 name= db=2 flags=N cmd=get lib-name=jedis idle=0",
        "id=9 addr=old:3 name= db=2 flags=N cmd=evalsha lib-name=redis-py(ci-eventstore_v0.1.0) idle=5",
        "id=10 addr=old:4 name= db=2 flags=N cmd=evalsha lib-name=redis-py(ci-eventstore-f3_v0.1.0) idle=6",
        "id=11 addr=old:5 name= db=2 flags=N cmd=evalsha lib-name=redis-py(ci-eventstore-f4_v0.1.0) idle=7",
    ]
    assert f"ci-eventstore-f{FORMAT_VERSION}" == DRIVER
    assert old_clients(lines) == [
        "old:1 (last command evalsha, idle for 3 s)",
        "old:2 (last command subscribe, idle for 4 s)",
        "old:3 (last command evalsha, idle for 5 s)",
        "old:4 (last command evalsha, idle for 6 s)",
        "old:5 (last command evalsha, idle for 7 s)",
    ]
    without_names = [line.partition(" lib-name")[0] for line in lines]
    assert len(old_clients(without_names)) == 7


def test_the_old_version_refuses_a_store_at_every_stage_but_the_first() -> None:
    """Programs of version 1 read the format as a number, and open what has theirs; later ones likewise."""
    for number, old in enumerate((Stage.OLD_1, Stage.OLD_2, Stage.OLD_3, Stage.OLD_4), start=1):
        assert [stage for stage in Stage if int(stage.value[0]) == number] == [old]
        assert [before for moves in MOVES.values() for before, _ in moves].count(old) == 1


def test_an_upgrade_to_an_earlier_version_does_not_finish_one_to_a_later() -> None:
    """It knows no stage that one to this version is in once it converts; this one goes on where that broke off."""
    of_version_2 = [("1", ""), ("0", "waiting"), ("0", "converting"), ("2", "")]
    of_version_3 = [*of_version_2[:2], ("0", "waiting 2"), ("0", "converting 3"), ("3", "")]
    of_version_4 = [*of_version_3[:3], ("0", "waiting 3"), ("0", "converting 4"), ("4", "")]
    assert Stage.CONVERTING.value not in (*of_version_2, *of_version_3, *of_version_4)
    broken_off = (Stage.CONVERTING_TO_2, Stage.CONVERTING_TO_3, Stage.CONVERTING_TO_4)
    assert {(stage, Stage.CONVERTING) for stage in broken_off} <= {*MOVES["begin"]}
