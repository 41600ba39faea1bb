"""A job's log is read in one module, so that it may lie elsewhere than in a stream."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.unit.structure.source import Module, parse, source_modules

#: Who may name a job's stream, and for what.
NAMES_STREAMS: Mapping[str, str] = {
    "ci_eventstore.keys": "names it",
    "ci_eventstore.events.log_source": "reads it, asks whether it is there",
    "ci_eventstore.events.append": "hands it to a script",
    "ci_eventstore.jobs.create": "hands it to a script",
    "ci_eventstore.projection.jobs": "asks whether it is one",
    "ci_eventstore.projection.rebuild": "hands it to a script that mends",
    "ci_eventstore.history.seal": "hands it to a script that drops it",
    "ci_eventstore.jobs.delete": "hands it to a script that drops it",
    "ci_eventstore.projection.indexes": "hands it to a script that mends",
    "ci_eventstore.requirements": "asks for rights to it",
    "ci_eventstore.web.app": "has a route of that name",
}
#: Who may read streams.
READS_STREAMS: Mapping[str, str] = {
    "ci_eventstore.events.log_source": "a job's log",
    "ci_eventstore.projection.indexes": "a queue's tickets",
    "ci_eventstore.facts.groups": "the newest fact of all jobs",
}
COMMANDS = {"XRANGE", "XREVRANGE", "XREAD"}


def read_outside(modules: Iterable[Module]) -> list[str]:
    """Return where jobs' streams are named or streams are read by modules that may not."""
    found = []
    for module in modules:
        for node in module.nodes:
            is_name = isinstance(node, ast.Attribute) and node.attr == "stream" and module.name not in NAMES_STREAMS
            is_read = isinstance(node, ast.Constant) and node.value in COMMANDS and module.name not in READS_STREAMS
            if isinstance(node, ast.expr) and (is_name or is_read):
                found.append(f"{module.name}:{node.lineno}")
    return found


def test_a_log_is_read_in_one_module() -> None:
    """Everyone else asks `LogSource`; scripts, and what mends, have the stream itself."""
    assert read_outside(source_modules()) == []


def test_whoever_may_does() -> None:
    """No module is excepted any more that needn't be."""
    by_name = {module.name: module for module in source_modules()}
    assert [name for name in NAMES_STREAMS if ".stream" not in ast.unparse(by_name[name].tree)] == []
    assert [
        name for name in READS_STREAMS if not any(word in ast.unparse(by_name[name].tree) for word in COMMANDS)
    ] == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ('await nodes.read("XRANGE", key, "-", "+")', True),
        ('commands = [("XREVRANGE", key, "+", "-")]', True),
        ("key = keys.stream", True),
        ("key = keys.channel", False),
        ('await nodes.read("HGETALL", keys.hash)', False),
    ],
)
def test_a_reader_is_found(tmp_path: Path, line: str, is_found: bool) -> None:
    """The rule tells those who read a stream from others."""
    file = tmp_path / "module.py"
    file.write_text(f"async def read(nodes, keys, key):\n    {line}\n")
    assert bool(read_outside([parse(file, tmp_path)])) == is_found
