"""What each library of claims and completions does by itself."""

import json
from typing import Any

import pytest

from ci_eventstore.connection.nodes import Nodes
from tests.integration.store.test_script_libraries import run

DISPATCH, BACKLOG, TICKETS, LEASES = (f"{{ci:0}}:{name}:q" for name in ("dispatch", "backlog", "tickets", "leases"))
HASH, STREAM = "{ci:0}:job:a", "{ci:0}:events:a"
WAITING_OF = "local function waiting_of(id) return string.sub(id, 1, 1) .. '\\0' .. '1' .. '\\0' .. id end\n"
CLAIMING = "standing, reading, telling, payloads, claiming, lapsed, claim_answers"


async def waiting(server: Nodes, *jobs: str) -> None:
    """Let jobs wait, each the next one of the user that its first letter names, with a ticket for each user."""
    enter = WAITING_OF + "for _, id in ipairs(ARGV) do\n"
    enter += "  enter_queue(KEYS[1], KEYS[2], KEYS[3], string.sub(id, 1, 1), waiting_of(id))\nend"
    await run(server, "tickets", enter, *jobs, keys=(DISPATCH, BACKLOG, TICKETS))


@pytest.mark.parametrize(
    ("jobs", "declared", "expected", "more"),
    [
        (["a1"], ["a1"], "a1", 0),
        (["a1", "a2", "b1"], ["a1", "a2", "b1"], "a1 b1 a2", 0),
        # The next one isn't among those that may be given.
        (["a1", "a2"], ["a1"], "a1", 1),
        (["a1", "b1"], ["b1"], "", 1),
        # Not there any more.
        (["a1"], ["a0", "a1"], "a1", 0),
        ([], ["a1"], "", 0),
    ],
)
async def test_turns(server: Nodes, jobs: list[str], declared: list[str], expected: str, more: int) -> None:
    """Tickets go round the users, each for the user's next job, as long as that may be given."""
    await waiting(server, *jobs)
    body = """
    local turns = turns_of(KEYS[1], KEYS[2], KEYS[3], #ARGV)
    if not turns then
      return {'', 0, 0}
    end
    for _, id in ipairs(ARGV) do
      declare(turns, {id = id, user = string.sub(id, 1, 1), waiting = waiting_of(id)})
    end
    local has_more, ids = take_turns(turns), {}
    for i, one in ipairs(turns.taken) do
      ids[i] = one.job.id
    end
    local entries = ids[1] and fetch_tickets(turns, 'c1') or {}
    return {table.concat(ids, ' '), has_more and 1 or 0, #entries}
    """
    found = await run(server, "tickets, turns", WAITING_OF + body, *declared, keys=(DISPATCH, BACKLOG, TICKETS))
    assert found == [expected.encode(), more, len(expected.split())]


async def test_tickets_of_nobody_are_taken_along(server: Nodes) -> None:
    """A ticket whose user has no job any more is taken, and is for no job."""
    await waiting(server, "a1", "b1")
    await server.read("ZREM", BACKLOG, "a\0001\0a1")
    body = """
    local turns = turns_of(KEYS[1], KEYS[2], KEYS[3], 1)
    declare(turns, {id = 'b1', user = 'b', waiting = waiting_of('b1')})
    take_turns(turns)
    return {#turns.taken, turns.taken[1].job and 1 or 0, turns.taken[2].job.id, #fetch_tickets(turns, 'c1')}
    """
    assert await run(server, "tickets, turns", WAITING_OF + body, keys=(DISPATCH, BACKLOG, TICKETS)) == [2, 0, b"b1", 2]
    assert await server.read("HLEN", TICKETS) == 0


async def test_moves(server: Nodes) -> None:
    """All jobs of one status go to another by one command, and those of each owner."""
    keys = tuple(f"{{ci:0}}:{whose}:{status}" for whose in ("all", "ada") for status in ("queued", "running"))
    await server.read("ZADD", keys[0], 0, "a", 0, "b")
    await server.read("ZADD", keys[2], 0, "a")
    body = """
    local moves = {}
    note_move(moves, 1, 'a')
    note_move(moves, 0, 'b')
    for whose, one in pairs(moves) do
      carry_out(one, KEYS[2 * whose + 1], KEYS[2 * whose + 2])
    end
    call_with('ZREM', KEYS[2], {})
    call_with('ZREM', KEYS[2], {'b'})
    """
    await run(server, "moves", body, keys=keys)
    assert [await server.read("ZRANGE", key, 0, -1) for key in keys] == [[], [b"a"], [], [b"a"]]


async def test_tickets_are_removed_together(server: Nodes) -> None:
    """With what is pending of them; none is removed by an empty list."""
    await waiting(server, "a1", "b1")
    body = """
    local entries = redis.call('XREADGROUP', 'GROUP', 'controllers', 'c1', 'STREAMS', KEYS[1], '>')[1][2]
    remove_tickets(KEYS[1], {})
    remove_tickets(KEYS[1], {entries[1][1], entries[2][1]})
    tell_all({'channel', 'message'})
    return redis.call('XPENDING', KEYS[1], 'controllers')[1]
    """
    assert await run(server, "moves", body, keys=(DISPATCH,)) == 0
    assert await server.read("XLEN", DISPATCH) == 0


