"""Targets, ratios and the table that shows them."""

import pytest

from benchmarks.results import Compression, Report, Row, Section, Target
from benchmarks.table import render


@pytest.mark.parametrize(
    ("target", "ours", "theirs", "missed"),
    [
        (Target(3), [30.0, 40.0, 90.0], [10.0, 10.0, 10.0], False),
        (Target(3), [20.0, 29.0, 90.0], [10.0, 10.0, 10.0], True),
        (Target(40, is_most=True), [40.0], [], False),
        (Target(40, is_most=True), [41.0], [], True),
        (None, [1.0], [10.0], False),
    ],
)
def test_the_median_of_the_ratios_is_judged(
    target: Target | None, ours: list[float], theirs: list[float], missed: bool
) -> None:
    """A row is missed if the median of its rounds' ratios doesn't reach its target; without a peer, its figure."""
    assert Row("what", "events/s", ours, "peer", theirs, target).is_missed is missed


def report(*rows: Row) -> Report:
    return Report({"When": "today"}, [Section("a server", rows)], [Compression("a log", 1024, 3, 0.25, 5.0, 2.0)])


def test_the_table_says_what_is_missed() -> None:
    """Every row stands in the table with its ratio, the lowest and the highest, and those missed once more below."""
    reached = Row("appending", "events/s", [4000.0, 6000.0], "XADD", [1000.0, 2000.0], Target(3))
    missed = Row("reading", "events/s", [30.0], "xrange", [100.0], Target(0.4))
    lines = render(report(reached, missed)).splitlines()
    [appending] = [line for line in lines if line.startswith("  appending")]
    assert " ".join(appending.split()) == "appending 5,000 events/s XADD 1,500 events/s 3.50 3.00..4.00 >= 3 met"
    assert lines[-1] == "MISSED: reading, a server: 0.30, to reach >= 0.4"


def test_the_table_says_that_all_is_well() -> None:
    """With all targets reached, the last line says so."""
    row = Row("appending", "events/s", [40.0], "XADD", [10.0], Target(3))
    assert render(report(row)).endswith("All 1 targets are met.")


def test_columns_are_aligned() -> None:
    """A row's figures stand below those of the row above it, however long its name is."""
    rows = [Row(name, "events/s", [1.0], "XADD", [2.0]) for name in ("short", "a much longer name")]
    shown = [line for line in render(report(*rows)).splitlines() if "XADD  " in line]
    assert len({line.index("XADD  ") for line in shown}) == 1
