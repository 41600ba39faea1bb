"""The names of a script's keys and arguments: the Lua that has them, and the order of the values of a call."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from lupa import lua51  # type: ignore[import-untyped]

from ci_eventstore.connection.call_names import CallNames, Key, is_named


class Job(NamedTuple):
    """One of many."""

    hash: Key
    stream: Key
    id: str
    size: int


class Field(NamedTuple):
    """One of many, without keys."""

    name: str
    value: str


class Call(NamedTuple):
    """All that there can be."""

    leases: Key
    clock: Key
    user: str
    number: int
    jobs: Sequence[Job]
    fields: Sequence[Field]
    joins: Sequence[Key]
    payloads: Sequence[bytes]


CALL = Call(
    "L", "C", "ada", 7, [Job("h1", "s1", "a", 3), Job("h2", "s2", "b", 4)], [Field("x", "1")], ["j1"], [b"p", b"q"]
)


def run(call: tuple[Any, ...], lua: str) -> Any:
    """Return what Lua returns that is called with these names."""
    names = CallNames(type(call))
    keys, arguments = names.order(call)
    script = names.expand(lua)
    runtime = lua51.LuaRuntime(encoding="latin-1")
    texts = [value if isinstance(value, bytes) else str(value).encode() for value in arguments]
    runtime.globals().KEYS = runtime.table(*keys)
    runtime.globals().ARGV = runtime.table(*(text.decode("latin-1") for text in texts))
    found = runtime.execute(f"local last = #ARGV + 1\n{names.head(script)}{script}")
    return list(found.values()) if hasattr(found, "values") else found


@pytest.mark.parametrize(
    ("lua", "expected"),
    [
        ("return {leases, clock, user, number}", ["L", "C", "ada", 7]),
        ("return {#jobs, #fields, #joins, #payloads}", [2, 1, 1, 2]),
        ("return {jobs.hash(2), jobs.stream(1), jobs.id(1), jobs.size(#jobs)}", ["h2", "s1", "a", 4]),
        ("local i = 0 return {jobs.hash(i + 1), jobs.id(tonumber('2'))}", ["h1", "b"]),
        ("return {fields.name(1), fields.value(1), joins(1), payloads(2)}", ["x", "1", "j1", "q"]),
        ("return {unpack(ARGV, fields.places())}", ["x", "1"]),
        ("return {unpack(KEYS, joins.places())}", ["j1"]),
        ("return table.concat(ARGV, '', payloads.places())", "pq"),
        ("return {jobs.id(jobs.size(1) - 2)}", ["a"]),
    ],
)
def test_lua_has_what_is_named(lua: str, expected: object) -> None:
    """Each name is the value that stands there in the tuple, with numbers as numbers."""
    assert run(CALL, lua) == expected


def test_nothing_of_a_kind() -> None:
    """Groups may be empty."""
    assert run(CALL._replace(jobs=[], fields=[], payloads=[]), "return {#jobs, #fields, #payloads, joins(1)}") == [
        0, 0, 0, "j1"]  # fmt: skip


def test_the_order_of_a_call() -> None:
    """Keys come before arguments; numbers are sent of those groups alone that don't show."""
    keys, arguments = CallNames(Call).order(CALL)
    assert keys == ["L", "C", "h1", "s1", "h2", "s2", "j1"]
    assert arguments == ["ada", 7, 2, 1, "a", 3, "b", 4, "x", "1", b"p", b"q"]


def test_lua_makes_nothing_that_it_does_not_use() -> None:
    """What a script doesn't name takes no time."""
    names = CallNames(Call)
    script = names.expand("return jobs.id(i)\n")
    assert script == "return ARGV[2 * i + 3]\n"
    assert names.head(script) == ""
    assert names.head("return clock, number") == "local clock, number = KEYS[2], ARGV[2] + 0\n"


def test_what_is_not_there() -> None:
    """A name that no group has, and a tuple in another order, are refused when the script is loaded."""
    with pytest.raises(ValueError, match="jobs has no 'name'"):
        CallNames(Call).expand("return jobs.name(1)")

    class Wrong(NamedTuple):
        user: str
        hash: Key

    with pytest.raises(TypeError, match="Wrong has to name keys"):
        CallNames(Wrong)


def test_a_part_of_a_name_is_no_name() -> None:
    """Else a script would have what it doesn't use."""
    lua = "local my_clock, clocks = clock_of(clock)\nreturn last"
    assert [is_named(name, lua) for name in ("clock", "last", "local")] == [True, True, True]
    assert [is_named(name, lua) for name in ("my", "of", "clock_", "ocal", "las", "la")] == [False] * 6
