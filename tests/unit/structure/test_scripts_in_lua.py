"""Scripts keep within the house's limits, name what they are called with, and leave decisions to the fold."""

import re
from collections.abc import Iterator
from dataclasses import fields

import pytest

from ci_eventstore.jobs.state import COUNTERS, JobState
from tests.unit.structure.source import ROOT

SCRIPT_LINES = 120
LIBRARY_LINES = 80
SCRIPTS = {path.stem: path.read_text() for path in sorted((ROOT / "src").rglob("*.lua"))}
LIBRARIES = {path.stem: path.read_text() for path in sorted((ROOT / "src/ci_eventstore/lua").glob("*.lua"))}
TESTS = "".join(path.read_text() for path in (ROOT / "tests/integration/store").glob("test_*.py"))
#: Of a hash, what scripts don't count themselves; where the log lies is decided by nobody.
DECIDED = {field.name for field in fields(JobState)} - COUNTERS - {"log"}


def faults(name: str, text: str, limit: int) -> Iterator[str]:
    """Say what is wrong with a text of Lua."""
    if (lines := len(text.splitlines())) > limit:
        yield f"{name} has {lines} lines"
    code = re.sub("--.*", "", text)
    if counted := re.findall(r"(?:KEYS|ARGV)\[\s*\d+\s*\]", code):
        yield f"{name} counts {counted[0]} by hand"
    for written in re.findall(r"call\('H(?:SET|DEL)',\s*(?:hash|job\.hash)\b(.*?)\)\n", code, re.DOTALL):
        if known := DECIDED.intersection(re.findall(r"'(\w+)'", written)):
            yield f"{name} writes {', '.join(sorted(known))}, which the fold decides"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_or_library_keeps_the_rules(name: str) -> None:
    """Of its length, of its arguments, of what it writes."""
    assert list(faults(name, SCRIPTS[name], LIBRARY_LINES if name in LIBRARIES else SCRIPT_LINES)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("local a\n" * 120, []),
        ("local a\n" * 121, ["x has 121 lines"]),
        ("-- ARGV[1]\nlocal a = KEYS[i]\n", []),
        ("local a = ARGV[ 12 ]\n", ["x counts ARGV[ 12 ] by hand"]),
        ("redis.call('HSET', hash, 'position', position)\n", []),
        ("redis.call('HDEL', hash,\n  'claim')\n", ["x writes claim, which the fold decides"]),
        ("redis.pcall('HSET', job.hash, 'epoch', '1')\n", ["x writes epoch, which the fold decides"]),
    ],
)
def test_the_rules(text: str, said: list[str]) -> None:
    """What breaks one is found, what just keeps it isn't."""
    assert list(faults("x", text, SCRIPT_LINES)) == said


def untested(libraries: str, tests: str) -> set[str]:
    """Return the functions that no test calls, nor a function that a test calls."""
    found = re.finditer(r"^local function (\w+).*?^end$", libraries, re.MULTILINE | re.DOTALL)
    functions = {function[1]: function[0] for function in found}
    callers, left = tests, set(functions)
    while called := left & set(re.findall(r"\w+", callers)):
        left -= called
        callers = "".join(functions[function] for function in called)
    return left


def test_each_function_of_a_library_has_a_test() -> None:
    """Beside those of the scripts."""
    assert untested("".join(LIBRARIES.values()), TESTS) == set()


def test_a_function_without_a_test_is_found() -> None:
    """What nobody calls, and what only that calls."""
    text = "".join(
        f"local function {name}()\n  return {body}\nend\n" for name, body in zip("abde", "bcef", strict=True)
    )
    assert untested(text, "a()") == {"d", "e"}
