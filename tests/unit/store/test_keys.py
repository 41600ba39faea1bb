"""Key names: one slot per partition, no two things under one name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from ci_common.models import JobStatus
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.keys import Keys

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


def test_ids_spread_over_partitions() -> None:
    """A partition is the CRC32 of the id modulo the count, for ever."""
    assert Keys("ci", 64).job("a").tag == "{ci:3}"
    assert Keys("ci", 64).job("job-1").tag == Keys("ci", 64).job("job-1").tag
    assert len({Keys("ci", 64).job(f"job-{number}").tag for number in range(1000)}) == 64
