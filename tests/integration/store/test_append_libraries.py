"""What the libraries of the scripts that append and mend do by themselves."""

from typing import Any

import pytest

from ci_common.models import JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.codec import decode
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.events.sealed_log import end_in
from tests.integration.store.test_script_libraries import BACKLOG, DISPATCH, JOB, LEASES, TICKETS, run

CALLS, INDEX, RING, STREAM, IDS = (f"{{ci:0}}:{name}" for name in ("calls:a", "index:a", "ring:a", "events:a", "ids"))
KEYS = (JOB, STREAM, CALLS, INDEX, RING, IDS)
#: What `append.py` gives, but smaller.
HEAD = """
local INDEX_EVENTS, INDEX_BYTES, LATE_BYTES, RING_BYTES, RING_ENTRY_BYTES, TOLD_BYTES = 3, 1000, 5, 200, 64, 100
local FACT, LOG, CALLS_KEPT, CALLS_AGE_MS, CALLS_TTL_MS = 102, 108, 2, 1000, 5000
local hash, stream, calls, index, ring, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
"""
ALL = "telling, standing, reading, sealed, indexing, payloads, calls, job_calls"
ALL += ", ring, recording, writing, limits, listing"
#: The fields of a job with two lines, and one whose end is at the second; then what a new one lacks.
STATE = "{'4', '2', '0', '10', '2', false, false, false, 'abcd1234', false}"
ENDED = "{'4', '2', '0', '10', '2', false, '2', false, 'abcd1234', '10'}"
MISSING = "{false, false, false, false, false, false, false, false, false, false}"


async def append(server: Nodes, body: str, *values: str) -> Any:
    """Run Lua with the constants, the keys and the libraries of an append."""
    return await run(server, ALL, body, *values, keys=KEYS, head=HEAD)


@pytest.mark.parametrize(
    ("last_call", "number", "expected"),
    [
        ("3 2-0 900", "3", [b"repeated", 2]),
        ("3 1-4 900", "3", [b"repeated", 1]),
        ("3 3-0 900", "3", []),
        ("3 2-1 900", "3", []),
        ("3 2-0 900", "4", []),
        ("3 2-0 900", "5", [b"lost"]),
        ("3 2-0 900", "2", [b"lost"]),
        ("-1 0 900", "1", [b"lost"]),
    ],
)
async def test_a_call_that_is_known(server: Nodes, last_call: str, number: str, expected: list[Any]) -> None:
    """The job is at 2-0: a call whose place isn't reached was stopped, and goes on."""
    body = "return answer_of_known(ARGV[1], tonumber(ARGV[2]), '2', '0') or {}"
    assert await append(server, body, last_call, number) == expected


@pytest.mark.parametrize(
    ("position", "log", "expected"),
    [
        ("7", "0-1,4-0,400,0123456789abcdef", [b"7", b"1"]),
        ("7", "", [b"7", b"1"]),
        ("", "", [None, None]),
        ("", "0-1,4-0,400,0123456789abcdef", [b"4", b"0"]),
        ("", "0-1,4-0,400,012345678aaaaaaa,a", [b"4", b"0"]),
        ("", "0-1,4-0,400,0123456789abcdef,a 4-1,12-3,7,0123456789abcdef", [b"12", b"3"]),
        ("", "0-1,4-0,400,0123456789abcdef garbage", []),
    ],
)
async def test_where_a_log_ends(server: Nodes, position: str, log: str, expected: list[bytes]) -> None:
    """As the record says, or else where the last of its segments ends: Python finds the same."""
    body = "return {end_of_log(ARGV[1] ~= '' and ARGV[1], ARGV[1] ~= '' and '1', ARGV[2] ~= '' and ARGV[2])}"
    assert await append(server, body, position, log) == expected
    end = end_in(log)
    assert position or not log or expected == ([] if end is None else [str(part).encode() for part in end])


