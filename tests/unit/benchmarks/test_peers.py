"""The report of `make bench-peers`; the queues themselves are run by hand."""

from pathlib import Path

import pytest

from benchmarks.peers.__main__ import FIGURES, PEERS, report

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
