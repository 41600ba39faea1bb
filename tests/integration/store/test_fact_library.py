"""What the library of facts does by itself: `facts.lua`."""

import pytest

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text
from ci_eventstore.keys import facts_key
from tests.integration.store.test_script_libraries import run

FACTS = facts_key("{ci:0}")
LIBRARIES = "standing, facts"


async def texts(server: Nodes) -> list[str]:
    """Return the texts of the entries that are there."""
    return [as_text(fields[1]) for _, fields in await server.read("XRANGE", FACTS, "-", "+")]


async def begin(server: Nodes) -> None:
    await server.read("XADD", FACTS, "1-1", "f", "b-")


async def test_facts_are_added_while_somebody_reads_them(server: Nodes) -> None:
    """Without the stream none is; with it one entry for each fact, whose ids are returned."""
    body = "return add_facts(KEYS[1], 'cq sr', ARGV[1])"
    assert await run(server, LIBRARIES, body, "a b", keys=(FACTS,)) == []
    assert await server.read("EXISTS", FACTS) == 0
    await begin(server)
    assert len(await run(server, LIBRARIES, body, "a b", keys=(FACTS,))) == 2
    assert await texts(server) == ["b-", "cqa b", "sra b"]
    await run(server, LIBRARIES, "take_back(KEYS[1], {'1-1'})", keys=(FACTS,))
    assert await texts(server) == ["cqa b", "sra b"]


async def test_a_refusal_leaves_no_fact(server: Nodes) -> None:
    """An error is returned; what was added before it is taken back. Another type is told as damage."""
    await begin(server)
    refusing = """
    local call, count = redis.pcall, 0
    local redis = setmetatable({pcall = function(command, ...)
      count = count + (command == 'XADD' and 1 or 0)
      return count == 2 and command == 'XADD' and {err = 'OOM no'} or call(command, ...)
    end}, {__index = redis})
    """
    body = "local told, refused = add_facts(KEYS[1], 'cq sr', 'a') return {told and 1 or 0, refused.err}"
    assert await run(server, LIBRARIES, body, keys=(FACTS,), head=refusing) == [0, b"OOM no"]
    assert await texts(server) == ["b-"]
    await server.read("SET", FACTS, "text")
    told, error = await run(server, LIBRARIES, body, keys=(FACTS,))
    assert (told, error.startswith(b"DAMAGED {ci:0}:facts: ")) == (0, True)


@pytest.mark.parametrize(
    ("listed", "done", "error", "expected"),
    [
        ("{'a', 'b'}", "'a', 'b'", "", ["b-", "sra\nb"]),
        ("{'a', 'b'}", "'b'", "", ["b-", "srb"]),
        ("{'a', 'b'}", "", "", ["b-"]),
        ("{'a', 'b'}", "'a'", "error({err = 'ERR no'})", ["b-", "sra"]),
        ("{}", "", "", ["b-"]),
    ],
)
async def test_facts_of_several_jobs(server: Nodes, listed: str, done: str, error: str, expected: list[str]) -> None:
    """One entry for those that it was done to, whatever ends the writing; an entry of more than these goes."""
    await begin(server)
    body = f"""
    local done = {{}}
    local error = tell_and_write(KEYS[1], 'sr', {listed}, done, function()
      for _, id in ipairs({{{done}}}) do
        done[#done + 1] = id
      end
      {error}
    end)
    return error and error.err or ''
    """
    assert await run(server, LIBRARIES, body, keys=(FACTS,)) == (b"ERR no" if error else b"")
    assert await texts(server) == expected


async def test_nothing_is_written_without_its_fact(server: Nodes) -> None:
    """If that is refused, the writing doesn't begin."""
    await server.read("SET", FACTS, "text")
    body = "return tell_and_write(KEYS[1], 'sr', {'a'}, {}, function() redis.call('SET', 'written', '1') end).err"
    assert (await run(server, LIBRARIES, body, keys=(FACTS,))).startswith(b"DAMAGED")
    assert await server.read("EXISTS", "written") == 0


@pytest.mark.parametrize(("is_given", "expected"), [("nil", ["b-", "cqa"]), ("1", ["b-", "cqa", "sra"])])
async def test_a_creation_is_told(server: Nodes, is_given: str, expected: list[str]) -> None:
    """And the start, if a controller has the job at once; the entries are noted, to be taken back."""
    await begin(server)
    body = f"local told = {{}} tell_creation(KEYS[1], 'a', {is_given}, told) return #told"
    assert await run(server, LIBRARIES, body, keys=(FACTS,)) == len(expected) - 1
    assert await texts(server) == expected
