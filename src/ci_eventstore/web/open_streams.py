"""The streams that are open in this process: how many each user has, and how all of them end."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.web.errors import WebError

logger = logging.getLogger("ci_eventstore.web")


class OpenStreams:
    """Counts streams by user, and can end them."""

    def __init__(self, most_per_user: int) -> None:
        self._most_per_user = most_per_user
        self._by_user: Counter[str] = Counter()
        self._scopes: set[asyncio.Timeout] = set()
        #: The event loop in which they were stopped: an application that is started again has another one.
        self._stopped_in: asyncio.AbstractEventLoop | None = None
        #: What is the matter with streams, said of all of them at once.
        self.waiting = OutageLog(logger, "streams wait for the store: %s", "streams go on")
        self.broken = OutageLog(logger, "a stream was broken off: %s")
        self.unchecked = OutageLog(logger, "whether streams may go on can't be looked up: %s")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._scopes)

    def start(self) -> None:
        """Let streams be opened, also after a stop."""
        self._stopped_in = None

    def stop(self) -> None:
        """End all streams at once, and those that are opened from now on at their first step: clients come back."""
        self._stopped_in = asyncio.get_running_loop()
        for scope in list(self._scopes):
            end_scope(scope)

    @contextmanager
    def counted(self, user_id: str | None) -> Iterator[None]:
        """Count a stream as a user's; 429 if that has too many. What is nobody's isn't limited."""
        if user_id is None:
            yield
            return
        if self._by_user[user_id] >= self._most_per_user:
            text = f"you have {self._most_per_user} streams open, more are not allowed: close one"
            raise WebError(429, "too_many_streams", text, {"Retry-After": "5"})
        self._by_user[user_id] += 1
        try:
            yield
        finally:
            self._by_user[user_id] -= 1
            if not self._by_user[user_id]:
                del self._by_user[user_id]

    @contextmanager
    def entered(self, scope: asyncio.Timeout) -> Iterator[None]:
        """Let a stream be ended by `stop`; in its own timeout."""
        self._scopes.add(scope)
        if self._stopped_in is asyncio.get_running_loop():
            end_scope(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def end_scope(scope: asyncio.Timeout) -> None:
    """End what runs in a timeout, now, if it hasn't ended yet."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())