async def test_calls_that_are_gone(server: Nodes) -> None:
    """The number that is asked for, a later one, or that the token was closed, is enough."""
    body = "return are_gone(calls, ARGV[1]) and 1 or 0"
    await server.read("HSET", CALLS, "a", "2 2-0 900", "b", "-1 0 900")
    assert [await append(server, body, after) for after in ("", "a 1 b 7", "a 2", "a 3", "a 1 c 1")] == [0, 0, 0, 1, 1]


async def test_calls_are_noted_and_kept(server: Nodes) -> None:
    """With those that they close; of more than are kept, old ones go when a new one comes."""
    await server.read("HSET", CALLS, "old", "1 1-0 7", "young", "1 1-0 999500")
    await append(server, "note_call(calls, 'a', '3 2-0', 'b c', ' 1000000') keep_calls(calls, false)")
    found = await server.read("HGETALL", CALLS)
    assert found[4:] == [b"a", b"3 2-0 1000000", b"b", b"-1 0 1000000", b"c", b"-1 0 1000000"]
    await append(server, "keep_calls(calls, true)")
    assert await server.read("HKEYS", CALLS) == [b"young", b"a", b"b", b"c"]
    assert 0 < await server.read("PTTL", CALLS) <= 5000


@pytest.mark.parametrize(
    ("state", "is_new", "expected"),
    [
        (STATE, "false", [2, 0, 10, 2, b"2-0", b"abcd1234"]),
        (ENDED, "false", [2, 0, 10, 2, b"2-0", b"abcd1234"]),
        (MISSING, "true", [0, 0, 0, 0, b"0-0", b""]),
        (MISSING, "false", []),
        (STATE.replace("'10'", "'ten'"), "false", []),
        (ENDED.replace("'2', false, 'ab", "'-2', false, 'ab"), "false", []),
    ],
)
async def test_reading_a_log(server: Nodes, state: str, is_new: str, expected: list[Any]) -> None:
    """A new job has none of the fields, others have all; one that is no number is told."""
    body = f"""
    local log = read_log({state}, {is_new})
    return log and {{log.position, log.part, log.bytes, log.lines, log.before, log.mark_before}} or {{}}
    """
    assert await append(server, body) == expected


@pytest.mark.parametrize(("state", "added", "expected"), [(STATE, 99, 0), (ENDED, 5, 0), (ENDED, 6, 1), (ENDED, 0, 0)])
async def test_late_output_is_enough(server: Nodes, state: str, added: int, expected: int) -> None:
    """Only of a job that has ended, and only text."""
    assert await append(server, f"return is_enough(read_log({state}), {added}) and 1 or 0") == expected


RECORDS = f"""
local log = read_log({STATE})
append_record(log, index, nil, FACT, 'a fact', 0, 0)
append_record(log, index, nil, LOG, 'a line', 4, 1)
append_record(log, index, nil, 99, 'the end', 0, 0, true)
"""


async def test_recording(server: Nodes) -> None:
    """Facts are parts, events have positions, an end leaves its place, an entry of the index is made when it is due."""
    body = (
        RECORDS + "return {log.entries, log.fields, #log.index_entries, {log.position, log.part, log.bytes, log.lines}}"
    )
    entries, fields, due, counters = await append(server, body)
    assert entries == [b"2-1", b"a fact", b"3-0", b"a line", b"4-0", b"the end"]
    assert fields == [b"end_position", 4, b"end_bytes", 14]
    assert (due, counters) == (1, [4, 0, 14, 3])


async def test_writing(server: Nodes) -> None:
    """Entries, hash and index; then followers are told."""
    body = (
        RECORDS
        + """
    write_log(log, stream, hash, nil, 3)
    finish_log(log, index)
    tell_entries(log, stream)
    return {log.added, log.is_saved and 1 or 0}
    """
    )
    assert await append(server, body) == [3, 1]
    assert [place for place, _ in await server.read("XRANGE", STREAM, "-", "+")] == [b"2-1", b"3-0", b"4-0"]
    found = await server.read("HMGET", JOB, "position", "part", "bytes", "lines", "end_position", "end_bytes")
    assert found == [b"4", b"0", b"14", b"3", b"4", b"14"]
    assert [entry.rpartition(b" ")[0] for entry in await server.read("LRANGE", INDEX, 0, -1)] == [b"3 3 14"]


