"""Look at partitions as one of several controllers: cheaply at many, and at fewer the more controllers there are."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes, server_of
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.outlook import Slices

#: How many partitions are looked at together.
LOOKED_TOGETHER = 16
#: One that wasn't counted again for this many polls is gone.
COUNTED_POLLS = 3.0
#: How soon it is counted again after that failed.
AWAY_SECONDS = 30.0
#: How long a question to one of several partitions may take: others have jobs, too.
ASK_SECONDS = 2.0


class ShareCall(NamedTuple):
    """What `share.lua` is called with."""

    #: Sessions, by until when they count.
    sharing: Key
    session: str
    #: For how long it counts; 0: no longer.
    share_ms: int


SHARE = load_script(__package__, "share", call=ShareCall, constants={"SHARING_TTL_MS": 86_400_000})


async def share(nodes: Nodes, keys: Keys, queue: str, session: str, share_ms: int) -> int:
    """Count a controller's session among those that share a queue's partitions; return how many they are. StoreError.

    The partition of the queue's name, as if that were a job's id, has the count.
    """
    call = ShareCall(keys.job(queue).queue(queue).sharing, session, share_ms)
    return int(await nodes.run(SHARE, *SHARE.order(call)))


class Watch:
    """Looks at partitions for one controller, and counts it among those that do."""

    def __init__(
        self,
        nodes: Nodes,
        keys: Keys,
        session: str,
        share_seconds: float,
        slices: Mapping[str, Slices],
        reporting: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """Take each queue's slices; a session counts for so long. `reporting` deals with errors about a queue."""
        self._nodes = nodes
        self._keys = keys
        self._session = session
        self._share_ms = int(share_seconds * 1000)
        self._slices = slices
        self._reporting = reporting

    async def promising(self, partitions: Sequence[QueueKeys]) -> list[QueueKeys]:
        """Return those of some partitions in which jobs wait or run; without those that don't answer in time.

        One round trip to each server.
        """
        groups: dict[Node | None, list[QueueKeys]] = {}
        for partition in partitions:
            groups.setdefault(server_of(self._nodes, partition.tag), []).append(partition)
        found = await asyncio.gather(*map(self._promising_on_one_server, groups.values()))
        return [partition for its in found for partition in its]

    async def count(self, polls: float) -> None:
        """Count the controllers that share the partitions of each queue, unless that was done in the last polls."""
        now = asyncio.get_running_loop().time()
        for queue, slices in self._slices.items():
            if slices.is_uncounted(now, polls):
                # Should there be no answer, the last count holds for some time.
                slices.count(slices.controllers, now + AWAY_SECONDS)
                with self._reporting(queue):
                    slices.count(await self._share(queue, self._share_ms), now)

    async def leave(self) -> None:
        """Count no longer; StoreError, TimeoutError."""
        for queue, slices in self._slices.items():
            if slices.is_counted:
                await self._share(queue, 0)

    async def _share(self, queue: str, share_ms: int) -> int:
        async with asyncio.timeout(ASK_SECONDS):
            return await share(self._nodes, self._keys, queue, self._session, share_ms)

    async def _promising_on_one_server(self, partitions: Sequence[QueueKeys]) -> list[QueueKeys]:
        counts: list[int] = []
        with self._reporting(partitions[0].name):
            async with asyncio.timeout(ASK_SECONDS):
                counts = await self._nodes.read_many([("EXISTS", its.backlog, its.leases) for its in partitions])
        return [partition for partition, count in zip(partitions, counts, strict=False) if count]
