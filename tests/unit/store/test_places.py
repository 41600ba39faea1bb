"""The place of a waiting job among others."""

import pytest

from ci_eventstore.queues.places import Waiting, jobs_before


def waiting(text: str) -> list[Waiting]:
    """Return jobs in the order of their creation: each is its user's letter and a number."""
    return [Waiting(job[0], f"{number:03}", job) for number, job in enumerate(text.split())]


@pytest.mark.parametrize(
    ("queue", "job", "place"),
    [
        ("", "a1", None),
        ("b1", "a1", None),
        ("a1", "a1", 0),
        ("a1 a2 a3", "a3", 2),
        ("b1 a1", "a1", 1),
        ("a1 b1", "a1", 0),
        # One user with many jobs doesn't keep another one waiting for more than a turn.
        ("b1 b2 b3 b4 a1", "a1", 1),
        ("b1 b2 b3 b4 a1", "b4", 4),
        ("a1 a2 b1 c1", "a2", 3),
    ],
)
def test_places(queue: str, job: str, place: int | None) -> None:
    """Users take turns; at the same turn, the older job goes first."""
    assert jobs_before(job, waiting(queue)) == place
    assert jobs_before(job, reversed(waiting(queue))) == place
