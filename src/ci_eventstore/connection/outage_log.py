"""Log that something keeps failing without a line for each failure."""

import logging
import time
from collections.abc import Mapping

#: How often a failure that lasts is logged again.
AGAIN_SECONDS = 60.0
#: How many kinds of failures are kept apart at once.
MOST_KINDS = 1000


class OutageLog:
    """Logs a failure once, then each minute while it lasts, and that it is over.

    Neither is logged more than once a minute, also where some succeed while others fail.
    """

    def __init__(
        self, logger: logging.Logger, message: str, over: str | None = None, *, after_seconds: float = 0.0
    ) -> None:
        """Log `message`, which has one `%s` for the reason, and `over`, if given, when things work again.

        A failure that is over within `after_seconds` isn't logged.
        """
        self._logger = logger
        self._after_seconds = after_seconds
        self._message = message
        self._over = over
        #: When it began; None while there is no failure.
        self._began_at: float | None = None
        #: When it was logged last, and whether since then nothing said that it is over.
        self._logged_at: float | None = None
        self._is_told = False

    def failed(
        self, reason: object, extra: Mapping[str, object] | None = None, *, traceback: BaseException | None = None
    ) -> None:
        """Note a failure, whose traceback is logged with it if that is given."""
        now = time.monotonic()
        self._began_at = now if self._began_at is None else self._began_at
        if now - self._began_at < self._after_seconds:
            return
        if self._logged_at is None or now - self._logged_at >= AGAIN_SECONDS:
            self._logged_at, self._is_told = now, True
            self._logger.warning(self._message, reason, extra=extra, exc_info=traceback)

    def worked(self) -> None:
        """Note a success."""
        self._began_at = None
        if self._is_told:
            self._is_told = False
            if self._over is not None:
                self._logger.warning(self._over)


class Outages:
    """What fails for all who use one server, each kind of it logged by one `OutageLog`, however many are hit by it."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, str], OutageLog] = {}
        #: The logs of partitions that are away, by their hash tags.
        self.absent: dict[str, OutageLog] = {}

    def of(self, logger: logging.Logger, message: str, over: str | None = None, *, kind: str = "") -> OutageLog:
        """Return the log of the failures with a message, and of one kind of them if there are several."""
        found = self._logs.get((message, kind))
        if found is None:
            if len(self._logs) >= MOST_KINDS:
                self._logs.clear()
            found = self._logs[message, kind] = OutageLog(logger, message, over)
        return found

    def fault(self, logger: logging.Logger, what: str, error: Exception) -> None:
        """Note an error that nobody has thought of, in a loop that has to go on, with its traceback."""
        log = self.of(logger, f"{what} failed, and goes on: %s", kind=type(error).__name__)
        log.failed(repr(error), traceback=error)