@pytest.mark.parametrize(
    ("added", "taken_back", "expected"),
    [
        (0, "nil", [0, 1, 1]),
        (1, "nil", [1, 1, 0]),
        (3, "nil", [1, 0, 0]),
        (3, "true", [1, 1, 0]),
        (0, "true", [0, 1, 1]),
    ],
)
async def test_how_far_a_stopped_write_came(server: Nodes, added: int, taken_back: str, expected: list[int]) -> None:
    """Whether the stream is ahead; whether a part is missing; whether it is as if there had been no call."""
    body = (
        RECORDS
        + f"""
    log.added = {added}
    local reached = reached_by(log, {{take_back = function() return {taken_back} end}}, 3)
    return {{reached.has_entries and 1 or 0, reached.is_part and 1 or 0, reached.is_nothing and 1 or 0}}
    """
    )
    assert await append(server, body) == expected


@pytest.mark.parametrize(
    ("reached", "last_call", "answer", "kept"),
    [
        ("is_saved = true, has_entries = true", "1 1-0 900", [b"ok", 7, b"ERR x"], b"2 7-0 999"),
        ("is_nothing = true, is_part = true", "1 1-0 900", b"ERR x", b"1 1-0 900"),
        ("is_nothing = true, is_part = true", "", b"ERR x", None),
        ("is_part = true, has_entries = true", "1 1-0 900", [b"unprojected"], b"-1 0 999"),
        ("has_entries = true", "1 1-0 900", [b"unprojected"], b"2 7-0 999"),
    ],
)
async def test_what_a_stopped_append_answers(
    server: Nodes, reached: str, last_call: str, answer: Any, kept: bytes | None
) -> None:
    """Its call is as if it had never been, lost, or there to go on, by how far it came."""
    await server.read("HSET", CALLS, "t", "2 7-0 999")
    body = f"""
    local last_call = ARGV[1] ~= '' and ARGV[1] or false
    local answer = answer_of_stopped({{err = 'ERR x'}}, {{{reached}}}, 7, KEYS[1], KEYS[2], 't', last_call, ' 999')
    return answer.err or answer
    """
    found = await run(server, "standing, stopping", body, last_call, keys=(STREAM, CALLS))
    assert (found, await server.read("HGET", CALLS, "t")) == (answer, kept)


#: A log whose head has room for 14 bytes, which are two more lines of two.
OVER = f"""
local log = read_log({STATE})
local over = over_budget(log, index, ring, stream, 14)
local function line(text) over:take(text, 2, 1) end
line('l1') line('l2') line('l3') line('l4')
"""


async def test_limits(server: Nodes) -> None:
    """The head is filled, that is noted once, and the ring has the rest until the job ends, which empties it.

    Three entries have room there, so of two and two again the first is left out.
    """
    await append(server, OVER + "assert(not over:refusal()) over:put() over:save() over:finish()")
    assert await server.read("HMGET", RING, "first", "last", "1", "2") == [b"1", b"2", b"2 1 l3", b"2 1 l4"]
    body = (
        OVER
        + """
    append_record(log, index, over, 99, 'the end', 0, 0, true)
    assert(not over:refusal())
    write_log(log, stream, hash, over, 6)
    finish_log(log, index, over)
    return log.entries
    """
    )
    entries = await append(server, body)
    texts = entries[1::2]
    truncating = decode(texts[2], 4)
    assert isinstance(truncating, Fact)
    assert truncating.type is FactType.TRUNCATING
    assert entries[::2] == [b"3-0", b"4-0", b"4-1", b"5-0", b"6-0", b"7-0", b"8-0", b"9-0"]
    assert [*texts[:2], *texts[4:]] == [b"l1", b"l2", b"l4", b"l3", b"l4", b"the end"]
    assert await server.read("EXISTS", RING) == 0


