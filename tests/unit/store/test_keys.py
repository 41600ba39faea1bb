"""Key names: one slot per partition, no two things under one name."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from ci_common.models import JobStatus
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.keys import Keys, backlog_member, listing_member, member_job_id, members_of_waiting

ids = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=20)


@pytest.mark.parametrize("prefix", ["", "a b", "ü", "a{b}", "a:b", "*"])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    """A prefix that would disturb patterns or hash tags raises and shows itself."""
    with pytest.raises(ConfigurationError, match="prefix"):
        Keys(prefix)


@given(job_id=ids, user_id=ids, partitions=st.sampled_from([1, 64]))
def test_all_keys_of_a_job_share_a_slot(job_id: str, user_id: str, partitions: int) -> None:
    """One script may write all of a job's keys, on a cluster too."""
    keys = Keys("ci", partitions).job(job_id)
    names = [keys.hash, keys.stream, keys.calls, keys.log_index, keys.ids, *keys.listings(user_id, JobStatus.QUEUED)]
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert len(set(names)) == len(names)


@given(first=ids, second=ids)
def test_two_jobs_share_no_key(first: str, second: str) -> None:
    """Whatever stands in ids, colons too, no key of one job is a key of another."""
    one, other = Keys("ci").job(first), Keys("ci").job(second)
    own = {one.hash, one.stream, one.calls, one.log_index}
    assert first == second or not own & {other.hash, other.stream, other.calls, other.log_index}


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


def test_ids_spread_over_partitions() -> None:
    """A partition is the CRC32 of the id modulo the count, for ever."""
    assert Keys("ci", 64).job("a").tag == "{ci:3}"
    assert Keys("ci", 64).job("job-1").tag == Keys("ci", 64).job("job-1").tag
    assert len({Keys("ci", 64).job(f"job-{number}").tag for number in range(1000)}) == 64
    assert listing_member(datetime(1, 1, 1, tzinfo=UTC), "j") == "0000000000000000:j"
