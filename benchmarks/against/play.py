"""Take figures in a process of one side: `python -m benchmarks.against.play KIND URL SOURCE`.

Each line of its input names a figure. It answers with a line of JSON: the figure's value, or why there is none.
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import ci_eventstore


def main(kind: str, url: str, source: str) -> None:
    """Take one figure after the other; one that can't be taken doesn't keep others from it."""
    found = Path(ci_eventstore.__file__).resolve()
    if not found.is_relative_to(Path(source).resolve()):
        raise SystemExit(f"the store was imported from {found}, and not from {source}")
    for line in sys.stdin:
        try:
            answer: dict[str, float | str] = {"value": _taker(kind)(url, line.removesuffix("\n"))}
        except Exception as error:  # noqa: BLE001 - a figure may fail with whatever the other commit does.
            answer = {"why": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


@cache
def _taker(kind: str) -> Callable[[str, str], float]:
    """Return what takes a kind's figures; what it imports may be missing at a commit."""
    if kind == "live":
        from benchmarks.against import live_side

        return live_side.take
    from benchmarks.against import store_side

    return store_side.take_by_cpu if kind == "cpu" else store_side.take


if __name__ == "__main__":
    main(*sys.argv[1:])
