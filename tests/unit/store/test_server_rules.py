"""What a server must be, and which URLs there are."""

import pytest

from ci_eventstore.connection.deployments import from_client, from_url
from ci_eventstore.errors import ConfigurationError, UnsuitableServerError
from ci_eventstore.requirements import check_server

GOOD = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "redis_mode": "standalone", "role": "master"}


@pytest.mark.parametrize(
    "info",
    [{}, GOOD, {**GOOD, "redis_version": "8.4.0"}, {**GOOD, "redis_version": "7.2.4", "valkey_version": "9.1.2"}],
)
def test_a_good_server_passes(info: dict[str, str]) -> None:
    """Redis from 7.0 on and Valkey pass; so does a server that says nothing of itself."""
    check_server(info)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"redis_version": "6.2.14"}, "6.2.14.*7.0"),
        ({"maxmemory_policy": "allkeys-lru"}, "allkeys-lru.*noeviction"),
        ({"redis_mode": "cluster"}, "cluster"),
        ({"role": "slave"}, "replica"),
    ],
)
def test_an_unsuitable_server_is_refused(info: dict[str, str], says: str) -> None:
    """A server that could lose jobs is refused, with what is wrong and what to do."""
    with pytest.raises(UnsuitableServerError, match=says):
        check_server({**GOOD, **info})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://localhost:port",
        "embedded://",
        "redis://localhost/x",
        "redis://localhost?colour=red",
    ],
)
def test_a_bad_url_is_refused(url: str) -> None:
    """A URL that leads nowhere raises before anything is sent."""
    with pytest.raises(ConfigurationError):
        from_url(url)


def test_what_is_no_client_is_refused() -> None:
    """A URL given as a client says that from_url is meant."""
    with pytest.raises(ConfigurationError, match="from_url"):
        from_client("redis://localhost")