async def test_limits_say_what_is_left_out(server: Nodes) -> None:
    """The ring has room for three of these lines."""
    body = OVER + "line('l5') line('l6') append_record(log, index, over, 99, 'the end', 0, 0, true) return log.entries"
    entries = await append(server, body)
    left_out = decode(entries[7], 5)
    assert isinstance(left_out, JobEvent)
    assert left_out.data == "\n[2 bytes in 1 lines are left out here]\n"
    assert entries[9::2] == [b"l4", b"l5", b"l6", b"the end"]


async def test_limits_take_back_what_was_put(server: Nodes) -> None:
    """New entries that the counters don't know."""
    assert await append(server, OVER + "over:put() return over:take_back() and 1 or 0") == 1
    assert await server.read("EXISTS", RING) == 0
    assert await append(server, OVER + "over:put() over:save() return over:take_back() and 1 or 0") == 0


async def test_limits_of_a_ring_that_can_not_be_read(server: Nodes) -> None:
    """Its key is named before anything is decided."""
    await server.read("SET", RING, "x")
    body = (
        f"local over, error = over_budget(read_log({STATE}), index, ring, stream, 14) return {{over or 0, error.err}}"
    )
    found = await append(server, body)
    assert found[0] == 0
    assert found[1].startswith(f"DAMAGED {RING}: ".encode())


async def test_late_output_is_refused_once(server: Nodes) -> None:
    """The log says so; whoever comes later is told, and the log isn't."""
    body = f"""
    local log = read_log({ENDED})
    return {{refuse_late(log, index) and 1 or 0, log.truncated_at, refuse_late(log, index) and 1 or 0, #log.entries}}
    """
    assert await append(server, body) == [1, 3, 0, 4]


async def test_listing(server: Nodes) -> None:
    """A job leaves and joins, a new one is one of all jobs; a key that holds something else is named before that."""
    listing = "local listing = {ids = ids, leaves = {KEYS[3]}, joins = {KEYS[4], KEYS[5]}}\n"
    await server.read("ZADD", CALLS, 0, "m")
    await append(server, listing + "assert(not unlistable(listing)) relist(listing, 'm', 'a')")
    assert [await server.read("ZRANGE", key, 0, -1) for key in (IDS, CALLS, INDEX, RING)] == [
        [b"a"],
        [],
        [b"m"],
        [b"m"],
    ]
    await append(server, listing + "relist(listing, 'n', false)")
    assert await server.read("ZRANGE", IDS, 0, -1) == [b"a"]
    await server.read("SET", CALLS, "x")
    found = await append(server, listing + "return unlistable(listing).err")
    assert found.startswith(f"DAMAGED {CALLS}: ".encode())


async def test_moves_in_a_queue(server: Nodes) -> None:
    """The steps that are named, in their order; controllers are told of a new ticket and of a cancellation."""
    move = """
    local place, messages = {dispatch = KEYS[1], backlog = KEYS[2], tickets = KEYS[3], leases = KEYS[4]}, {}
    assert(not unready(place, ARGV[1]))
    move(place, 'a', 'ada', 'ada\\0001\\0a', ARGV[2], messages)
    return messages
    """
    keys = (DISPATCH, BACKLOG, TICKETS, LEASES)

    async def moved(steps: str, ticket: str = "") -> Any:
        return await run(server, "standing, tickets, queue", move, steps, ticket, keys=keys)

    assert await moved("enter") == [b"ticket ada\x001\0a"]
    ticket = (await server.read("HGET", TICKETS, "ada")).decode()
    await server.read("ZADD", LEASES, 1, "a")
    assert await moved("cancel drop", ticket) == [b"cancel a"]
    assert [await server.read("XLEN", DISPATCH), await server.read("EXISTS", LEASES)] == [0, 0]
    assert await moved("leave") == []
    assert await server.read("EXISTS", BACKLOG, TICKETS) == 0


async def test_ends(server: Nodes) -> None:
    """A job stands with its end, which may move, and with its last write."""
    await run(server, "ends", "note_end(KEYS[1], KEYS[2], 'a', '1:a', '')", keys=(IDS, LEASES))
    await run(server, "ends", "note_end(KEYS[1], KEYS[2], 'a', '2:a', '1:a')", keys=(IDS, LEASES))
    assert await server.read("ZRANGE", IDS, 0, -1, "WITHSCORES") == [b"2:a", b"0"]
    assert await server.read("ZRANGE", LEASES, 0, -1, "WITHSCORES") == [b"a", b"1000000"]


