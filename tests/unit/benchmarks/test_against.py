"""`make bench AGAINST=…`: what an interval says, what is compared, and a quick comparison of a checkout with itself."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.against import live_side, store_side
from benchmarks.against.__main__ import exit_code, lines, main
from benchmarks.against.checkouts import ROOT, Checkout, commit_of, dependencies
from benchmarks.against.figures import KINDS, LIVE, PEERS, STORE, Figure, chosen
from benchmarks.against.judging import Comparison, Interval, Verdict, confidence_of, interval_of_median, judge
from benchmarks.against.turns import PEER_NAMES, Found, Take, in_processes, take_turns
from benchmarks.peers.__main__ import FIGURES
from benchmarks.rounds import SERVERS, lap_of
from benchmarks.scale import QUICK
from benchmarks.servers import FILE_SETTINGS, running, server_binaries
from benchmarks.sides import open_sides

SOURCE = Path(__file__).parents[3] / "src"


@pytest.mark.parametrize(
    ("count", "lowest", "highest", "confidence"),
    [
        (5, 1, 5, 0.9375),
        (6, 1, 6, 0.969),
        (8, 1, 8, 0.992),
        (9, 2, 8, 0.961),
        (12, 3, 10, 0.961),
        (15, 4, 12, 0.965),
        (17, 5, 13, 0.951),
        (20, 6, 15, 0.959),
    ],
)
def test_the_interval_of_a_median(count: int, lowest: int, highest: int, confidence: float) -> None:
    """Places and confidences are those of the tables in books, whatever order the values come in."""
    found = interval_of_median([(7 * place) % 23 for place in range(count)])
    ordered = sorted((7 * place) % 23 for place in range(count))
    assert (found.low, found.high) == (ordered[lowest - 1], ordered[highest - 1])
    assert found.confidence == pytest.approx(confidence, abs=0.0006)


def test_too_few_values_have_no_interval() -> None:
    """Of fewer than five rounds nothing is said."""
    with pytest.raises(ValueError, match="4 rounds are too few"):
        interval_of_median([1, 1, 1, 1])
    assert confidence_of(4, 2) == 0


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.80, 0.94, Verdict.WORSE),
        (0.80, 0.95, Verdict.UNCLEAR),
        (0.94, 1.00, Verdict.UNCLEAR),
        (0.95, 1.05, Verdict.SAME),
        (0.99, 1.06, Verdict.UNCLEAR),
        (1.05, 1.20, Verdict.UNCLEAR),
        (1.06, 1.20, Verdict.BETTER),
        (0.50, 2.00, Verdict.UNCLEAR),
    ],
)
def test_what_an_interval_says(low: float, high: float, verdict: Verdict) -> None:
    """Worse or better is what lies wholly beyond 5 %, the same what lies wholly within."""
    assert judge(Interval(low, high, 0.95)) is verdict


def compared(*, is_more_better: bool, here: Sequence[float], there: Sequence[float] = (100.0,) * 9) -> Comparison:
    return Comparison("append", "events/s", is_more_better, here, there)


@pytest.mark.parametrize(
    ("is_more_better", "here", "verdict"),
    [
        (True, [90.0] * 9, Verdict.WORSE),
        (True, [94.0] * 8 + [200.0], Verdict.WORSE),
        (True, [94.0] * 7 + [200.0] * 2, Verdict.UNCLEAR),
        (True, [120.0] * 9, Verdict.BETTER),
        (False, [120.0] * 9, Verdict.WORSE),
        (False, [80.0] * 9, Verdict.BETTER),
        (False, [104.0] * 9, Verdict.SAME),
    ],
)
def test_rounds_are_compared_by_their_ratios(is_more_better: bool, here: list[float], verdict: Verdict) -> None:
    """A ratio above 1 is better for rates and for times alike; of nine rounds one may lie anywhere."""
    assert compared(is_more_better=is_more_better, here=here).verdict is verdict


def test_a_ratio_is_of_one_round() -> None:
    """What slows both sides of a round down changes nothing."""
    found = compared(is_more_better=True, here=[50, 100, 200, 400, 800], there=[100, 200, 400, 800, 1600])
    assert (found.ratio, found.interval.low, found.interval.high) == (0.5, 0.5, 0.5)


def test_figures_are_chosen_by_parts_of_their_names() -> None:
    """One of the parts is enough; no part is all of them; none found is an error."""
    assert chosen(STORE, []) == STORE.figures
    assert {figure.name for figure in chosen(STORE, ["one task", "idle"])} == {
        "append, one task",
        "idle controller, one partition",
        "idle controller, 64 partitions",
    }
    with pytest.raises(LookupError, match="no figure has nothing or such in its name"):
        chosen(STORE, ["nothing", "such"])


def test_every_figure_has_what_takes_it() -> None:
    """The lists of names and of what is measured are the same."""
    assert [figure.name for figure in STORE.figures] == list(store_side.TAKES)
    groups = {"CPU": live_side.MANY, "SSE": live_side.STREAMS}
    groups |= dict.fromkeys(("delivery, median", "delivery, p99"), live_side.LONE)
    assert {figure.name for figure in LIVE.figures} == {f"{part}, {name}" for part in groups for name in groups[part]}
    assert tuple(figure.name for figure in PEERS.figures) == PEER_NAMES
    assert [figure.is_more_better for figure in PEERS.figures] == list(FIGURES.values())


SIDES = (Checkout("here", "commit of here", SOURCE, Path()), Checkout("there", "commit of there", SOURCE, Path()))
TWO = (Figure("append", "events/s"), Figure("wait", "ms", is_more_better=False))


def test_sides_take_turns() -> None:
    """Both sides take a figure before the next one is taken, and neither is always the first."""
    calls: list[tuple[str, str]] = []

    def opening(side: Checkout, stack: ExitStack) -> Take:
        def take(name: str) -> float:
            calls.append((side.name, name))
            return 2.0 if side.name == "here" else 1.0

        return take

    found = take_turns(SIDES, TWO, opening, 6)
    assert [(one.what, one.ratio, one.verdict) for one in found.comparisons] == [
        ("append", 2.0, Verdict.BETTER),
        ("wait", 0.5, Verdict.WORSE),
    ]
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    assert all(first[1] == second[1] and first[0] != second[0] for first, second in pairs)
    assert [first[0] for first, _ in pairs].count("here") == len(pairs) / 2
    assert exit_code(found) == 1


@pytest.mark.parametrize(("at", "code"), [("here", 2), ("there", 0)])
def test_a_figure_that_a_side_lacks_is_left_out(at: str, code: int) -> None:
    """It is said which and why; only one that is missing here is an error."""

    def opening(side: Checkout, stack: ExitStack) -> Take:
        return lambda name: "ImportError: no such module" if (side.name, name) == (at, "wait") else 1.0

    found = take_turns(SIDES, TWO, opening, 5)
    shown = "\n".join(lines(SIDES, found, 5))
    assert [one.what for one in found.comparisons] == ["append"]
    assert f"not measured {at}: wait: ImportError: no such module" in shown
    assert shown.endswith("Nothing is worse.")
    assert exit_code(found) == code


def test_the_table_says_what_is_worse() -> None:
    """The last line names it, and the exit code says it, too."""
    found = Found([compared(is_more_better=True, here=[50.0] * 9)])
    shown = list(lines(SIDES, found, 9))
    assert shown[-1] == "WORSE: append."
    assert "append 50.0 events/s 100.0 events/s 0.500 0.500..0.500 WORSE" in [" ".join(line.split()) for line in shown]
    assert any("96.1%" in line for line in shown)
    assert exit_code(found) == 1


def test_what_is_no_commit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """So are too few rounds, before anything is measured."""
    with pytest.raises(LookupError, match="'no-such-commit' is no commit"):
        commit_of("no-such-commit")
    for arguments in (["no-such-commit"], ["HEAD", "--kind", "live", "--cpu"], ["HEAD", "--rounds", "4"]):
        with pytest.raises(SystemExit):
            main(arguments)
    assert "an interval needs 5 rounds or more" in capsys.readouterr().err


def test_what_tests_need_makes_no_other_environment(tmp_path: Path) -> None:
    """Only what a user's installation depends on does."""
    text = (ROOT / "pyproject.toml").read_text()
    for name, old, new in (("dev", '"mypy>=1.15"', '"mypy>=1.16"'), ("used", '"msgpack>=1.1"', '"msgpack>=1.2"')):
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))
    assert dependencies(tmp_path / "dev") == dependencies(ROOT / "pyproject.toml")
    assert dependencies(tmp_path / "used") != dependencies(ROOT / "pyproject.toml")


