"""`make test-deployments`: run the suites on each deployment and every fault under load, and write what came of it.

Tests note faults and moves in the file that CI_EVENTSTORE_REPORT names, a JSON object on a line.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tests.deployments.breaking import FAULTS, SITES
from tests.deployments.load import ACKNOWLEDGED_BY
from tests.servers import find_redis7, find_valkey

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deployments.md"
REPORT_VARIABLE = "CI_EVENTSTORE_REPORT"
WORKERS = "4"
CONTRACT = "contract"
#: The files of each suite; the contract's tests name their deployment themselves.
SUITES: Mapping[str, Sequence[str]] = {
    CONTRACT: ("tests/contract/test_contract.py",),
    "exactly once": ("tests/integration/store/test_exactly_once.py",),
    "hub": ("tests/integration/store/test_following.py",),
    "streams over HTTP": ("tests/integration/web/test_streams.py",),
    "controllers": ("tests/integration/store/test_controller.py",),
    "claims' faults": (
        "tests/integration/store/test_claim_faults.py",
        "tests/integration/store/test_completions.py",
        "tests/integration/store/test_offer_faults.py",
    ),
    "writers' chaos": ("tests/integration/store/test_chaos.py",),
    "followers' faults": ("tests/integration/store/test_following_faults.py",),
    "controllers' chaos": ("tests/integration/store/test_controller_chaos.py",),
}
FAULT_TESTS = "tests/integration/deployments/test_faults.py"
MOVE_TESTS = "tests/integration/deployments/test_moves.py"
#: What the contract's tests call the deployments; a server is Redis 7 there.
NAMES = {name if name != "server" else "redis7": name for name in SITES}
_PARAMETER = re.compile(rf"\[({'|'.join(NAMES)})[-\]]")

PAGE_TEXT = """\
# Deployments

Made by `make test-deployments` on {date}, with {versions}; two cores, all servers on one machine.
Clusters are three primaries with a replica each; three Sentinels watch a primary and two replicas.

## Suites

{suites}

Clusters have 64 partitions in the contract, and one in the other suites, whose tests look at one partition's keys.

In the last three columns the network fails at random between clients and all servers, controllers are killed and
stopped, clocks jump, and all servers of the deployment stand still or die at once; Sentinels go on. Nobody takes over
then, so nothing at all may be lost. An embedded server isn't tested for being away: a process that misses it starts it.

`.ci/run` has less: of the contract, TLS and Sentinels have a half each, and so have the two kinds of clusters; of the
other suites, a server alone; one fault on each deployment, and five failovers in a row. The reason is time: CI has half
an hour for everything, and uses nearly all of it. So it may miss what breaks on a single deployment: that shows here.

## Faults

Each happens while six writers, their followers and two controllers are at work. The longest silence is that of one
writer between two acknowledged writes, of one follower between two events, and of all controllers together. Afterwards
everything that everybody was told is compared with the store (`tests/deployments/load.py`): no acknowledged write may
be missing, there twice or out of order, no claim given twice, and `verify` finds nothing. A loss is reported by
`AcknowledgedEventsLostError`, once to each writer.

{faults}

