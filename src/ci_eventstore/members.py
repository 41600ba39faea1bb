"""Members of listings and backlogs, and of the ended: they sort by time, and name a job. Pure."""

from datetime import UTC, datetime, timedelta

from ci_common.models import as_utc

_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Digits that sort by their values, as bytes do.
_DIGITS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
#: Digits of a sort key: a member of a listing in which an id of 16 characters follows fits into 64 bytes of a server.
SORT_KEY_LENGTH = 10


def listing_member(created_at: datetime, job_id: str) -> str:
    """Return a job's member in the listings; members sort by creation, then by id."""
    return f"{sort_key(created_at)}:{job_id}"


def sort_key(time: datetime) -> str:
    """Return a time so that texts sort by it: ten digits of microseconds since year 1, in base 64."""
    return sort_key_of((as_utc(time) - _YEAR_ONE) // _MICROSECOND)


def sort_key_of(microseconds: int) -> str:
    """Return the sort key of so many microseconds since year 1."""
    high, middle = _PAIRS[microseconds >> 48] + _PAIRS[microseconds >> 36 & 4095], _PAIRS[microseconds >> 24 & 4095]
    return high + middle + _PAIRS[microseconds >> 12 & 4095] + _PAIRS[microseconds & 4095]


def backlog_member(user_id: str | None, created_at: datetime, job_id: str) -> str:
    """Return a waiting job's member in its queue's backlog, which sorts by user, then by creation."""
    return f"{user_id or ''}\0{sort_key(created_at)}\0{job_id}"


def members_of_waiting(user_id: str | None, created_at: datetime, job_id: str) -> tuple[str, str]:
    """Return a new job's members in the listings and in the backlog; the sort key of both is made once."""
    key = sort_key(created_at)
    return f"{key}:{job_id}", f"{user_id or ''}\0{key}\0{job_id}"


def read_backlog_member(text: str) -> tuple[str, str, str]:
    """Return the user, "" for none, the sort key and the job id of a backlog's member."""
    user_id, _, rest = text.partition("\0")
    key, _, job_id = rest.rpartition("\0")
    return user_id, key, job_id


def member_time(member: str) -> datetime:
    """Return the time in a member; of a backlog's, what comes after the user. ValueError, OverflowError."""
    if member[SORT_KEY_LENGTH : SORT_KEY_LENGTH + 1] not in (":", "\0"):
        raise ValueError(f"{member!r} is no member")
    microseconds = 0
    for digit in member[:SORT_KEY_LENGTH]:
        microseconds = microseconds * len(_DIGITS) + _DIGITS.index(digit)
    return _YEAR_ONE + microseconds * _MICROSECOND


def member_job_id(member: str) -> str:
    """Return the job id in a listing's member."""
    return member[SORT_KEY_LENGTH + 1 :]
