"""Speak to whoever sits at the terminal, on standard error."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator


def say(text: str) -> None:
    """Write one line to standard error; if nobody listens any more, that is no failure."""
    line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"ci-eventstore: {line}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def showing_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function that shows on a terminal how much of something is done; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(done: int, total: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            share = 100 * done // max(total, 1)
            sys.stderr.write(f"\r{what}: {done:,} of {max(done, total):,} ({share}%)\033[K")
            sys.stderr.flush()

    try:
        yield show
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


class _Speaker(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextlib.contextmanager
def saying_warnings_of(name: str) -> Iterator[None]:
    """Say what is logged under a name while something runs."""
    logger, speaker = logging.getLogger(name), _Speaker(logging.WARNING)
    logger.addHandler(speaker)
    try:
        yield
    finally:
        logger.removeHandler(speaker)
