"""What each library of scripts does by itself."""

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import Script, load_libraries, with_lists
from ci_eventstore.events.codec import decode, encode_event
from ci_eventstore.events.log_index import milliseconds_of
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.queues.claim import CONSTANTS as CLAIM_CONSTANTS

JOB, LEASES = "{ci:0}:job:a", "{ci:0}:leases:q"


async def run(
    server: Nodes, libraries: str, body: str, *values: str, keys: tuple[str, ...] = (), head: str = ""
) -> Any:
    """Run Lua after some libraries, and what has to stand before them, at the time 1,000,000."""
    found = with_lists(load_libraries(libraries), CLAIM_CONSTANTS)
    source = f"local now_ms = 1000000 table.remove(ARGV)\n{head}{found}\n{body}"
    script = Script("test", lambda: source)
    return await server.run(script, keys, values)


@pytest.mark.parametrize(
    ("kept", "number", "expected"),
    [
        ("", "1", [b"first"]),
        ("garbage", "1", [b"first"]),
        ("4 yny", "5", [b"next", b"yny"]),
        ("4 yny", "4", [b"repeated", b"yny"]),
        ("4 yny", "3", [b"late", b"yny"]),
        ("4 yny", "6", [b"ahead", b"yny"]),
        ("-1 0 17", "1", [b"ahead", b"0 17"]),
    ],
)
async def test_calls(server: Nodes, kept: str, number: str, expected: list[bytes]) -> None:
    """A call is known by its number and what is kept of the last one."""
    assert await run(server, "calls", "return {recall(ARGV[1], tonumber(ARGV[2]))}", kept, number) == expected


async def test_calls_of_sessions(server: Nodes) -> None:
    """What another session has called says nothing."""
    body = "return {of_session(ARGV[1], ARGV[2])}"
    assert await run(server, "calls", body, "ab-7 1:x", "ab-8") == [b"7 1:x", 8]
    assert await run(server, "calls", "return {of_session(ARGV[1], ARGV[2]) or 'nothing'}", "ab-7 x", "cd-1") == [
        b"nothing"
    ]


async def test_calls_that_nobody_uses_are_forgotten(server: Nodes) -> None:
    """Those that can't be read are, too."""
    await server.read("HSET", JOB, "old", "3 4 100", "new", "3 4-1 900000", "bad", "x")
    await run(server, "job_calls", "forget_calls(KEYS[1], 500000)", keys=(JOB,))
    assert await server.read("HKEYS", JOB) == [b"new"]


async def test_telling(server: Nodes) -> None:
    """A message that is refused or that nobody hears is heard by nobody."""
    assert await run(server, "telling", "return mark_of('abc')") == hashlib.sha1(b"abc").hexdigest()[:8].encode()
    assert await run(server, "telling", "return tell('ci:a', 'x')") == 0


async def test_standing(server: Nodes) -> None:
    """An error names the key; whole numbers are what scripts write."""
    await server.read("SET", JOB, "x")
    libraries = "standing, reading"
    body = "return unreadable('HLEN', KEYS[1], KEYS[2]).err"
    assert (await run(server, libraries, body, keys=(LEASES, JOB))).startswith(f"DAMAGED {JOB}: ".encode())
    body = "return read_hash(KEYS[1], 'a') == nil and 1 or 0"
    assert await run(server, libraries, body, keys=(JOB,)) == 1
    body = "return named(attempt(function() redis.call('ZCARD', KEYS[1]) end), {'zset'}).err"
    assert (await run(server, libraries, body, keys=(JOB,))).startswith(b"DAMAGED")
    body = "return forbidden('HSET', KEYS[1], '', '') == nil and 1 or 0"
    assert await run(server, libraries, body, keys=(JOB,)) == 1
    numbers = ["0", "12", "", "1.5", "-1", "1e3", "nan", "0x10", "9" * 17, " 1"]
    body = "local found = {} for i, text in ipairs(ARGV) do found[i] = whole(text) or -1 end return found"
    assert await run(server, libraries, body, *numbers) == [0, 12, *[-1] * 8]


@pytest.mark.parametrize(
    ("fields", "now"),
    [
        ({}, 0),
        ({"now": "5000", "seen": "999000", "lease:30000": "35000"}, 6000),
        ({"now": "5000", "seen": "1", "lease:4000": "9000"}, 7000),
        ({"now": "garbage", "seen": "999000", "lease:30000": "35000"}, 6000),
        ({"now": "5000", "seen": "garbage"}, 5000),
        ({"now": "5000", "seen": "999000", "lease:x": "1", "lease:30000": "nan"}, 6000),
    ],
)
async def test_clock(server: Nodes, fields: dict[str, str], now: int) -> None:
    """It goes on by half a lease at most, and damaged fields are made up for."""
    for name, value in fields.items():
        await server.read("HSET", JOB, name, value)
    assert await run(server, "standing, reading, clock", "return advance_clock(KEYS[1], 30000)", keys=(JOB,)) == now
    assert await server.read("HMGET", JOB, "now", "seen") == [b"%d" % now, b"1000000"]


