"""Measure how live jobs are followed, from the command line. It needs the extra `bench`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.live.plots import draw
from benchmarks.live.run import NOTES, run
from benchmarks.live.scale import FULL, QUICK
from benchmarks.table import render


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write plots and figures if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take some seconds: shows that it runs, no figures")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw SVG files there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds' figures to a file, too")
    options = parser.parse_args(arguments)
    report, waits = run(QUICK if options.quick else FULL)
    print(render(report, NOTES))
    figures = {**report.to_dict(), "waits_ms": asdict(waits)}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.plots:
        draw(figures, options.plots)


if __name__ == "__main__":
    main()
