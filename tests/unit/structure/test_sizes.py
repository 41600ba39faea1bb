"""`make sizes` counts right."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sizes import BigClass, Sizes, main, measure

GOOD = Sizes(
    modules=110,
    median_lines=120,
    most_lines=400,
    long_functions=0,
    biggest=BigClass("Hub", 250, 20, 15),
    cycles=0,
    package_cycles=0,
    python_lines=13_000,
    lua_lines=900,
)
FILES = {
    "ci_common/__init__.py": "",
    "ci_eventstore/__init__.py": "",
    "ci_eventstore/jobs/store.py": "from ci_eventstore.events.reader import read\n" + "pass\n" * 9,
    "ci_eventstore/jobs/state.py": "class Small:\n    a = 1\n",
    "ci_eventstore/events/reader.py": "from ci_eventstore.jobs.state import Small\ndef read():\n" + "    pass\n" * 50,
    "ci_eventstore/repository.py": "class RedisJobRepository:\n" + "    a = 1\n" * 20,
    "ci_eventstore/hub.py": "class Hub:\n    def read(self): ...\n    async def _write(self): ...\n",
    "ci_eventstore/lua/calls.lua": "local a\nlocal b\n",
}


def test_all_is_counted(tmp_path: Path) -> None:
    """Two folders that import each other are one circle though no two modules are; the contract's class is left out."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert measure(tmp_path) == Sizes(
        modules=7,
        median_lines=3,
        most_lines=52,
        long_functions=1,
        biggest=BigClass("Hub", 3, 2, 1),
        cycles=0,
        package_cycles=1,
        python_lines=88,
        lua_lines=2,
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"modules": 112}, ["2 modules too many"]),
        ({"median_lines": 99}, ["the median module has 99 lines"]),
        ({"median_lines": 150}, []),
        ({"most_lines": 401}, ["a module has 401 lines"]),
        ({"long_functions": 2}, ["2 functions are too long"]),
        ({"biggest": BigClass("Hub", 251, 20, 16)}, ["Hub has 251 lines", "Hub has 16 public methods"]),
        ({"package_cycles": 1}, ["imports go in a circle"]),
    ],
)
def test_what_falls_short_is_said(change: dict[str, Any], said: list[str]) -> None:
    """Each limit of the house style, and nothing that keeps it."""
    assert list(replace(GOOD, **change).shortfalls()) == said


@pytest.mark.slow  # It takes over a second of a CPU.
def test_the_table_has_the_aim_and_what_falls_short(capsys: pytest.CaptureFixture[str]) -> None:
    """Of this checkout; which figures it has is not looked at here."""
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["modules", "now", "aim"]
    assert lines[-1].startswith(("Falls short: ", "Nothing falls short."))