Sentinels notice after one second here that a primary is away; in a cluster, its replica is told to take over at once.
Sentinels that are asked for a failover don't wait for the replica that they choose: with two replicas, a write that
only the other one has is lost, and its writer gets an error. [Guarantees](guarantees.md#what-a-failover-may-lose) says
what each kind of failover may lose.

## A stream of 64 MiB moves

{moves}
"""

Row = dict[str, Any]
#: How many tests of a suite had each outcome on a deployment.
Outcomes = Mapping[tuple[str, str], Counter[str]]


def note(**row: object) -> None:
    """Have the page say it, if one is made."""
    path = os.environ.get(REPORT_VARIABLE)
    if path:
        with Path(path).open("a") as report:
            report.write(json.dumps(row) + "\n")


def verdict(outcomes: Counter[str]) -> str:
    """Return what to say of a suite's tests."""
    failed = outcomes["failed"]
    if not outcomes.total():
        return "**not run**"
    left_out = f", {outcomes['left out']} not for it" if outcomes["left out"] else ""
    return f"**{failed} of {outcomes.total()} failed**" if failed else f"{outcomes['passed']} passed{left_out}"


def table_of_suites(outcomes: Outcomes) -> str:
    """Return the table of deployments and suites; suites that didn't run are named as such."""
    lines = [_line(["deployment", *SUITES]), _line(["---"] * (len(SUITES) + 1))]
    lines += [_line([name, *(verdict(outcomes.get((name, suite), Counter())) for suite in SUITES)]) for name in SITES]
    return "\n".join(lines)


def table_of_faults(rows: Iterable[Row]) -> str:
    """Return the matrix of faults and deployments: the longest silences, and what the checker of histories found."""
    found = {(row["fault"], row["deployment"], row["durability"]): row for row in rows if row["what"] == "fault"}
    head = ["fault", "deployment", "acknowledged by", "writer", "follower", "controller", "verdict"]
    lines = [_line(head), _line(["---"] * len(head))]
    for fault in FAULTS:
        for name in SITES:
            kinds = [kind for kind in ACKNOWLEDGED_BY if (fault, name, kind) in found]
            cells = [_cells(found[fault, name, kind]) for kind in kinds] or [["-", "-", "-", "-", "**not run**"]]
            lines += [_line([fault, name, *row]) for row in cells]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    if isinstance(row["findings"], str):
        return ["-", "-", "-", "-", f"can't happen: {row['findings']}"]
    silences = [f"{row['silences'][kind]:.1f} s" for kind in ("writer", "follower", "controller")]
    by = {"server": "the primary", "replicated": "a replica too", "everywhere": "all replicas"}[row["durability"]]
    if row["findings"]:
        said = f"**{sum(map(len, row['findings'].values()))} findings**"
    else:
        said = f"{row['losses']} losses, each told" if row["losses"] else "nothing lost"
    return [by, *silences, said]


def table_of_moves(rows: Iterable[Row]) -> str:
    """Return how long the move of a stream of 64 MiB took, and how long its partition's writer waited."""
    lines = [_line(["cluster", "keys move", "move", "pause of a writer"]), _line(["---"] * 4)]
    ways = {"keys": "one by one", "at_once": "at once"}
    lines += [
        _line([row["cluster"], ways[row["how"]], f"{row['seconds']:.2f} s", f"{row['pause']:.2f} s"])
        for row in rows
        if row["what"] == "move"
    ]
    return "\n".join(lines)


def page(outcomes: Outcomes, rows: Sequence[Row], when: datetime, versions: Sequence[str]) -> str:
    """Return the document."""
    return PAGE_TEXT.format(
        date=f"{when:%Y-%m-%d}",
        versions=", ".join(versions),
        suites=table_of_suites(outcomes),
        faults=table_of_faults(rows),
        moves=table_of_moves(rows),
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def run(arguments: Sequence[str], folder: Path, name: str) -> list[tuple[str, str, str]]:
    """Run tests; return the file, the name and the outcome of each."""
    results = folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}", *arguments]
    environment = {**os.environ, "CI_EVENTSTORE_DEPLOYMENTS": "all", REPORT_VARIABLE: str(folder / "report")}
    print(f"{name}: {' '.join(command[3:])}", flush=True)  # noqa: T201 - this is a program
    subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if not results.exists():
        return []
    found = []
    for case in ET.parse(results).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        left_out = case.find("skipped") is not None
        file = case.get("classname", "").removesuffix(".TestContract").replace(".", "/") + ".py"
        found.append((file, case.get("name", ""), "failed" if failed else "left out" if left_out else "passed"))
    return found


def run_suites(folder: Path) -> Outcomes:
    """Run all suites on all deployments."""
    outcomes = defaultdict[tuple[str, str], Counter[str]](Counter)
    spread = ["-n", WORKERS, "--dist", "load"]
    contract = run([*SUITES[CONTRACT], "-k", " or ".join(NAMES), *spread], folder, CONTRACT)
    for _, test, outcome in contract:
        if parameter := _PARAMETER.search(test):
            outcomes[NAMES[parameter.group(1)], CONTRACT][outcome] += 1
    files = {file: suite for suite, its in SUITES.items() for file in its if suite != CONTRACT}
    for name in SITES:
        # Where a test wants one server of either kind, the deployment takes the place of both.
        for file, _, outcome in run([*files, f"--deployment={name}", "-k", "not redis7", *spread], folder, name):
            outcomes[name, files[file]][outcome] += 1
    return outcomes


def main() -> int:
    """Run everything, write the page, and return 1 if anything failed."""
    with tempfile.TemporaryDirectory(prefix="ci-report-") as name:
        folder = Path(name)
        outcomes = run_suites(folder)
        faults = run([FAULT_TESTS, MOVE_TESTS], folder, "faults")
        rows = [json.loads(line) for line in (folder / "report").read_text().splitlines()]
    versions = [f"Python {platform.python_version()}", *map(_version_of, (find_redis7(), find_valkey()))]
    PAGE.write_text(page(outcomes, rows, datetime.now(UTC), versions))
    has_failed = any(counts["failed"] for counts in outcomes.values()) or any(one[2] == "failed" for one in faults)
    return int(has_failed)


def _version_of(binary: Path) -> str:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{text.split()[0]} {text.partition('v=')[2].split()[0]}"


if __name__ == "__main__":
    sys.exit(main())
