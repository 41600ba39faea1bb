"""`python -m benchmarks.page`: a quick run, and its pure parts."""

import asyncio

import pytest

from benchmarks.page.logs import generated_log
from benchmarks.page.run import QUICK, run
from benchmarks.page.watching import Cost


def test_the_most_of_costs() -> None:
    """Each figure by itself."""
    assert Cost(1.0, 5.0, 7).at_most(Cost(2.0, 3.0, 7)) == Cost(2.0, 5.0, 7)


@pytest.mark.slow
def test_a_rare_text_stands_in_one_line() -> None:
    """And in no other, near the log's end."""
    log = generated_log(QUICK.generated_lines)
    lines = log.path.read_text().splitlines()
    assert [number for number, line in enumerate(lines, 1) if log.rare in line] == [log.rare_line]
    assert log.rare_line > 0.9 * len(lines) == 0.9 * log.lines


@pytest.mark.slow
@pytest.mark.needs("chromium")
@pytest.mark.timeout(300)
def test_a_quick_run_looks_at_all() -> None:
    """In Chromium, a log is opened, scrolled and searched, a live one followed and left: each row has its figure."""
    report = asyncio.run(run(QUICK))
    rows = [row for section in report.sections for row in section.rows]
    assert [row.what for row in rows if not row.ours] == []
    assert len(rows) == 20
