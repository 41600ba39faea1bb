"""What the benchmarks measure with, their targets and ratios, and the tables that show these."""

from pathlib import Path

import pytest

from benchmarks.peers.__main__ import FIGURES, PEERS, report
from benchmarks.results import Compression, Report, Row, Section, Target
from benchmarks.scale import EVENT_BYTES
from benchmarks.table import render
from benchmarks.texts import events, generated_lines, generated_log, large_events


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


def report_of(*rows: Row) -> Report:
    return Report({"When": "today"}, [Section("a server", rows)], [Compression("a log", 1024, 3, 0.25, 5.0, 2.0)])


def test_the_table_says_what_is_missed() -> None:
    """Every row stands in the table with its ratio, the lowest and the highest, and those missed once more below."""
    reached = Row("appending", "events/s", [4000.0, 6000.0], "XADD", [1000.0, 2000.0], Target(3))
    missed = Row("reading", "events/s", [30.0], "xrange", [100.0], Target(0.4))
    lines = render(report_of(reached, missed)).splitlines()
    [appending] = [line for line in lines if line.startswith("  appending")]
    assert " ".join(appending.split()) == "appending 5,000 events/s XADD 1,500 events/s 3.50 3.00..4.00 >= 3 met"
    assert lines[-1] == "MISSED: reading, a server: 0.30, to reach >= 0.4"


def test_the_table_says_that_all_is_well() -> None:
    """With all targets reached, the last line says so."""
    row = Row("appending", "events/s", [40.0], "XADD", [10.0], Target(3))
    assert render(report_of(row)).endswith("All 1 targets are met.")


def test_columns_are_aligned() -> None:
    """A row's figures stand below those of the row above it, however long its name is."""
    rows = [Row(name, "events/s", [1.0], "XADD", [2.0]) for name in ("short", "a much longer name")]
    shown = [line for line in render(report_of(*rows)).splitlines() if "XADD  " in line]
    assert len({line.index("XADD  ") for line in shown}) == 1


def test_generated_lines_are_the_same_every_time() -> None:
    """A fixed seed gives the same lines, so that two runs measure the same; they differ from each other."""
    lines = generated_lines(200)
    assert lines == generated_lines(200)
    assert len(set(lines)) > 190


def test_events_have_the_size_that_the_table_names() -> None:
    """Each event's text has EVENT_BYTES bytes with its line's end, and a time of its own."""
    given = events(50)
    assert {len((event.data or "").encode()) for event in given} == {EVENT_BYTES}
    assert all((event.data or "").endswith("\n") for event in given)
    assert len({event.timestamp for event in given}) == 50


def test_large_events_are_large() -> None:
    """Events that are to be compressed have the size asked for, and differ."""
    given = large_events(3, 4096)
    assert [len(event.data or "") for event in given] == [4096] * 3
    assert len({event.data for event in given}) == 3


def test_a_generated_log_is_as_long_as_asked_for() -> None:
    """Pieces of every size can be cut from it."""
    assert len(generated_log(100_000)) >= 100_000


HERE = Path(__file__).parents[3] / "benchmarks" / "peers"


def test_every_queue_has_its_side() -> None:
    """A module for each, and none besides."""
    assert {path.name for path in HERE.glob("*_peer.py")} == {f"{peer}_peer.py" for peer in PEERS}


def test_ours_is_shown_by_the_best_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """The most where more is better, the least where less is; medians of the rounds."""

    def rounds(*values: float) -> list[dict[str, object]]:
        return [{**dict.fromkeys(FIGURES, value), "versions": f"v {values}"} for value in values]

    report({"ours": rounds(100, 400, 200), "saq": rounds(100), "arq": rounds(50)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["ours", *["200.00"] * 5]
    assert lines[4].split() == ["by", "best", "2.00", "2.00", "2.00", "4.00", "4.00"]
