"""What a controller knows of its offer, happening by happening."""

import pytest

from ci_eventstore.keys import QueueKeys
from ci_eventstore.queues.offers import (
    KNOWN_CLAIMS,
    Abandoned,
    Answered,
    Asked,
    Happening,
    OfferState,
    Told,
    after,
)

HERE, THERE = QueueKeys("q", "{ci:0}"), QueueKeys("q", "{ci:1}")


def all_of(*happenings: Happening) -> OfferState:
    state = OfferState()
    for what in happenings:
        state = after(state, what)
    return state


@pytest.mark.parametrize(
    ("happenings", "place", "total", "newest"),
    [
        ([], None, 0, ""),
        ([Asked(HERE, "s-1")], HERE, 0, ""),
        ([Asked(HERE, "s-1"), Answered(HERE, "", is_made=True)], HERE, 0, ""),
        ([Asked(HERE, "s-1"), Answered(HERE, "", is_made=False)], None, 0, ""),
        ([Asked(HERE, "s-1"), Abandoned()], None, 0, ""),
        ([Asked(HERE, "s-1"), Answered(HERE, "", is_made=True), Told(HERE, "s-1", "t")], None, 1, "t"),
        # The message is lost: the answer to the next question has it.
        ([Asked(HERE, "s-1"), Asked(HERE, "s-2"), Answered(HERE, "t", is_made=False)], None, 1, "t"),
        # The message comes before the answer that it came after, or long after it.
        ([Asked(HERE, "s-1"), Told(HERE, "s-1", "t"), Answered(HERE, "", is_made=True)], None, 1, "t"),
        (
            [Asked(HERE, "s-1"), Asked(HERE, "s-2"), Answered(HERE, "t", is_made=False), Told(HERE, "s-1", "t")],
            None,
            1,
            "t",
        ),
        # The answer that made the offer comes after the message, and knows the job before: that isn't the newest.
        (
            [
                Told(HERE, "s-1", "t"),
                Asked(HERE, "s-2"),
                Told(HERE, "s-2", "u"),
                Answered(HERE, "t", is_made=True),
            ],
            None,
            2,
            "u",
        ),
        # One of an earlier offer says nothing of the one that stands.
        ([Asked(HERE, "s-1"), Asked(THERE, "s-2"), Told(HERE, "s-1", "t")], THERE, 1, "t"),
        # The store has lost its last moments, and knows an earlier one.
        ([Told(HERE, "s-1", "t"), Told(HERE, "s-2", "u"), Answered(HERE, "t", is_made=True)], None, 2, "t"),
        ([Told(HERE, "s-1", "t"), Told(THERE, "s-2", "u")], None, 2, "t"),
    ],
)
def test_where_it_stands_and_what_it_has_brought(
    happenings: list[Happening], place: QueueKeys | None, total: int, newest: str
) -> None:
    """Each job counts once, however often it is told of; an offer stands nowhere once it has brought one."""
    state = all_of(*happenings)
    assert (state.place, state.total, state.newest(HERE)) == (place, total, newest)


def test_only_the_last_claims_are_known() -> None:
    """A message that is older than those is news; other partitions have their own."""
    state = all_of(*(Told(HERE, f"s-{number}", f"t{number}") for number in range(KNOWN_CLAIMS + 1)))
    assert [number for number in range(KNOWN_CLAIMS + 1) if state.is_news(HERE, f"t{number}")] == [0]
    assert state.is_news(THERE, "t1")
    assert not state.is_news(HERE, "")
