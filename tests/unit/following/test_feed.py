"""The live end of a job, as its followers share it."""

from datetime import UTC, datetime

import pytest

from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode, mark_of
from ci_eventstore.events.reader import Extent
from ci_eventstore.events.records import Fact, FactType, Place
from ci_eventstore.following.feed import KEPT_BYTES, KEPT_ENTRIES, Cursor, Feed, Message
from ci_eventstore.following.records import Followed, Notice, NoticeType, Page, in_order
from ci_eventstore.keys import Keys
from ci_eventstore.segments.payloads import unpacked

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def log(position: int, text: str = "") -> tuple[Place, bytes]:
    return Place(position), encode(JobEvent("log", text or f"{position}", timestamp=NOW))


def complete(position: int) -> tuple[Place, bytes]:
    return Place(position), encode(JobEvent("complete", success=True, timestamp=NOW))


def fact(position: int, part: int) -> tuple[Place, bytes]:
    return Place(position, part), encode(Fact(FactType.STARTED, NOW))


LAST = fact(4, 1)
MARK = mark_of(LAST[1])


def a_feed(head: Place) -> Feed:
    feed = Feed(Keys("ci").job("j"), Extent(0, None, 0), is_live=True)
    feed.begin(head, LAST[1])
    return feed


def shown(page: Page | None) -> list[object]:
    """Return a page in short: an event's id, a fact's or notice's type."""
    return [] if page is None else [in_short(record) for record in page.records]


def in_short(record: Followed) -> object:
    return record.id if isinstance(record, JobEvent) else str(record.type)


@pytest.mark.parametrize(
    ("payloads", "expected"),
    [
        ([log(5), fact(5, 1), log(6)], [5, "started", 6]),
        ([fact(4, 2), fact(4, 3), log(5)], ["started", "started", 5]),
        ([log(6)], ["gap", 6]),
        ([log(5), log(9), log(10)], [5, "gap", 9, 10]),
        ([fact(5, 1), log(6)], ["gap", "started", 6]),
    ],
)
def test_a_missing_position_is_told(payloads: list[tuple[Place, bytes]], expected: list[object]) -> None:
    """Behind event 4; facts have places of their own behind an event, and leave no holes."""
    assert [in_short(entry.record) for entry in in_order(payloads, 4)] == expected


def test_a_gap_says_where_it_goes_on() -> None:
    """The notice has the position of the next event that there is."""
    assert in_order([log(9)], 4)[0].record == Notice(NoticeType.GAP, 9)
    assert in_order([fact(9, 1), log(10)], 4)[0].record == Notice(NoticeType.GAP, 10)
    assert [entry.record.type for entry in in_order([fact(9, 1), log(10)], 4)] == ["gap", "started", "log"]


@pytest.mark.parametrize(
    ("message", "is_enough", "head"),
    [
        (Message(Place(4, 1), Place(6), [log(5), log(6)]), True, Place(6)),
        (Message(Place(4, 1), Place(6), None), False, Place(4, 1)),
        (Message(Place(5), Place(6), [log(6)]), False, Place(4, 1)),
        (Message(Place(3), Place(4, 1), [log(4), fact(4, 1)]), True, Place(4, 1)),
        (Message(Place(3), Place(4, 1), None), True, Place(4, 1)),
        (Message(Place(2), Place(3), [log(3, "another")]), True, Place(4, 1)),
        (Message(Place(3), Place(5), [log(4), log(5)]), False, Place(4, 1)),
        (Message(Place(4, 1), Place(5), [log(5)], MARK), True, Place(5)),
        (Message(Place(4, 1), Place(5), [log(5)], "0123abcd"), False, Place(4, 1)),
        (Message(Place(4, 1), Place(6), None, MARK), False, Place(4, 1)),
        (Message(Place(3), Place(4, 1), [log(4), (Place(4, 1), b"another")]), False, Place(4, 1)),
    ],
    ids=[
        "the next ones",
        "too big to be carried",
        "one was missed",
        "known already",
        "known already, not carried",
        "long past, whatever it is",
        "known in part",
        "after this entry",
        "after another entry at its place",
        "after this entry, not carried",
        "another entry in the place of the last one",
    ],
)
def test_messages_are_taken_only_in_their_order(message: Message, is_enough: bool, head: Place) -> None:
    """Whatever else comes, the stream has to be read."""
    feed = a_feed(Place(4, 1))
    assert (feed.take(message), feed.head) == (is_enough, head)


def test_followers_are_handed_what_was_shown() -> None:
    """What has come in but wasn't shown waits; those at the same place share a page."""
    feed = a_feed(Place(4))
    feed.extend([log(5), log(6)])
    assert feed.page_behind(Place(4)) is None
    feed.show(1.0)
    feed.extend([log(7)])
    page = feed.page_behind(Place(4))
    assert shown(page) == [5, 6]
    assert feed.page_behind(Place(4)) is page
    assert shown(feed.page_behind(Place(5))) == [6]
    assert shown(feed.page_behind(Place(4))) == [5, 6]
    feed.show(2.0)
    assert shown(feed.page_behind(Place(4))) == [5, 6, 7]


