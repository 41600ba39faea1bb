"""Every script that appends moves the mark in the job's hash, and gives the one before to followers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.append import append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_logs, mark_of
from ci_eventstore.keys import Keys
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.repository import RedisJobRepository
from tests import claims

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: Of the log event "hi" at that time.
PAYLOAD = b"\x94\x01\xa3log\xd6\xffk\x02\xd9@\xa3hi\n"


async def mark(server: Nodes, job_id: str = "a1") -> bytes:
    """Return the mark in a job's hash, which has to be that of the stream's last entry."""
    found: bytes = await server.read("HGET", f"{{ci:0}}:job:{job_id}", "mark")
    [[_, [_, payload]]] = await server.read("XREVRANGE", f"{{ci:0}}:events:{job_id}", "+", "-", "COUNT", 1)
    assert found.decode() == mark_of(payload) == hashlib.sha1(payload).hexdigest()[:8]
    return found


async def take(repository: RedisJobRepository, job_id: str = "a1") -> Claimed:
    await repository.create_job(Job(id=job_id, status="queued", user_id="a", created_at=NOW))
    [claimed] = await claims.claim(repository, "default", "c1", 1, 30)
    return claimed


@pytest.fixture
async def told(server: Nodes) -> AsyncIterator[asyncio.Queue[bytes]]:
    """What followers of the job a1 are told."""
    heard, listening = asyncio.Queue[bytes](), asyncio.Event()
    subscription = server.subscription(
        lambda _, message: heard.put_nowait(message), lambda _: listening.set() if heard.empty() else None
    )
    subscription.listen("{ci:0}:events:a1")
    async with asyncio.timeout(30):
        await listening.wait()
        yield heard
    await subscription.close()


async def test_each_script_moves_the_mark(repository: RedisJobRepository, server: Nodes) -> None:
    """Creation, claim, logs, facts, completion alone and with others, late output."""
    claimed = await take(repository)
    marks = [await mark(server)]
    mine = repository.writer("a1", claimed.claim)
    await mine.append([JobEvent("log", "one\n")])
    marks.append(await mark(server))
    await mine.append([JobEvent("log", f"{n}\n") for n in range(100)])
    marks.append(await mark(server))
    await repository.cancel_job("a1")
    marks.append(await mark(server))
    await mine.complete(True, NOW)
    marks.append(await mark(server))
    await repository.add_event("a1", JobEvent("log", "late\n"))
    marks.append(await mark(server))
    assert len(set(marks)) == len(marks)
    other = await take(repository, "b1")
    assert await repository.engine.completions.complete(other, JobEvent("complete", success=True, timestamp=NOW))
    await mark(server, "b1")
    await repository.create_job(Job(id="c1", status="running", events=[JobEvent("log", "x")]))
    await mark(server, "c1")


async def test_followers_are_given_the_mark_before(
    repository: RedisJobRepository, server: Nodes, told: asyncio.Queue[bytes]
) -> None:
    """Behind the payloads, or as a third word where they aren't in the message."""
    await repository.create_job(Job(id="a1", status="queued", user_id="a", created_at=NOW))
    before = await mark(server)
    [claimed] = await claims.claim(repository, "default", "c1", 1, 30)
    head, _, body = (await told.get()).partition(b"\n")
    assert head == b"0-1 0-2:%d" % (len(body) - 8)
    assert body[-8:] == before
    assert mark_of(body[:-8]).encode() == (before := await mark(server))
    mine = repository.writer("a1", claimed.claim)
    await mine.append([JobEvent("log", "one\n"), JobEvent("log", "two\n")])
    assert (await told.get())[-8:] == before
    before = await mark(server)
    await mine.append([JobEvent("log", f"{n}\n") for n in range(100)])
    assert await told.get() == b"2-0 102-0 " + before
    before = await mark(server)
    assert await repository.engine.completions.complete(claimed, JobEvent("complete", success=True, timestamp=NOW))
    message = await told.get()
    assert message.startswith(b"102-0 103-0:")
    assert message[-8:] == before


async def test_messages_keep_their_bytes(
    repository: RedisJobRepository, server: Nodes, keys: Keys, told: asyncio.Queue[bytes]
) -> None:
    """Golden: of a job whose hash has a mark, and of one that older versions left without."""
    await repository.create_job(Job(id="a1", status="running", created_at=NOW))
    await server.read("HSET", "{ci:0}:job:a1", "mark", "0123abcd")
    events = encode_logs([JobEvent("log", "hi\n", timestamp=NOW)])
    await append(server, keys.job("a1"), events, call=Call("t" * 8))
    assert await told.get() == b"0-1 1-0:16\n" + PAYLOAD + b"0123abcd"
    await server.read("HDEL", "{ci:0}:job:a1", "mark")
    await append(server, keys.job("a1"), events, call=Call("u" * 8))
    assert await told.get() == b"1-0 2-0:16\n" + PAYLOAD
    await server.read("HDEL", "{ci:0}:job:a1", "mark")
    many = encode_logs([JobEvent("log", "hi\n", timestamp=NOW)] * 65)
    await append(server, keys.job("a1"), many, call=Call("v" * 8))
    assert await told.get() == b"2-0 67-0"


async def test_a_hash_without_a_mark_is_no_difference(repository: RedisJobRepository, server: Nodes) -> None:
    """Older versions wrote none; a wrong one is a difference, and is mended."""
    await take(repository)
    await server.read("HDEL", "{ci:0}:job:a1", "mark")
    assert await repository.verify() == []
    await server.read("HSET", "{ci:0}:job:a1", "mark", "wrong")
    [difference] = await repository.rebuild()
    assert difference.place == "field mark"
    await mark(server)
