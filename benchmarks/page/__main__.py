"""Measure the page with the longest logs, from the command line. It needs Chromium, and the PyPI registry once."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.page.run import FULL, NOTES, QUICK, run
from benchmarks.table import render


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the figures to a file if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take some seconds: shows that it runs, no figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds' figures to a file, too")
    options = parser.parse_args(arguments)
    report = asyncio.run(run(QUICK if options.quick else FULL))
    print(render(report, NOTES))
    if options.json:
        options.json.write_text(json.dumps(report.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
