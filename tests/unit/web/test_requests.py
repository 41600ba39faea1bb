"""What requests' headers mean, and what errors are answered with."""

import pytest

from ci_common.errors import JobNotFoundError, RepositoryError
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.web.authentication import is_same_origin
from ci_eventstore.web.errors import WebError, failure_of
from ci_eventstore.web.jobs.submission import job_id_for
from ci_eventstore.web.json_answer import accepts_gzip
from ci_eventstore.web.logs.routes import parse_range
from tests.error_tree import all_errors


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=0-99", (0, 10)),
        ("bytes=9-", (9, 10)),
        ("Bytes = 3 - 5", (3, 6)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_ranges(header: str | None, found: tuple[int, int] | None) -> None:
    """One range of bytes is understood; anything else is as if it weren't there."""
    assert parse_range(header, 10) == found


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=-5", 0)]
)
def test_ranges_of_nothing(header: str, size: int) -> None:
    """What lies behind the end is refused, with the size."""
    with pytest.raises(WebError) as refused:
        parse_range(header, size)
    assert (refused.value.status, (refused.value.headers or {})["Content-Range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*", True),
        ("*, gzip;q=0", False),
        ("identity", False),
    ],
)
def test_who_takes_gzip(header: str | None, accepted: bool) -> None:
    """As `Accept-Encoding` says."""
    assert accepts_gzip(header) == accepted


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://a.example", "a.example", True),
        ("https://A.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://a.example:8000", "a.example:8000", True),
        ("http://a.example:8000", "a.example:9000", False),
        ("http://a.example", "b.example", False),
        ("http://a.example.evil", "a.example", False),
        ("null", "a.example", False),
        ("http://a.example", "", False),
        ("null", "", False),
    ],
)
def test_origins(origin: str, host: str, same: bool) -> None:
    """A page's origin is the host that the request was sent to, its port included."""
    assert is_same_origin({"origin": origin, "host": host}, required=True) == same


def test_a_request_without_an_origin() -> None:
    """It counts as another page's where one is required."""
    assert [is_same_origin({"host": "a"}, required=required) for required in (True, False)] == [False, True]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_answer(kind: type[RepositoryError]) -> None:
    """One of those that are documented."""
    assert failure_of(kind.__new__(kind)).status in {400, 403, 404, 409, 410, 500, 503}


def test_what_concerns_the_server_alone_is_not_told() -> None:
    """Where the store is, is nobody's business; what users can help is told in full."""
    unavailable = failure_of(StoreUnavailableError("redis://10.0.0.1: no answer"))
    assert (unavailable.status, "10.0.0.1" in str(unavailable)) == (503, False)
    assert failure_of(OutcomeUnknownError("append")).code == "outcome_unknown"
    assert str(failure_of(JobNotFoundError("x"))) == "there is no job 'x'"
    assert str(failure_of(ZeroDivisionError("secret"))) == "something is wrong on the server"


def test_an_idempotency_key_stands_for_one_id() -> None:
    """Always the same, and another one for another user or another key."""
    ids = [job_id_for(user, key) for user, key in [("a", "k"), ("b", "k"), ("a", "l"), (None, "k")]]
    assert len(set(ids)) == 4
    assert job_id_for("a", "k") == ids[0]