def test_help_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """All kinds are named with their minutes."""
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {2 * 9 * kind.seconds / 60:.0f} minutes" in shown for name, kind in KINDS.items())


@pytest.mark.slow
def test_a_figure_is_taken_from_the_source_of_its_side(tmp_path: Path) -> None:
    """A process imports its own side's store, and one whose store can't be imported says so for each figure."""
    good = Checkout("here", "", SOURCE, Path(sys.executable))
    bad = Checkout("there", "", tmp_path, Path(sys.executable))
    with ExitStack() as stack:
        takes = [in_processes("store")(side, stack) for side in (good, bad)]
        found = [take("append, one task") for take in takes]
        unknown = takes[0]("no such figure")
    assert isinstance(found[0], float)
    assert found[0] > 0
    assert found[1] == "its process ended with 1"
    assert unknown == "KeyError: 'no such figure'"


@pytest.mark.slow
def test_every_figure_of_the_store_can_be_taken() -> None:
    """A quick one of each, in this process."""
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url:
        assert [name for name in store_side.TAKES if store_side.take(url, name, QUICK, 0.001) < 0] == []
        assert store_side.take_by_cpu(url, "append, one task", QUICK, 0.001) > 0


async def test_a_lap_counts_the_cpu_of_both_sides() -> None:
    """A process that only waits takes nearly none, and what its server does in the meantime counts."""
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url:
        async with open_sides(url, QUICK) as sides:
            SERVERS[:] = [int((await sides.info("server"))["process_id"])]
            try:
                with lap_of(1) as asleep:
                    await asyncio.sleep(0.2)
                with lap_of(1) as busy:
                    await sides.client.eval("for n = 1, 2000000 do local _ = {n} end", 0)
            finally:
                SERVERS.clear()
    assert asleep.cpu_seconds < 0.1
    assert busy.cpu_seconds > 3 * asleep.cpu_seconds
