"""Which partitions controllers look at, and how soon each of them is seen by somebody."""

import heapq
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.keys import QueueKeys
from ci_eventstore.queues.outlook import FOLLOWING, SEEN_SECONDS, Outlook, Places, Slices, looks_per_second
from ci_eventstore.queues.watch import COUNTED_POLLS

POLL = 2.0


def partitions_of(count: int, queue: str = "q") -> list[QueueKeys]:
    return [QueueKeys(queue, f"{{ci:{number}}}") for number in range(count)]


@pytest.mark.parametrize(
    ("partitions", "controllers", "each"),
    [
        (1, 1, 0.5),
        (2, 1, 0.5),
        (64, 1, 12.8),
        (64, 5, 2.56),
        (64, 25, 0.512),
        (64, 50, 0.5),
        (64, 200, 0.5),
        (256, 1, 51.2),
        (256, 50, 1.024),
        # Before anybody has counted.
        (64, 0, 12.8),
    ],
)
def test_each_looks_at_its_share(partitions: int, controllers: int, each: float) -> None:
    """At one partition in each poll at least."""
    assert looks_per_second(partitions, controllers, SEEN_SECONDS, POLL) == pytest.approx(each)


@given(partitions=st.integers(1, 256), controllers=st.integers(1, 200))
def test_together_they_look_no_more_than_partitions_and_controllers_ask_for(partitions: int, controllers: int) -> None:
    """The sum of both, never their product; and often enough that each partition is seen every five seconds."""
    together = controllers * looks_per_second(partitions, controllers, SEEN_SECONDS, POLL)
    assert partitions / SEEN_SECONDS - 1e-9 <= together <= partitions / SEEN_SECONDS + controllers / POLL


class Crowd:
    """Controllers that poll as real ones do, each counting those that have polled lately."""

    def __init__(self, partitions: Sequence[QueueKeys], chance: random.Random) -> None:
        self.chance = chance
        self.partitions = partitions
        self.there: dict[int, Slices] = {}
        #: When each polls next, and when each will be counted no longer: in order.
        self.polls: list[tuple[float, int]] = []
        self.counted: dict[int, float] = {}
        self.seen_at: dict[QueueKeys, float] = dict.fromkeys(partitions, 0.0)
        #: How long partitions were seen by nobody.
        self.gaps: list[float] = []
        self.looks = 0
        self.now = 0.0

    def come(self, name: int) -> None:
        order = self.chance.sample(list(self.partitions), len(self.partitions))
        self.there[name] = Slices(order, SEEN_SECONDS, POLL)
        heapq.heappush(self.polls, (self.now + self.chance.uniform(0, POLL), name))

    def go(self, name: int) -> None:
        """Go without a word."""
        del self.there[name]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.polls[0][0] <= end:
            self.now, name = heapq.heappop(self.polls)
            if name in self.there:
                self.poll(self.there[name], name)
                heapq.heappush(self.polls, (self.now + POLL * self.chance.uniform(0.5, 1.0), name))
        self.now = end

    def poll(self, slices: Slices, name: int) -> None:
        for partition in slices.take(self.now):
            self.gaps.append(self.now - self.seen_at[partition])
            self.seen_at[partition] = self.now
            self.looks += 1
        if slices.is_uncounted(self.now, 1.0):
            self.counted.pop(name, None)
            self.counted[name] = self.now + COUNTED_POLLS * POLL
            while self.counted[first := next(iter(self.counted))] <= self.now:
                del self.counted[first]
            slices.count(len(self.counted), self.now)


@pytest.mark.parametrize(
    ("partitions", "controllers"),
    [(1, 1), (2, 1), (8, 1), (64, 1), (256, 1), (8, 5), (64, 3), (64, 50), (256, 50), (1, 200), (64, 200)],
)
def test_somebody_sees_each_partition_in_time(partitions: int, controllers: int) -> None:
    """Every five seconds in the mean, and hardly ever as late as after a minute; the cost is a sum."""
    crowd = Crowd(partitions_of(partitions), random.Random(7))
    for name in range(controllers):
        crowd.come(name)
    crowd.run(20)
    crowd.gaps.clear()
    crowd.looks, began_at = 0, crowd.now
    crowd.run(100 if controllers < 100 else 20)
    late = max(crowd.now - seen_at for seen_at in crowd.seen_at.values())
    assert sum(crowd.gaps) / len(crowd.gaps) <= SEEN_SECONDS * 1.1
    assert max(*crowd.gaps, late) <= 60
    if partitions > 1:
        assert crowd.looks / (crowd.now - began_at) <= 1.1 * (partitions / SEEN_SECONDS + controllers / POLL)