@pytest.mark.parametrize(
    ("expected", "version", "claim", "held", "answer"),
    [
        ("any", "4", "", "", b""),
        ("4", "4", "", "", b""),
        ("3", "4", "", "", b"conflict"),
        ("new", "4", "", "", b"exists"),
        ("new", "", "", "", b""),
        ("any", "", "", "", b"missing"),
        ("any", "4", "1 t", "1 t", b""),
        ("any", "4", "*", "1 t", b""),
        ("any", "4", "", "1 t", b"claimed"),
        ("any", "4", "1 u", "1 t", b"fenced"),
        ("any", "4", "1 u", "", b"fenced"),
    ],
)
async def test_refusals(server: Nodes, expected: str, version: str, claim: str, held: str, answer: bytes) -> None:
    """What a job doesn't allow as it is: its existence comes before its version, and that before its claim."""
    body = "local function given(text) return text ~= '' and text or false end\n"
    body += "return (refusal(given(ARGV[2]), given(ARGV[4]), KEYS[1], ARGV[1], ARGV[3]) or {''})[1]"
    found = await run(server, "existence", body, expected, version, claim, held, keys=(STREAM,))
    assert found == answer


async def test_reading(server: Nodes) -> None:
    """All fields by their names; five texts are digits or not."""
    await server.read("HSET", JOB, "a", "1", "b", "2")
    body = "local all = read_all(KEYS[1]) return {all.a, all.b, read_all(KEYS[2]) and 1 or 0}"
    await server.read("SET", STREAM, "x")
    assert await run(server, "reading", body, keys=(JOB, STREAM)) == [b"1", b"2", 0]
    body = "return are_digits('1', '2', '3', '4', ARGV[1]) and 1 or 0"
    assert [await run(server, "reading", body, text) for text in ("5", "-5", "", "5.0")] == [1, 0, 0, 0]


async def test_mending(server: Nodes) -> None:
    """What is of another type goes; a ticket waits that is in the stream and was handed to nobody."""
    libraries = "calls, tickets, mending"
    await server.read("SET", TICKETS, "x")
    body = "must_be('hash', KEYS[1]) return {answer, is_waiting(KEYS[2], '1-1') and 1 or 0}"
    keys = (TICKETS, DISPATCH)
    assert await run(server, libraries, body, keys=keys) == [b"mended", 0]
    ticket = await run(server, libraries, "return add_ticket(KEYS[2], KEYS[1], 'ada')", keys=keys)
    body = "must_be('hash', KEYS[1]) return {answer, is_waiting(KEYS[2], ARGV[1]) and 1 or 0}"
    assert await run(server, libraries, body, ticket.decode(), keys=keys) == [b"right", 1]
    await server.read("XREADGROUP", "GROUP", "controllers", "c1", "STREAMS", DISPATCH, ">")
    assert await run(server, libraries, body, ticket.decode(), keys=keys) == [b"right", 0]


async def test_an_offer_has_brought_a_job(server: Nodes) -> None:
    """Its question stays, what it has brought before goes."""
    head = """
    local offered = KEYS[1]
    local taker = {controller = 'c1', record = 'ab-1 30000 4000\\nold job'}
    """
    await run(server, "offers", "note_given(taker, 'token', 'a')", keys=(JOB,), head=head)
    assert await server.read("HGET", JOB, "c1") == b"ab-1 30000 4000\ntoken a"


async def test_claims_that_may_not_be_given(server: Nodes) -> None:
    """A user that may do all is told nothing."""
    body = "return unclaimable(KEYS[1], KEYS[2], KEYS[3]) == nil and 1 or 0"
    assert await run(server, "standing, telling, payloads, claiming", body, keys=(DISPATCH, TICKETS, LEASES)) == 1
