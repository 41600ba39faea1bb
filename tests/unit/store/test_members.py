"""Members of listings and backlogs: they sort as the jobs' times and ids do, and come back as these."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_common.models import as_utc
from ci_eventstore.members import (
    backlog_member,
    listing_member,
    member_job_id,
    member_time,
    members_of_waiting,
    read_backlog_member,
    sort_key,
)
from ci_eventstore.upgrade.conversions import renamed_listed, renamed_waiting

ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
times = st.datetimes() | st.datetimes(timezones=st.just(UTC))


@given(first=st.tuples(st.datetimes(), ids), second=st.tuples(st.datetimes(), ids))
def test_listings_sort_by_creation_then_id(first: tuple[datetime, str], second: tuple[datetime, str]) -> None:
    """Members compare, byte by byte, as creation time and id do."""
    members = [listing_member(*first).encode(), listing_member(*second).encode()]
    assert (members[0] < members[1]) == ((first[0], first[1].encode()) < (second[0], second[1].encode()))
    assert member_job_id(listing_member(*first)) == first[1]


@given(user=st.none() | ids, time=st.datetimes(), job_id=ids)
def test_a_new_job_has_the_members_of_every_other(user: str | None, time: datetime, job_id: str) -> None:
    """Both are made at once, and are what each is made as alone."""
    assert members_of_waiting(user, time, job_id) == (listing_member(time, job_id), backlog_member(user, time, job_id))


@given(times, ids)
def test_a_member_tells_its_time_and_its_job(time: datetime, job_id: str) -> None:
    """To the microsecond, in UTC."""
    member = listing_member(time, job_id)
    assert (member_time(member), member_job_id(member)) == (as_utc(time), job_id)
    assert read_backlog_member(backlog_member("ada", time, job_id)) == ("ada", sort_key(time), job_id)


@pytest.mark.parametrize(
    ("time", "key"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "----------"),
        (datetime(1, 1, 1, 0, 0, 0, 63, tzinfo=UTC), "---------z"),
        (datetime(1, 1, 1, 0, 0, 0, 64, tzinfo=UTC), "--------0-"),
        (datetime(2026, 11, 27, 10, 30, tzinfo=UTC), "2Y7Iu8yzc-"),
        (datetime.max.replace(tzinfo=UTC), "GW0-jAblzz"),
    ],
)
def test_sort_keys_are_the_same_for_ever(time: datetime, key: str) -> None:
    """Ten digits of base 64, from the first moment to the last."""
    assert sort_key(time) == key


@pytest.mark.parametrize("member", ["", "j", "!!!!!!!!!!:j", "zzzzzzzzzz:j", "00e321179039f240:j", "2Y7Iu8yzc-"])
def test_what_is_no_member_has_no_time(member: str) -> None:
    """A digit that there isn't, a time after the last one, a member of before."""
    with pytest.raises((ValueError, OverflowError)):
        member_time(member)


@pytest.mark.parametrize("key", ["1000000000000000", "ffffffffffffffff", "00e321179039f24", "00e321179039f24x"])
def test_what_was_no_member_before_is_left_alone(key: str) -> None:
    """A time that is later than any, and what is no number: `verify` names it."""
    assert (renamed_listed(f"{key}:j"), renamed_waiting(f"ada\0{key}\0j")) == (None, None)


@given(st.none() | ids, times, ids)
def test_earlier_members_get_the_sort_keys_of_today(user_id: str | None, time: datetime, job_id: str) -> None:
    """Those of versions 1, 2 and 3, with hex digits; what has its new name keeps it."""
    micro = (as_utc(time) - datetime(1, 1, 1, tzinfo=UTC)).days * 86_400_000_000
    micro += (as_utc(time) - datetime(1, 1, 1, tzinfo=UTC)).seconds * 1_000_000 + as_utc(time).microsecond
    listed, waiting = listing_member(time, job_id), backlog_member(user_id, time, job_id)
    assert renamed_listed(f"{micro:016x}:{job_id}") == listed
    assert {renamed_waiting(f"{user_id or ''}\0{micro:016x}{separator}{job_id}") for separator in ":\0"} == {waiting}
    assert (renamed_listed(listed), renamed_waiting(waiting)) == (None, None)