GOOD = {"status": "queued", "position": "0", "part": "1", "version": "1", "epoch": "0", "attempts": "0", "mark": "m"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        (GOOD, ""),
        ({}, ""),
        ({**GOOD, "status": "odd"}, "status"),
        ({**GOOD, "epoch": "-1"}, "epoch"),
        (None, "its hash"),
    ],
)
async def test_what_cannot_be_read_is_named(server: Nodes, fields: dict[str, str] | None, wrong: str) -> None:
    """A job without a hash is none, and isn't damaged."""
    if fields is None:
        await server.read("SET", HASH, "x")
    elif fields:
        await server.read("HSET", HASH, *[text for pair in fields.items() for text in pair])
    body = """
    local damages = {}
    local state = read_job({id = 'a', hash = KEYS[1]}, damages)
    return {state and 1 or 0, damages[1] and damages[1][2] or ''}
    """
    assert await run(server, CLAIMING, body, keys=(HASH,)) == [int(not wrong), wrong.encode()]


async def test_a_claim_of_a_job(server: Nodes) -> None:
    """Its fact, its hash and the message come from one place; without a stream, nothing is written."""
    await server.read("HSET", HASH, *[text for pair in GOOD.items() for text in pair])
    body = """
    local job, damages = {id = 'a', hash = KEYS[1], stream = KEYS[2], token = 'tt'}, {}
    read_job(job, damages)
    local message, refused = claims_of('c1', 'now', '')(job, '7-0')
    return {message or '', refused or '', job.state.claim or ''}
    """
    assert await run(server, CLAIMING, body, keys=(HASH, STREAM)) == [b"", b"its events", b""]
    assert await server.read("HGET", HASH, "status") == b"queued"
    await server.read("XADD", STREAM, "0-1", "e", "x")
    message, refused, claim = await run(server, CLAIMING, body, keys=(HASH, STREAM))
    assert message.startswith(b"0-1 0-2:")
    assert message.endswith(b"m")
    assert (refused, claim) == (b"", b"1 tt")
    found = await server.read("HMGET", HASH, "status", "part", "version", "epoch", "controller", "claim", "ticket")
    assert found == [b"running", b"2", b"2", b"1", b"c1", b"1 tt", b"7-0"]


async def test_jobs_that_start(server: Nodes) -> None:
    """Those that their controller holds already have started before."""
    body = "return starting_in({{id = 'a'}, {id = 'b', is_held = true}, {id = 'c'}})"
    assert await run(server, CLAIMING, body) == [b"a", b"c"]


@pytest.mark.parametrize(
    ("deadline", "claim", "expected"),
    [
        (None, "1 xx", {"given": 0, "lapsed": 0, "dropped": 0}),
        (50, "1 xx", {"given": 1, "lapsed": 1, "dropped": 0, "held": 0}),
        (150, "1 xx", {"given": 0, "lapsed": 0, "dropped": 0}),
        # It is this call's already.
        (150, "1 tt", {"given": 1, "lapsed": 0, "dropped": 0, "held": 1}),
        # A lease that no job has.
        (50, None, {"given": 0, "lapsed": 1, "dropped": 1}),
    ],
)
async def test_leases_that_have_run_out(
    server: Nodes, deadline: int | None, claim: str | None, expected: dict[str, int]
) -> None:
    """Their jobs are given to the next one; those that nobody has are dropped."""
    if deadline is not None:
        await server.read("ZADD", LEASES, deadline, "a")
    await server.read("HSET", HASH, *[text for pair in GOOD.items() for text in pair])
    if claim:
        await server.read("HSET", HASH, "claim", claim, "controller", "c0", "ticket", "1-0")
    body = """
    local given, job = {}, {id = 'a', hash = KEYS[1], token = 'tt'}
    local lapsed, dropped = give_lapsed({job}, 1, KEYS[2], 100, given, {})
    local held = given[1] and (job.is_held and 1 or 0)
    return cjson.encode({given = #given, lapsed = lapsed, dropped = #dropped, held = held})
    """
    found: Any = await run(server, CLAIMING, body, keys=(HASH, LEASES))
    assert json.loads(found) == expected


async def test_answers_of_claims(server: Nodes) -> None:
    """What is kept of a call gives the same jobs again; only those that still have their claim are told."""
    await server.read("HSET", HASH, *[text for pair in GOOD.items() for text in pair], "claim", "1 tt")
    body = """
    local job = {place = 1, id = 'a', hash = KEYS[1], token = 'tt', lost_by = 'c0'}
    local other = {place = 2, id = 'b', hash = KEYS[2]}
    local kept = remembered('s-1', {job})
    job.lost_by = nil
    local given = given_before(string.match(kept, '^%S+ (.*)$'), {job, other}, {})
    local told = answered(given, {'claim', 'nothing'})
    job.token = 'uu'
    return {kept, told[1][1], told[1][2], told[1][3][1], #answered(given, {'claim'})}
    """
    assert await run(server, CLAIMING, body, keys=(HASH, LEASES)) == [b"s-1 1:c0", b"a", b"c0", b"1 tt", 0]