async def test_tickets(server: Nodes) -> None:
    """A ticket is a stream id; the group is made again; what isn't a ticket is none."""
    dispatch, tickets = "{ci:0}:dispatch:q", "{ci:0}:tickets:q"
    body = "return add_ticket(KEYS[1], KEYS[2], 'ada')"
    ticket = await run(server, "tickets", body, keys=(dispatch, tickets))
    await server.read("HSET", tickets, "ada", ticket, "eve", "garbage")
    body = "return {ticket_of(KEYS[2], 'ada'), ticket_of(KEYS[2], 'eve') or '', last_ticket(KEYS[1])}"
    assert await run(server, "tickets", body, keys=(dispatch, tickets)) == [ticket, b"", b"0-0"]
    await server.read("XGROUP", "DESTROY", dispatch, "controllers")
    assert await run(server, "tickets", "return last_ticket(KEYS[1])", keys=(dispatch,)) == b"0-0"
    await run(server, "tickets", "remove_ticket(KEYS[1], 'garbage') remove_ticket(KEYS[1], ARGV[1])", ticket.decode(),
              keys=(dispatch,))  # fmt: skip
    assert await server.read("XLEN", dispatch) == 0


async def test_ring(server: Nodes) -> None:
    """The newest entries are kept; one that can't be read is left out."""
    body = """
    local RING_ENTRY_BYTES, RING_BYTES = 0, 10
    local ring = read_ring(KEYS[1])
    for place = 1, 4 do
      put_in_ring(ring, 'abc' .. place, 4, 1)
    end
    local over = {ring = ring}
    put_new(over)
    save_ring(over)
    redis.call('HSET', KEYS[1], 4, 'garbage')
    local again = read_ring(KEYS[1])
    return {again.first, again.last, again.lost_bytes, {ring_entry(again, 3)}, {ring_entry(again, 4)}}
    """
    with_constants = "local RING_ENTRY_BYTES, RING_BYTES = 0, 10\n"
    source = f"table.remove(ARGV)\n{with_constants}{load_libraries('standing, reading, ring')}\n{body}"
    script = Script("test", lambda: source)
    assert await server.run(script, [JOB], []) == [3, 4, 8, [4, 1, b"abc3"], [0, 0]]


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 11, 22, 12, tzinfo=UTC),
        datetime(2026, 11, 22, 12, 0, 1, 999_999, tzinfo=UTC),
        datetime(2026, 11, 22, 12),
        datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2200, 1, 1, 0, 0, 0, 1000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
async def test_indexing(server: Nodes, time: datetime) -> None:
    """An entry has the time of its event as Python has it, in all three forms of msgpack's."""
    for event in (JobEvent("log", "x", timestamp=time), JobEvent("complete", "x" * 900, success=True, timestamp=time)):
        payload: Any = encode_event(event)
        entry = await run(server, "standing, indexing", "return index_entry_of(7, 8, 9, ARGV[1])", payload)
        assert entry == f"7 8 9 {milliseconds_of(time)}".encode()
        await server.read("RPUSH", JOB, entry)
        assert await run(server, "standing, indexing", "return {newest_indexed(KEYS[1])}", keys=(JOB,)) == [7, 9]


BACKLOG, DISPATCH, TICKETS = "{ci:0}:backlog:q", "{ci:0}:dispatch:q", "{ci:0}:tickets:q"
QUEUE = (DISPATCH, BACKLOG, TICKETS, LEASES)


async def in_queue(server: Nodes, body: str, *values: str) -> Any:
    """Run Lua with a queue's libraries and keys."""
    named = "local dispatch, backlog, tickets, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]\n"
    return await run(server, "standing, tickets, queue", named + body, *values, keys=QUEUE)


async def test_queue(server: Nodes) -> None:
    """A user has one ticket while a job waits; the last one that leaves takes it along, and so does a lease."""
    enter = "return enter_queue(dispatch, backlog, tickets, 'ada', ARGV[1]) or ''"
    members = ("ada\x001\x00a", "ada\x002\x00b")
    assert [await in_queue(server, enter, member) for member in members] == [b"ticket ada\x001\x00a", b""]
    leave = "leave_queue(dispatch, backlog, tickets, 'ada', ARGV[1]) return redis.call('XLEN', dispatch)"
    assert [await in_queue(server, leave, member) for member in ("ada\x001\0a", "ada\x002\0b")] == [1, 0]
    assert await server.read("EXISTS", BACKLOG, TICKETS) == 0
    await in_queue(server, enter, "ada\x003\0c")
    ticket = (await server.read("HGET", TICKETS, "ada")).decode()
    await server.read("ZADD", LEASES, 1, "c")
    await in_queue(server, "drop_lease(dispatch, leases, 'c', ARGV[1])", ticket)
    assert [await server.read("XLEN", DISPATCH), await server.read("EXISTS", LEASES)] == [0, 0]


