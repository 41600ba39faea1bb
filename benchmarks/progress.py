"""Say on standard error what is being measured: some benchmarks take a quarter of an hour."""

import sys
import time

_BEGAN = time.monotonic()


def show_progress(what: str) -> None:
    """Print a line, after the seconds since the benchmark began."""
    print(f"{time.monotonic() - _BEGAN:5.0f} s  {what}", file=sys.stderr, flush=True)
