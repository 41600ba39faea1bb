"""What a server must be, and which URLs there are."""

import pytest

from ci_eventstore.connection.deployments import from_client, from_url
from ci_eventstore.errors import ConfigurationError, UnsuitableServerError
from ci_eventstore.requirements import check_server, may_lose_writes

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
        ({"maxmemory_policy": "volatile-lru"}, "volatile-lru.*noeviction"),
        ({"redis_mode": "cluster"}, r"redis\+cluster://"),
        ({"redis_mode": "", "server_mode": "cluster"}, r"redis\+cluster://"),
        ({"redis_mode": "sentinel"}, r"redis\+sentinel://HOST:PORT/NAME"),
        ({"role": "slave"}, "replica"),
    ],
)
def test_an_unsuitable_server_is_refused(info: dict[str, str], says: str) -> None:
    """A server that could lose jobs is refused, with what is wrong and what to do."""
    with pytest.raises(UnsuitableServerError, match=says):
        check_server({**GOOD, **info})


def test_the_kind_of_server_is_that_of_the_url() -> None:
    """A cluster's nodes are taken for those of a cluster, and a single server isn't."""
    check_server({**GOOD, "redis_mode": "cluster"}, kind="cluster")
    check_server({**GOOD, "redis_mode": "standalone"}, kind="sentinel")
    with pytest.raises(UnsuitableServerError, match="redis://HOST:PORT"):
        check_server(GOOD, kind="cluster")


def test_a_primary_that_doesnt_need_its_replicas_may_lose_writes() -> None:
    """It counts good replicas if it needs some; what says nothing of its role isn't judged."""
    assert may_lose_writes({"role": "master", "connected_slaves": "2"})
    assert not may_lose_writes({"role": "master", "min_slaves_good_slaves": "0"})
    assert not may_lose_writes({"role": "slave"})
    assert not may_lose_writes({})


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
