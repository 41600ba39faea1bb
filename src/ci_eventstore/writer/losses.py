"""What becomes of a job whose end finds out that the server has lost some of its log."""

import logging
from collections.abc import Awaitable, Callable

from ci_eventstore.errors import AcknowledgedEventsLostError
from ci_eventstore.writer.chunk_sender import LOST_LINE

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
        _log_loss(job_id)
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
                _log_loss(job_id)
                is_to_be_told = True
            else:
                return

    return tell_and_write


def _log_loss(job_id: str) -> None:
    logger.warning("the server lost acknowledged events", extra={"job_id": job_id})
