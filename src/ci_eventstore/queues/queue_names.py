"""The names of the queues: noted when one gets jobs, forgotten when it has neither jobs nor controllers."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.errors import MissingRightsError, ReadOnlyAccessError
from ci_eventstore.keys import Keys, queue_of, queues_key
from ci_eventstore.queues.overview import QueueOverview, read_overviews

#: How long a queue is looked at whose name was forgotten: a process that noted the name shortly before may still put
#: jobs into it without noting it again.
WATCH_SECONDS = 300.0


async def queue_names(nodes: Nodes, keys: Keys) -> list[str]:
    """Return the names of all queues that are used, and of some that were."""
    return sorted(as_texts(await nodes.read("SMEMBERS", queues_key(keys))))


async def add_queue_names(nodes: Nodes, keys: Keys, found: Sequence[str]) -> None:
    """Add the names of the queues whose tickets are among some keys."""
    names = {queue.name for key in found if (queue := queue_of(keys, "dispatch", key)) is not None}
    if names:
        await nodes.read("SADD", queues_key(keys), *names)


class UsedQueues:
    """Reads all queues that have jobs or controllers, and forgets the names of others."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self.nodes = nodes
        self._keys = keys
        #: Until when a forgotten queue is looked at, by the monotonic clock.
        self._watched: dict[str, float] = {}

    async def read(self) -> list[QueueOverview]:
        """Return what each queue holds that has jobs or controllers."""
        now, names = time.monotonic(), await queue_names(self.nodes, self._keys)
        self._watched = {name: until for name, until in self._watched.items() if until > now}
        found = await read_overviews(self.nodes, self._keys, sorted({*names, *self._watched}))
        used = [queue for queue in found if queue.is_used]
        await self._note([queue.name for queue in used if self._watched.pop(queue.name, -math.inf) > now])
        await self._forget([queue.name for queue in found if not queue.is_used and queue.name in names])
        return used

    async def _note(self, names: list[str]) -> None:
        if names:
            await self.nodes.read("SADD", queues_key(self._keys), *names)

    async def _forget(self, names: list[str]) -> None:
        if names:
            # Before it is done: what is cancelled here may have been done, too.
            self._watched.update(dict.fromkeys(names, time.monotonic() + WATCH_SECONDS))
            # Who may not forget them reads them again and again.
            with suppress(MissingRightsError, ReadOnlyAccessError):
                await self.nodes.read("SREM", queues_key(self._keys), *names)