def test_controllers_come_and_go() -> None:
    """The one that is left when all others die at once takes over within five polls; no partition waits for long."""
    crowd, partitions = Crowd(partitions_of(64), random.Random(3)), 64
    crowd.come(0)
    for name in range(1, 50):
        crowd.come(name)
        crowd.run(0.5)
    crowd.run(30)
    for name in range(1, 50):
        crowd.go(name)
    died_at = crowd.now
    crowd.run(5 * POLL)
    crowd.looks = 0
    crowd.run(SEEN_SECONDS * 2)
    assert crowd.looks >= partitions
    crowd.run(SEEN_SECONDS)
    assert min(crowd.seen_at.values()) > died_at


@pytest.mark.parametrize("partitions", [2, 64, 256])
def test_one_that_is_mistaken_sees_all_partitions_all_the_same(partitions: int) -> None:
    """It believes in others that aren't there: then it takes as many polls as there are partitions."""
    names = partitions_of(partitions)
    slices, seen, now = Slices(names, SEEN_SECONDS, POLL), set[QueueKeys](), 0.0
    slices.take(now)
    while now < POLL * (partitions + 1):
        slices.count(1000, now)
        now += POLL * 0.75
        found = slices.take(now)
        assert len(found) <= 1
        seen.update(found)
    assert seen == set(names)


def test_a_single_partition_is_always_due() -> None:
    """However soon it is asked for again; nobody counts who shares it."""
    [partition] = partitions_of(1)
    slices = Slices([partition], SEEN_SECONDS, POLL)
    assert [slices.take(0.0), slices.take(0.0)] == [[partition], [partition]]
    assert not slices.is_uncounted(1e9, 0.5)


def test_no_more_is_due_than_there_is() -> None:
    """After a long job, or a clock that jumps: all partitions, each once; none after one that is set back."""
    names = partitions_of(8)
    slices = Slices(names, SEEN_SECONDS, POLL)
    assert slices.take(0.0) == []
    assert sorted(slices.take(1e9)) == names
    assert slices.take(0.0) == []
    slices.count(2, 5.0)
    assert [slices.is_uncounted(now, 0.5) for now in (5.0, 6.0)] == [False, True]


def test_a_short_lease_is_looked_for_sooner() -> None:
    """Each look moves the clock of leases by half of the shortest one at most."""
    names = partitions_of(10)
    outlook = Outlook(names, 2.0, 100.0)
    outlook.hear(names)
    outlook.take(0.0, names[0])
    assert [len(outlook.take(now, names[0]).due) + 1 for now in (0.5, 0.51)] == [10, 1]


def test_what_nobody_hears_is_looked_at_each_time() -> None:
    """Until its messages are heard; once more then, since jobs may have come before."""
    names = partitions_of(4)
    outlook = Outlook(names, 30.0, POLL)
    for _ in range(2):
        assert sorted(outlook.take(0.0, names[0]).hinted) == names[1:]
    outlook.hear(names[:3])
    assert sorted(outlook.take(0.0, names[0]).hinted) == names[1:]
    assert outlook.take_hint(names[0])
    assert outlook.take(0.0, names[0]).hinted == names[3:]
    outlook.hear(names[3:])
    assert [outlook.take(0.0, names[0]) for _ in range(2)] == [Places(names[3:], []), Places([], [])]


def test_hints_stay_until_somebody_looks() -> None:
    """That of the home, which is asked last, stays by itself; a hint that comes later stays as well."""
    names = partitions_of(4)
    outlook = Outlook(names, 30.0, POLL)
    outlook.hear(names)
    outlook.take(0.0, names[0])
    outlook.take_hint(names[0])
    assert outlook.take(0.0, names[0]) == Places([], [])
    outlook.hinted.update([names[0], names[1]])
    assert outlook.take(0.0, names[0]).hinted == [names[1]]
    outlook.hinted.update([names[1]])
    assert (outlook.take_hint(names[0]), outlook.take_hint(names[0])) == (True, False)
    assert outlook.hinted
    assert outlook.take(0.0, names[0]).hinted == [names[1]]


def test_queues_have_slices_of_their_own() -> None:
    """One queue's controllers are others than another's."""
    names = [*partitions_of(4, "a"), *partitions_of(4, "b")]
    outlook = Outlook(names, 30.0, POLL)
    outlook.hear(names)
    outlook.take(0.0, names[0])
    outlook.slices["a"].count(1000, 0.0)
    due = outlook.take(SEEN_SECONDS, names[0]).due
    assert [sum(partition.name == queue for partition in due) for queue in "ab"] in ([1, 4], [2, 4])


def test_few_of_many_follow_a_message() -> None:
    """About eight, however many there are; all of them while there are no more."""
    for controllers in (1, FOLLOWING, 50, 200):
        slices = Slices(partitions_of(64), SEEN_SECONDS, POLL)
        slices.count(controllers, 0.0)
        chances = [number / controllers for number in range(controllers)]
        assert sum(map(slices.is_followed, chances)) == min(controllers, FOLLOWING)
