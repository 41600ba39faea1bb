"""What becomes of a job whose log lacks something: its end says so."""

import logging
import platform
from collections.abc import Awaitable, Callable

from ci_common.errors import LeaseLostError, RepositoryError
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    LogNotStoredError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from ci_eventstore.writer.chunk_sender import LOST_LINE, log_loss

logger = logging.getLogger("ci_eventstore.writer")


def telling_losses(
    job_id: str,
    write: Callable[[], Awaitable[None]],
    add_line: Callable[[str], Awaitable[None]],
    *,
    is_loss: bool = False,
) -> Callable[[], Awaitable[None]]:
    """Return a write before which a job's log is given a line that says that acknowledged events were lost, if so.

    `is_loss`: it was tried, and refused for that. It may be called again after any error: the line isn't forgotten.
    """
    if is_loss:
        log_loss(job_id)
    is_to_be_told = is_loss

    async def tell_and_write() -> None:
        nonlocal is_to_be_told
        while True:
            try:
                if is_to_be_told:
                    await add_line(LOST_LINE)
                    is_to_be_told = False
                await write()
            except AcknowledgedEventsLostError:
                log_loss(job_id)
                is_to_be_told = True
            else:
                return

    return tell_and_write


def after_line(
    line: str, write: Callable[[], Awaitable[None]], add_line: Callable[[str], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """Return a write before which a job's log is given a line, once; if that can't be, it is logged instead.

    It may be called again after any error.
    """
    is_added = False

    async def add_and_write() -> None:
        nonlocal is_added
        if not is_added:
            try:
                await add_line(line)
            except (AcknowledgedEventsLostError, LeaseLostError, OutcomeUnknownError, StoreUnavailableError):
                raise
            except RepositoryError as error:
                logger.error("%s can't be said in the log: %s", line.strip(), error)
            is_added = True
        await write()

    return add_and_write


def note_of(failure: LogNotStoredError) -> str:
    """Return the line that says in a log what it lacks."""
    where = f"they are in {failure.path} on {platform.node()}" if failure.path else "they are lost"
    return f"\n[the last {failure.size_bytes} bytes of the output are missing here: the store failed; {where}]\n"
