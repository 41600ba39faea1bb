"""Log that something keeps failing without a line for each failure."""

import logging
import time
from collections.abc import Mapping

#: How often a failure that lasts is logged again.
AGAIN_SECONDS = 60.0


class OutageLog:
    """Logs a failure once, then each minute while it lasts, and that it is over."""

    def __init__(self, logger: logging.Logger, message: str, over: str, *, after_seconds: float = 0.0) -> None:
        """Log `message`, which has one `%s` for the reason, and `over` when things work again.

        A failure that is over within `after_seconds` isn't logged.
        """
        self._logger = logger
        self._after_seconds = after_seconds
        self._message = message
        self._over = over
        #: When it began, and when it was logged last; None while there is no failure.
        self._began_at: float | None = None
        self._logged_at: float | None = None

    def failed(self, reason: object, extra: Mapping[str, object] | None = None) -> None:
        """Note a failure."""
        now = time.monotonic()
        self._began_at = now if self._began_at is None else self._began_at
        if now - self._began_at < self._after_seconds:
            return
        if self._logged_at is None or now - self._logged_at >= AGAIN_SECONDS:
            self._logged_at = now
            self._logger.warning(self._message, reason, extra=extra)

    def worked(self) -> None:
        """Note a success."""
        self._began_at = None
        if self._logged_at is not None:
            self._logged_at = None
            self._logger.warning(self._over)
