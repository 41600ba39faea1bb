"""Where a controller looks for jobs, and how often: pure rules.

A message names each partition in which a job begins to wait, and controllers ask there. But messages get lost, and none
tells that a lease has run out. So the controllers of a queue also look without one: each at a slice of the partitions,
the smaller the more controllers there are. Together they look as often as one of them would alone.
"""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ci_eventstore.keys import QueueKeys

#: How often somebody looks at a partition, in expectation; of leases that are short, this part.
SEEN_SECONDS = 5.0
LEASE_PART = 0.25
#: About so many controllers follow a message at once; the others only remember it.
FOLLOWING = 8


def looks_per_second(partitions: int, controllers: int, seen_seconds: float, poll_seconds: float) -> float:
    """Return how many partitions each of some controllers looks at, so that together they see each one in time.

    One in each poll at least: so a controller that is mistaken about the others still sees all partitions in time.
    """
    return max(partitions / (max(controllers, 1) * seen_seconds), 1 / poll_seconds)


class Slices:
    """The partitions of one queue, slice by slice, in an order that is one controller's own."""

    def __init__(self, partitions: Sequence[QueueKeys], seen_seconds: float, poll_seconds: float) -> None:
        """Take them in an order that no other controller has."""
        self._partitions = list(partitions)
        #: How often somebody is to see each partition.
        self.seen_seconds = seen_seconds
        self._poll_seconds = poll_seconds
        self._next = 0
        self._looked_at: float | None = None
        #: How many partitions are due.
        self._due = 0.0
        #: How many controllers share the partitions, and when they were counted.
        self.controllers = 1
        self._counted_at: float | None = None

    def take(self, now: float) -> list[QueueKeys]:
        """Return the partitions that are due, which the next call won't return; a single one always is."""
        size = len(self._partitions)
        if size == 1:
            return self._partitions
        passed = 0.0 if self._looked_at is None else max(now - self._looked_at, 0.0)
        self._looked_at = now
        pace = looks_per_second(size, self.controllers, self.seen_seconds, self._poll_seconds)
        self._due = min(self._due + passed * pace, size)
        count = int(self._due)
        self._due -= count
        found = [self._partitions[place % size] for place in range(self._next, self._next + count)]
        self._next = (self._next + count) % size
        return found

    @property
    def is_counted(self) -> bool:
        """Whether this controller has ever been counted among those that share the partitions."""
        return self._counted_at is not None

    def is_uncounted(self, now: float, polls: float) -> bool:
        """Return whether its controllers were last counted that many polls ago; a single partition has no count."""
        if len(self._partitions) == 1:
            return False
        return self._counted_at is None or now - self._counted_at >= polls * self._poll_seconds

    def is_followed(self, chance: float) -> bool:
        """Return whether this controller follows a message at once; `chance` is a random number from 0 to 1."""
        return chance * self.controllers < FOLLOWING

    def count(self, controllers: int, now: float) -> None:
        """Note how many controllers share the partitions, this one among them."""
        self.controllers, self._counted_at = controllers, now


class Places(NamedTuple):
    """Where to look now."""

    #: Jobs may have come there.
    hinted: list[QueueKeys]
    #: Nobody may have looked there for a while.
    due: list[QueueKeys]


class Outlook:
    """Where jobs may wait for one controller, as far as it knows."""

    def __init__(self, partitions: Iterable[QueueKeys], lease_seconds: float, poll_seconds: float) -> None:
        """Know of all partitions of some queues only that jobs may wait there."""
        queues: dict[str, list[QueueKeys]] = {}
        for partition in partitions:
            queues.setdefault(partition.name, []).append(partition)
        seen_seconds = min(SEEN_SECONDS, lease_seconds * LEASE_PART)
        self.slices = {
            name: Slices(random.sample(its, len(its)), seen_seconds, poll_seconds) for name, its in queues.items()
        }
        #: Partitions whose messages this controller doesn't hear yet: it looks there each time.
        self._unheard = {partition for its in queues.values() for partition in its}
        #: Where jobs may wait: a message said so, or there were more than were wanted.
        self.hinted = set[QueueKeys]()

    def hear(self, partitions: Sequence[QueueKeys]) -> None:
        """Note that from now on messages name jobs of these partitions; what came before has to be looked for."""
        self._unheard.difference_update(partitions)
        self.hinted.update(partitions)

    def take(self, now: float, home: QueueKeys) -> Places:
        """Return where to look now, but for `home`, in random order; hints that come later than this stay."""
        hinted = (self.hinted | self._unheard) - {home}
        self.hinted &= {home}
        due = {partition for slices in self.slices.values() for partition in slices.take(now)} - hinted - {home}
        return Places(*(random.sample(list(places), len(places)) for places in (hinted, due)))

    def take_hint(self, partition: QueueKeys) -> bool:
        """Return whether jobs may wait in a partition that is asked next; hints that come later than this stay."""
        is_hinted = partition in self.hinted
        self.hinted.discard(partition)
        return is_hinted
