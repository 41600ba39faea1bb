"""Speak to whoever sits at the terminal, on standard error."""

import contextlib
import sys


def say(text: str) -> None:
    """Write one line to standard error; if nobody listens any more, that is no failure."""
    line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"ci-eventstore: {line}\n")
        sys.stderr.flush()
