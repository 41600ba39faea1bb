"""How many jobs wait before another one in its queue, as the turns of users go."""

import math
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.members import read_backlog_member

#: A queue that has more jobs waiting isn't looked through, so that a place costs a bounded time.
MOST_WAITING = 5_000
#: What was read of a queue counts for this long, for all who ask; this many queues are kept.
FRESH_SECONDS = 1.0
QUEUES_KEPT = 100


class Waiting(NamedTuple):
    """A job that waits; they sort as one user's jobs do."""

    user_id: str
    created: str
    job_id: str


def jobs_before(job_id: str, waiting: Iterable[Waiting]) -> int | None:
    """Return how many jobs are handed out before one, None if it doesn't wait. Pure.

    A user's jobs go in the order of their creation, and users take turns: while one user waits for the third turn,
    each other one gets two, and a third if that job is the older one. Controllers that share partitions may differ.
    """
    in_order = sorted(waiting)
    place = next((number for number, job in enumerate(in_order) if job.job_id == job_id), None)
    if place is None:
        return None
    asked, turns, taken = in_order[place], Counter[str](), 0
    own = sum(1 for job in in_order[:place] if job.user_id == asked.user_id)
    for job in in_order:
        turn = turns[job.user_id]
        turns[job.user_id] += 1
        if turn < own or (turn == own and (job.created, job.job_id) < asked[1:]):
            taken += 1
    return taken


class QueuePlaces:
    """The places of waiting jobs; each queue is read at most once a second."""

    def __init__(self) -> None:
        #: What was read of each queue, and when, by the monotonic clock.
        self._kept: dict[str, tuple[float, list[Waiting] | None]] = {}

    async def before(self, nodes: Nodes, keys: Keys, queue: str, job_id: str) -> int | None:
        """Return how many jobs wait before one; None if too many wait, or it doesn't any more. StoreError."""
        read_at, waiting = self._kept.get(queue, (-math.inf, []))
        is_known = waiting is None or any(job.job_id == job_id for job in waiting)
        if time.monotonic() >= read_at + FRESH_SECONDS or not is_known:
            waiting = await self._read(nodes, keys, queue)
            if len(self._kept) >= QUEUES_KEPT:
                self._kept.clear()
            self._kept[queue] = time.monotonic(), waiting
        return None if waiting is None else jobs_before(job_id, waiting)

    async def _read(self, nodes: Nodes, keys: Keys, queue: str) -> list[Waiting] | None:
        backlogs = [QueueKeys(queue, tag).backlog for tag in keys.tags]
        commands = [("ZRANGEBYLEX", backlog, "-", "+", "LIMIT", 0, MOST_WAITING + 1) for backlog in backlogs]
        found = [text for reply in await nodes.read_many(commands) for text in as_texts(reply)]
        if len(found) > MOST_WAITING:
            return None
        return [Waiting(*read_backlog_member(text)) for text in found]
