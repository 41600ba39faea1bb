"""Work in the background: an error that nobody has thought of is seen, and ends no loop."""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Any

#: How often the same fault is logged.
LOG_SECONDS = 60.0


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


class Faults:
    """What a loop that has to go on notes of errors that it doesn't expect: each is logged, once a minute."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        """Say what fails, in the words of the log."""
        self._logger = logger
        self._what = what
        self._logged_at = dict[type[Exception], float]()

    def note(self, error: Exception) -> None:
        """Log an error with its traceback, unless one of its kind was within the last minute."""
        now = time.monotonic()
        if now - self._logged_at.get(type(error), -math.inf) > LOG_SECONDS:
            self._logged_at[type(error)] = now
            self._logger.error("%s failed, and goes on", self._what, exc_info=error)
