"""How much of something one user may have in this process at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import ceil

from ci_eventstore.web.errors import WebError

#: Searches of a user at the same time.
MOST_SEARCHES = 8
#: What searches and outlines of a user may read of archived logs within a minute, roughly: what began goes on.
ARCHIVED_CHARACTERS = 512 * 1024 * 1024
WINDOW_SECONDS = 60.0


@contextmanager
def counted(counts: Counter[str], user_id: str | None, most: int, refusal: WebError) -> Iterator[None]:
    """Count one more as a user's meanwhile; the refusal is raised if that is too many. Nobody's aren't limited."""
    if user_id is None:
        yield
        return
    if counts[user_id] >= most:
        raise refusal
    counts[user_id] += 1
    try:
        yield
    finally:
        counts[user_id] -= 1
        if not counts[user_id]:
            del counts[user_id]


class SearchLimits:
    """Counts the searches of each user. Those of nobody, who may see everything, aren't limited."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        #: When each one's minute began, and what was read of archived logs since.
        self._archived: dict[str, tuple[float, int]] = {}

    def counted(self, user_id: str | None) -> AbstractContextManager[None]:
        """Count a search; WebError 429 if the user has too many."""
        text = f"you have {MOST_SEARCHES} searches running, more are not allowed: wait for one, or end it"
        refusal = WebError(429, "too_many_searches", text, {"Retry-After": "2"})
        return counted(self._running, user_id, MOST_SEARCHES, refusal)

    def check_archived(self, user_id: str | None, now: float) -> None:
        """Refuse to read an archived log, if the user has read too much of such logs; WebError 429."""
        begun, read = self._archived.get(user_id or "", (now, 0))
        left = begun + WINDOW_SECONDS - now
        if read >= ARCHIVED_CHARACTERS and left > 0:
            text = "you have had too much of archived logs read within a minute: wait"
            raise WebError(429, "too_much_archived", text, {"Retry-After": str(ceil(left))})

    def note_archived(self, user_id: str | None, characters: int, now: float) -> None:
        """Note how much a user has read of archived logs."""
        if user_id is None:
            return
        self._archived = {user: kept for user, kept in self._archived.items() if now < kept[0] + WINDOW_SECONDS}
        begun, read = self._archived.get(user_id, (now, 0))
        self._archived[user_id] = begun, read + characters
