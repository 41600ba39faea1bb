"""Entries that can't be read: followers of that job are told, and nobody else notices."""

import asyncio
from contextlib import aclosing

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.following import hub
from ci_eventstore.repository import RedisJobRepository
from tests.waiting import wait_until

#: Bytes that are no msgpack; an entry of a later version; a compressed text of which nothing is left.
UNREADABLE = [
    b"\xc1garbage",
    bytes.fromhex("9402a36c6f6700a0"),
    bytes.fromhex("9401a36c6f67d6ff6b02d940c70401deadbeef"),
]


async def append_raw(server: Nodes, job_id: str, position: int, payload: bytes, *, tells: bool) -> None:
    """Append an entry as a program of another version would: with its message, or with one that was lost."""
    stream = f"{{ci:0}}:events:{job_id}"
    await server.read("XADD", stream, f"{position}-0", "e", payload)
    await server.read("HSET", f"{{ci:0}}:job:{job_id}", "position", str(position), "part", "0")
    if tells:
        message = b"%d-0 %d-0:%d\n" % (position - 1, position, len(payload)) + payload
        await server.read("PUBLISH", stream, message)


async def follow(repository: RedisJobRepository, job_id: str, seen: list[str]) -> None:
    async with aclosing(repository.follow_events(job_id)) as events:
        async for event in events:
            seen += [event.data or event.type]


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "WATCH_SECONDS", 0.2)


@pytest.mark.parametrize("tells", [True, False], ids=["told", "lost"])
@pytest.mark.parametrize("payload", UNREADABLE, ids=["garbage", "later", "compressed"])
async def test_followers_of_that_job_alone_are_told(
    repository: RedisJobRepository, server: Nodes, payload: bytes, tells: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A follower ends with a StoreFormatError that names the job; one of another job goes on over one connection."""
    for job_id in ("bad", "good"):
        await repository.create_job(Job(id=job_id, status="running", events=[JobEvent("log", "first\n")]))
    seen: dict[str, list[str]] = {"bad": [], "good": []}
    bad, good = (asyncio.create_task(follow(repository, job_id, seen[job_id])) for job_id in seen)
    await wait_until(lambda: list(seen.values()) == [["first\n"]] * 2)
    connections = await listening(server)
    await append_raw(server, "bad", 2, payload, tells=tells)
    with pytest.raises(StoreFormatError, match="job 'bad': the entry at position 2"):
        await asyncio.wait_for(bad, 20)
    await repository.add_event("good", JobEvent("log", "second\n"))
    assert await listening(server) == connections
    await repository.complete_job("good", True, utc_now())
    await asyncio.wait_for(good, 20)
    assert seen["good"] == ["first\n", "second\n", "complete"]
    assert "Traceback" not in caplog.text
    for read in (repository.get_job("bad"), repository.get_events_since("bad", 1), follow(repository, "bad", [])):
        with pytest.raises(StoreFormatError, match="job 'bad': the entry at position 2"):
            await asyncio.wait_for(read, 20)
    await server.read("FLUSHALL")


async def listening(server: Nodes) -> list[str]:
    """Return the ids of the connections that listen, which a new one wouldn't share."""
    clients = (await server.read("CLIENT", "LIST", "TYPE", "pubsub")).decode().splitlines()
    return [client.split(" ")[0] for client in clients]
