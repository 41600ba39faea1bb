"""The page about deployments: what its tables say of results, and that it says something of everything."""

from collections import Counter

import pytest

from tests.deployments.breaking import FAULTS, SITES
from tests.deployments.report import PAGE, SUITES, table_of_faults, table_of_suites, verdict


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (Counter(passed=3), "3 passed"),
        (Counter({"passed": 3, "left out": 1}), "3 passed, 1 not for it"),
        (Counter(passed=3, failed=1), "**1 of 4 failed**"),
        (Counter[str](), "**not run**"),
    ],
)
def test_a_suite_has_a_verdict(outcomes: Counter[str], said: str) -> None:
    """A failure stands out, and so does a suite that didn't run."""
    assert verdict(outcomes) == said


def test_findings_stand_out() -> None:
    """A fault's line has its silences, and how many findings there were."""
    silences = {"writer": 1.0, "follower": 2.04, "controller": 0.0}
    row = {
        "what": "fault",
        "fault": "connections cut",
        "deployment": "server",
        "durability": "server",
        "silences": silences,
        "losses": 0,
        "findings": {"writer": ["one", "two"]},
    }
    lines = table_of_faults([row]).splitlines()
    assert lines[2] == "| connections cut | server | the primary | 1.0 s | 2.0 s | 0.0 s | **2 findings** |"
    assert all("**not run**" in line for line in lines[3:])


def test_no_cell_is_empty() -> None:
    """The page has a line for each deployment, and for each fault on each."""
    page = PAGE.read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    assert all(cell.strip() for row in rows for cell in row)
    assert "not run" not in page
    assert {(row[0].strip(), row[1].strip()) for row in rows if len(row) == 7} >= {
        (fault, name) for fault in FAULTS for name in SITES
    }
    assert {row[0].strip() for row in rows if len(row) == 1 + len(SUITES)} >= set(SITES)
    assert len(table_of_suites({}).splitlines()) == 2 + len(SITES)
