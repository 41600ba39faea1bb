"""Work in the background that nobody waits for: an error that ends it is seen."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any


def begin(work: Coroutine[Any, Any, None], logger: logging.Logger, what: str) -> "asyncio.Task[None]":
    """Begin work that nobody waits for; an error that ends it is logged, with what it was to do.

    Whoever calls this keeps the task, and cancels it.
    """

    def note_end(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", what, exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(note_end)
    return task