@pytest.mark.parametrize("key", QUEUE)
async def test_queue_that_can_not_be_moved_in(server: Nodes, key: str) -> None:
    """The key that holds something else is named before anything is written."""
    body = "local place = {dispatch = dispatch, backlog = backlog, tickets = tickets, leases = leases}\n"
    body += "local error = unready(place, 'drop leave enter')\n"
    body += "return error and error.err or ''"
    assert await in_queue(server, body) == b""
    await server.read("SET", key, "x")
    assert (await in_queue(server, body)).startswith(f"DAMAGED {key}: ".encode())


@pytest.mark.parametrize(("epoch", "attempts"), [(1, 1), (2, 1), (70000, 3)])
async def test_payloads(server: Nodes, epoch: int, attempts: int) -> None:
    """They are the facts that Python would write, also the second of the same numbers."""
    time = datetime(2026, 11, 22, 12, tzinfo=UTC)
    body = """
    local payload_of_claim, found = claimed_payloads(ARGV[1], 'c1'), {}
    for i = 1, 2 do
      found[i] = payload_of_claim(tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[2] .. ' ab', i .. '-0')
    end
    return found
    """
    packed: Any = msgpack.packb(time, datetime=True)
    source = f"local now_ms = 1000000 ARGV[#ARGV] = nil\n{load_libraries('payloads')}\n{body}"
    script = Script("test", lambda: source)
    found = await server.run(script, [], [packed, epoch, attempts])
    for number, payload in enumerate(found, 1):
        fact = decode(payload, 0)
        assert isinstance(fact, Fact)
        assert (fact.type, fact.time) == (FactType.CLAIMED, time)
        expected = {"epoch": epoch, "attempts": attempts, "controller": "c1", "claim": f"{epoch} ab"}
        assert fact.fields == {**expected, "ticket": f"{number}-0"}


@pytest.mark.parametrize(
    ("ends_at", "listens", "expected"), [("9000", True, b"c1"), ("9000", False, b""), ("1", True, b"")]
)
async def test_offers(server: Nodes, ends_at: str, listens: bool, expected: bytes) -> None:
    """An offer counts whose controller listens, until its end on the clock; those that count no more are taken back."""
    clock, offers, offered = "{ci:0}:clock", "{ci:0}:offers:q", "{ci:0}:offered:q"
    await server.read("HSET", clock, "now", "5000", "seen", "1000000")
    await server.read("ZADD", offers, ends_at, "c1")
    await server.read("HSET", offered, "c1", "ab-1 30000 4000")
    subscription = server.subscription(lambda *_: None, lambda *_: None)
    if listens:
        subscription.listen("offers:ab")
        async with asyncio.timeout(30):
            while not (await server.read("PUBSUB", "NUMSUB", "offers:ab"))[1]:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
    names = "local dispatch, leases, clock, offers, offered = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]\n"
    libraries = load_libraries("standing, reading, clock, tickets, offers")
    source = f"local now_ms = 1000000 ARGV[#ARGV] = nil\n{names}{libraries}\n"
    source += "return (next_offer('offers:') or {}).controller or ''"
    script = Script("test", lambda: source)
    assert await server.run(script, [DISPATCH, LEASES, clock, offers, offered], []) == expected
    assert await server.read("EXISTS", offers) == 0
    await subscription.close()


async def test_a_delivery_leaves_no_other_ticket(server: Nodes) -> None:
    """Tickets that nobody waits for are handed out with it, and are gone."""
    body = """
    add_ticket(dispatch, tickets, 'nobody')
    local ticket = add_ticket(dispatch, tickets, 'ada')
    deliver(ticket, 'c1')
    return {ticket, redis.call('XPENDING', dispatch, 'controllers', '-', '+', 9)}
    """
    source = "ARGV[#ARGV] = nil\nlocal dispatch, tickets = KEYS[1], KEYS[2]\n"
    source += load_libraries("standing, reading, clock, tickets, offers") + body
    script = Script("test", lambda: source)
    ticket, pending = await server.run(script, [DISPATCH, TICKETS], [])
    assert [entry[:2] for entry in pending] == [[ticket, b"c1"]]
    assert [entry[0] for entry in await server.read("XRANGE", DISPATCH, "-", "+")] == [ticket]