def test_the_end_is_the_last_thing() -> None:
    """Late output isn't for those who followed before the end."""
    feed = a_feed(Place(4))
    feed.extend([log(5), complete(6), log(7)])
    feed.show(1.0)
    page = feed.page_behind(Place(4))
    assert page is not None
    assert (shown(page), page.is_last) == ([5, 6], True)


def test_what_everyone_has_is_let_go() -> None:
    """Only some entries stay that all followers have."""
    feed = a_feed(Place(0))
    cursor = Cursor(Place(0))
    feed.cursors.add(cursor)
    for position in range(1, 1000):
        feed.extend([log(position)])
        feed.show(1.0)
        cursor.place = Place(position)
    assert feed.head.position - feed.base.position <= KEPT_ENTRIES + 1


def test_those_who_read_the_stream_need_nothing_kept() -> None:
    """A follower before the base keeps nothing from being let go."""
    feed = a_feed(Place(100))
    at_the_end, reading = Cursor(Place(100)), Cursor(Place(1))
    feed.cursors |= {at_the_end, reading}
    for position in range(101, 1000):
        feed.extend([log(position)])
        feed.show(1.0)
        at_the_end.place = Place(position)
    assert feed.head.position - feed.base.position <= KEPT_ENTRIES + 1


def test_a_slow_follower_costs_only_so_much() -> None:
    """What is too much to keep is let go; the base says from where on the stream has to be read."""
    feed = a_feed(Place(0))
    feed.cursors.add(Cursor(Place(0)))
    for position in range(1, 1000):
        feed.extend([log(position, secrets_like_text(position))])
        feed.show(1.0)
    assert 0 < feed.head.position - feed.base.position < KEPT_BYTES / 500
    assert shown(feed.page_behind(feed.base)) == list(range(feed.base.position + 1, 1000))


def secrets_like_text(seed: int) -> str:
    """Return a kilobyte that can't be compressed well."""
    return "".join(chr(0x4E00 + (seed * place * 7919) % 20000) for place in range(1, 300))


async def test_waiting_ends_by_news_or_by_time() -> None:
    """And nothing is left of those who went away."""
    feed = a_feed(Place(0))
    assert await feed.wait(0.001) is False
    feed.extend([log(1)])
    assert feed._waiting == {}


def test_the_feed_knows_what_stands_at_its_places() -> None:
    """From its base to its head: this entry, and no other one."""
    feed = a_feed(Place(4, 1))
    feed.extend([log(5), log(6), log(8)])
    assert feed.has(*LAST)
    assert feed.has(*log(5))
    assert feed.has(*log(8))
    assert not feed.has(Place(4, 1), b"another")
    assert not feed.has(*log(5, "another"))
    assert not feed.has(*log(7))
    assert not feed.has(*log(8, "another"))


def test_it_still_knows_its_base_once_entries_are_let_go() -> None:
    """The base moves up to an entry that isn't kept; what it was is."""
    feed = a_feed(Place(4, 1))
    for position in range(5, 100):
        feed.extend([log(position)])
        feed.show(1.0)
    assert feed.base > Place(5)
    assert feed.has(*log(feed.base.position))
    assert not feed.has(*log(feed.base.position, "another"))


@pytest.mark.parametrize(
    ("before", "is_cut", "payload", "follows"),
    [
        (b"this", False, b"this", True),
        (b"another", False, b"this", False),
        (None, False, b"this", False),
        (None, True, b"this", True),
        (b"another", False, None, True),
        (None, False, None, True),
    ],
)
def test_pages_follow_what_was_handed_out(
    before: bytes | None, is_cut: bool, payload: bytes | None, follows: bool
) -> None:
    """An entry that is gone with all before it is no other one; who knows only a position can compare nothing."""
    page = Page((), Place(5))
    page.before, page.is_cut = before, is_cut
    assert page.follows(payload) is follows


def packed(position: int) -> tuple[Place, bytes]:
    """Return an entry whose text is packed by itself."""
    return log(position, f"{position} is long\n" * 100)


def test_an_entry_is_the_same_once_its_log_was_sealed() -> None:
    """Messages and segments may bring one entry, as it was written and unpacked: at head and base, and between."""
    feed = a_feed(Place(4, 1))
    feed.begin(Place(4), packed(4)[1])
    feed.extend([packed(5), packed(6)])
    for position in (4, 5, 6):
        place, payload = packed(position)
        assert payload != unpacked(payload)
        assert feed.has(place, unpacked(payload))
        assert not feed.has(place, unpacked(packed(9)[1]))
    assert feed.take(Message(Place(5), Place(6), [(Place(6), unpacked(packed(6)[1]))], None))
    assert not feed.take(Message(Place(5), Place(6), [(Place(6), unpacked(packed(9)[1]))], None))
    page = Page((), Place(7))
    page.before = unpacked(packed(6)[1])
    assert page.follows(packed(6)[1])
    assert not page.follows(packed(9)[1])


def test_an_unpacked_head_is_known_by_the_mark_of_what_was_written() -> None:
    """Messages name the entry before them by its mark, which scripts compute of the payload in the stream."""
    feed = a_feed(Place(4, 1))
    feed.begin(Place(4), unpacked(packed(4)[1]))
    assert feed.mark == mark_of(packed(4)[1])
    assert feed.take(Message(Place(4), Place(5), [packed(5)], mark_of(packed(4)[1])))
    assert feed.head == Place(5)
