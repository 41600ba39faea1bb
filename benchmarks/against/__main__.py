"""Compare this checkout's figures with those of another commit, by the same benchmark and in turn.

Each round takes all chosen figures, each of both commits right after each other, by new processes on new servers. A
figure is WORSE only if the interval of the median of its ratios lies wholly beyond 5 %; then this program ends with 1,
and with 2 if a figure could not be taken here.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from benchmarks.against.checkouts import Checkout, both, commit_of
from benchmarks.against.figures import KINDS, STORE, chosen
from benchmarks.against.judging import FEWEST_ROUNDS, Verdict, interval_of_median
from benchmarks.against.turns import Found, in_processes, running_jobs, take_turns
from benchmarks.run import machine_setting
from benchmarks.table import align, figure

ROUNDS = 9
HEADINGS = ("", "here", "there", "better by", "interval", "verdict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    kind = KINDS[options.kind]
    if options.cpu and kind is not STORE:
        parser.error("--cpu is for the figures of the store; bench-live has its own of the CPU")
    try:
        figures, commit = chosen(kind, options.row), commit_of(options.commit)
    except LookupError as error:
        parser.error(str(error))
    minutes = 2 * options.rounds * kind.seconds * len(figures) / len(kind.figures) / 60
    print(f"about {minutes:.0f} minutes for {len(figures)} figures", file=sys.stderr)
    with both(commit) as sides:
        opening = running_jobs if options.kind == "peers" else in_processes("cpu" if options.cpu else options.kind)
        found = take_turns(sides, figures, opening, options.rounds)
    print("\n".join(lines(sides, found, options.rounds)))
    return exit_code(found)


def _parser() -> argparse.ArgumentParser:
    times = ", ".join(f"{name} {2 * ROUNDS * kind.seconds / 60:.0f} minutes" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against",
        description=__doc__,
        epilog=f"All figures take roughly: {times}. Leave the machine alone meanwhile. "
        "From make: make bench AGAINST=COMMIT ARGS='--row append --row \"LogWriter, 64\"'.",
    )
    parser.add_argument("commit", help="what to compare with: anything that git takes for a commit")
    parser.add_argument("--kind", choices=KINDS, default="store", help="which figures (default: store)")
    parser.add_argument("--rounds", type=_rounds, default=ROUNDS, help=f"{FEWEST_ROUNDS} or more (default: {ROUNDS})")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="take rates of the store by CPU time, its process's and the server's together: for busy machines; "
        "what waits costs nothing then",
    )
    parser.add_argument(
        "--row", action="append", default=[], metavar="PART", help="only figures with this in their name"
    )
    return parser


def _rounds(text: str) -> int:
    if int(text) < FEWEST_ROUNDS:
        raise argparse.ArgumentTypeError(f"an interval needs {FEWEST_ROUNDS} rounds or more")
    return int(text)


def lines(sides: tuple[Checkout, Checkout], found: Found, rounds: int) -> Iterator[str]:
    """Yield the table and what it comes to."""
    yield from (f"{name}: {value}" for name, value in machine_setting("redis", "hiredis").items())
    yield from (f"{side.name}: {side.title}" for side in sides)
    yield ""
    rows = [HEADINGS]
    for one in found.comparisons:
        interval = one.interval
        place = f"{interval.low:.3f}..{interval.high:.3f}"
        rows.append(
            (
                f"  {one.what}",
                figure(one.here, one.unit),
                figure(one.there, one.unit),
                f"{one.ratio:.3f}",
                place,
                one.verdict,
            )
        )
    yield from align(rows, right=(1, 2, 3, 4))
    yield ""
    for name, missing in found.missing.items():
        yield from (f"not measured {name}: {what}: {why}" for what, why in missing.items())
    sure = interval_of_median(range(rounds)).confidence
    yield f"{rounds} rounds in turn; `better by` is the median of their ratios, above 1 where this checkout is better."
    yield f"The interval holds the true median with {sure:.1%} (sign test). WORSE: it lies wholly below 0.95."
    worse = [one.what for one in found.comparisons if one.verdict is Verdict.WORSE]
    unclear = [one.what for one in found.comparisons if one.verdict is Verdict.UNCLEAR]
    if unclear:
        yield f"Unclear, since the interval reaches beyond 5 %; more rounds may tell: {'; '.join(unclear)}."
    yield f"WORSE: {'; '.join(worse)}." if worse else "Nothing is worse."


def exit_code(found: Found) -> int:
    """Return 1 if a figure is worse, 2 if this checkout lacks one, else 0."""
    if any(one.verdict is Verdict.WORSE for one in found.comparisons):
        return 1
    return 2 if found.missing["here"] else 0


if __name__ == "__main__":
    sys.exit(main())
