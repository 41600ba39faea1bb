"""URLs of servers: which there are, and that no message has what is secret in one."""

import re
import socket
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import Sentinel

from ci_eventstore.connection.connections import client_of
from ci_eventstore.connection.deployments import from_client, from_url, read_url
from ci_eventstore.errors import ConfigurationError
from tests.examples import examples

#: Letters that stand nowhere else in the URLs, and what has a meaning in one.
SECRETS = st.text("XYZ:/?#[]@%&= ", min_size=2, max_size=12).filter(lambda text: bool(re.search("[XYZ]{2}", text)))
#: Where a secret may stand.
PLACES = (
    "redis://:{}@h/0",
    "redis://user:{}@h:6379/0",
    "redis://{}@h",
    "rediss://user:{}@h",
    "valkey://user:{}@h/1",
    "valkeys://:{}@[::1]:6380/1",
    "redis://h/?password={}",
    "redis://h/0?db=1&password={}",
    "redis://h/?username=u&password={}",
    "redis://h/?passwrd={}",
    "redis://h?{}",
    "redis://user:{}@h?protocol=nine",
    "redis://user:{}@h?colour=red",
    "redis://user:{}@h/x",
    "redis+cluster://user:{}@h1,h2:7001",
    "redis+cluster://{}@h1,h2",
    "valkeys+cluster://h1,h2/?password={}",
    "redis+cluster://user:{}@h1,h2/1",
    "redis+cluster://user:{}@h1,,h2",
    "redis+sentinel://user:{}@h1,[::1]:26380/mymaster/2",
    "rediss+sentinel://h1,h2/mymaster?sentinel_username=u&sentinel_password={}",
    "rediss+sentinel://h1,h2/mymaster?sentinel_passwrd={}",
    "valkey+sentinel://user:{}@h1,h2",
    "redis://h?sentinel_password={}",
    "redis://user:{}@h:port/0",
    "unix:///x.sock?password={}",
    "unix://user:{}@/x.sock?db=1",
    "unix:///x.sock?passwrd={}",
    "http://user:{}@h",
    "user:{}@h:6379",
)


def said_of(url: str) -> str:
    """Return all that is ever shown of a URL."""
    try:
        deployment = from_url(url)
    except ConfigurationError as error:
        return "".join(traceback.format_exception_only(error)) + (
            "" if error.__suppress_context__ else repr(error.__context__)
        )
    return f"{deployment.name} {deployment!r}"


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=examples(160))
@given(secret=SECRETS)
@example(secret="hunXYer2")
@example(secret="hunt[XYer2")
@example(secret="hunt/XY?er2@")
@example(secret="XY&password=XY")
@example(secret="@/XY")
@example(secret="@/XY/Z@/")
@example(secret="@/XY?")
@example(secret="@XY/XY?")
@example(secret="@XY,XY?XY=")
def test_a_password_is_never_shown(place: str, secret: str) -> None:
    """Wherever it stands, as it is or percent-encoded, and whether the URL can be read or not."""
    for written in (secret, quote(secret, safe="")):
        assert not re.search("[XYZ]{2}|hunt", said_of(place.format(written)), re.IGNORECASE)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("redis://user:secret@h:1/0", "redis://***@h:1/0"),
        ("redis://:secret@h", "redis://***@h"),
        ("redis://secret@h", "redis://***@h"),
        ("valkeys://[::1]:6380/2?password=x&socket_timeout=3", "valkeys://[::1]:6380/2?password=***&socket_timeout=3"),
        ("unix:///x.sock?password=hunter2&db=3", "unix:///x.sock?password=***&db=3"),
        ("unix://user:pw@/tmp/a@b.sock", "unix://***@/tmp/a@b.sock"),
        ("redis+cluster://:pw@h1,h2:7001,[::1]:7002", "redis+cluster://***@h1,h2:7001,[::1]:7002"),
        ("valkeys+cluster://h1?ssl_ciphers=x&ssl_check_hostname=no", "valkeys+cluster://h1?ssl_check_hostname=no"),
        ("redis+sentinel://u:pw@h1,h2:1/my-master", "redis+sentinel://***@h1,h2:1/my-master"),
        ("redis+sentinel://h1/m.1/3?sentinel_password=x", "redis+sentinel://h1/m.1/3?sentinel_password=***"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    """Enough to know the server by, with stars for what may be secret."""
    assert from_url(url).name == shown


@pytest.mark.parametrize(("url", "same"), [("valkey://u:p@h:1/2", "redis"), ("valkeys://u:p@h:1/2", "rediss")])
def test_valkeys_schemes(url: str, same: str) -> None:
    """`valkey://` is as `redis://`, `valkeys://` as `rediss://`."""
    deployment = from_url(url)
    other = from_url(same + url[url.index("://") :])
    assert deployment.connection_options == other.connection_options
    assert deployment.connection_class is other.connection_class
    assert client_of(deployment, 1).connection_pool.make_connection().host == "h"


def test_a_percent_encoded_password_is_decoded() -> None:
    """What the message asks for works."""
    assert from_url("redis://:a%2Fb%3Fc%23d%40e%5Bf%5D@h").connection_options["password"] == "a/b?c#d@e[f]"
    with pytest.raises(ConfigurationError, match="%23"):
        from_url("redis://:a#b@h")


@pytest.mark.parametrize(
    ("url", "kind", "addresses", "service"),
    [
        ("redis://h", "server", [("h", 6379)], ""),
        ("redis://u:p@[::1]:1/2", "server", [("::1", 1)], ""),
        ("unix:///x.sock", "server", [], ""),
        ("redis+cluster://h1", "cluster", [("h1", 6379)], ""),
        ("redis+cluster://u:a,b@H1:1,10.0.0.2,[::1]:3/0", "cluster", [("h1", 1), ("10.0.0.2", 6379), ("::1", 3)], ""),
        ("valkey+cluster://h1,h2?db=0&socket_timeout=3", "cluster", [("h1", 6379), ("h2", 6379)], ""),
        (
            "redis+sentinel://u:p@h1:1,[::1],h3/mymaster",
            "sentinel",
            [("h1", 1), ("::1", 26379), ("h3", 26379)],
            "mymaster",
        ),
        ("valkeys+sentinel://h1/a.b_c-d/3/", "sentinel", [("h1", 26379)], "a.b_c-d"),
    ],
)
def test_places_of_a_store(url: str, kind: str, addresses: list[tuple[str, int]], service: str) -> None:
    """A URL says what stands at its addresses, which keep their order."""
    deployment = from_url(url)
    assert (deployment.kind, list(deployment.addresses), deployment.service) == (kind, addresses, service)
    if kind != "server":
        assert not deployment.connection_options.keys() & {"host", "port"}
    assert (deployment.sentinels is not None) == (kind == "sentinel")


def test_a_node_has_all_options_of_its_cluster() -> None:
    """Of a cluster's URL, each node gets user, password and TLS; its name tells which of them it is."""
    cluster = from_url("valkeys+cluster://u:pw@h1,h2?socket_timeout=3")
    node = cluster.at("::1", 7001)
    assert (node.kind, node.addresses) == ("server", (("::1", 7001),))
    assert node.name == "[::1]:7001 of valkeys+cluster://***@h1,h2?socket_timeout=3"
    connection = client_of(node, 1).connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.port) == ("::1", 7001)
    assert (connection.username, connection.password) == ("u", "pw")


def test_sentinels_have_credentials_of_their_own() -> None:
    """A server's user and database mean nothing to its Sentinels; TLS and time-outs are for both."""
    deployment = from_url("rediss+sentinel://u:pw@h/m/2?sentinel_password=other&socket_connect_timeout=3")
    assert deployment.connection_options == {"username": "u", "password": "pw", "db": 2, "socket_connect_timeout": 3.0}
    assert deployment.sentinels is not None
    assert deployment.sentinels.connection_options == {"password": "other", "socket_connect_timeout": 3.0}
    assert deployment.connection_class is deployment.sentinels.connection_class is SSLConnection


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://h1,h2", "several hosts"),
        ("redis+cluster://h1,h2/1", "no database but 0"),
        ("redis+cluster://h1?db=3", "no database but 0"),
        ("redis+cluster://h1/name", "no database number"),
        ("redis+cluster://", "hosts can't be told apart"),
        ("redis+cluster://h1,,h2", "hosts can't be told apart"),
        ("redis+cluster://h1:0", "hosts can't be told apart"),
        ("redis+cluster://h1:65536", "hosts can't be told apart"),
        ("redis+cluster://[::1", "hosts can't be told apart"),
        ("redis+cluster://::1", "hosts can't be told apart"),
        ("redis+cluster://h1?sentinel_username=u", "option that can't be used"),
        ("redis+cluster://h1?colour=red", "option that can't be used"),
        ("redis+sentinel://h1,h2", "by what name the Sentinels know"),
        ("redis+sentinel://h1,h2/", "by what name the Sentinels know"),
        ("redis+sentinel://h1/a/b", "by what name the Sentinels know"),
        ("redis+sentinel://h1/a b", "by what name the Sentinels know"),
        ("redis+sentinel://u:p/w@h1/m", "hosts can't be told apart"),
        ("redis+sentinel:///m", "hosts can't be told apart"),
        ("redis+unix:///x.sock", "must begin with"),
        ("http+cluster://h", r"not http\+cluster://"),
    ],
)
def test_urls_of_several_hosts_that_cant_be_read(url: str, why: str) -> None:
    """Each is refused with the reason."""
    with pytest.raises(ConfigurationError, match=why):
        from_url(url)


def test_ready_clients_of_sentinels() -> None:
    """The client that `master_for` returns leads to the same Sentinels, each side with its own options."""
    sentinel = Sentinel([("h1", 1), ("h2", 2)], sentinel_kwargs={"password": "theirs"}, password="its", ssl=True)
    deployment = from_client(sentinel.master_for("m", db=3))
    assert (deployment.kind, deployment.service) == ("sentinel", "m")
    assert set(deployment.addresses) == {("h1", 1), ("h2", 2)}
    connection = client_of(deployment.at("h", 5), 1).connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.password, connection.db) == ("h", "its", 3)
    assert deployment.sentinels is not None
    connection = client_of(deployment.sentinels.at("h2", 2), 1).connection_pool.make_connection()
    assert not isinstance(connection, SSLConnection)
    assert (connection.host, connection.port, connection.password) == ("h2", 2, "theirs")
    with pytest.raises(ConfigurationError, match="master_for"):
        from_client(sentinel.slave_for("m"))


def test_ready_clients_of_clusters() -> None:
    """Its nodes and options are taken over, none of its own parts."""
    given = RedisCluster(startup_nodes=[ClusterNode("h1", 1), ClusterNode("h2", 2)], password="pw", ssl=True)
    deployment = from_client(given)
    assert (deployment.kind, deployment.addresses) == ("cluster", (("h1", 1), ("h2", 2)))
    connection = client_of(deployment.at("h3", 3), 1).connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.port, connection.password) == ("h3", 3, "pw")
    assert "pw" not in repr(deployment)


def test_a_file_that_was_opened_by_another_is_read_through_its_descriptor(tmp_path: Path) -> None:
    """It can't be opened anew, as by a user without rights; a file is read from its beginning, as often as asked."""
    (tmp_path / "url").write_text("redis://server\n")
    with (tmp_path / "url").open() as file:
        path = Path(f"/dev/fd/{file.fileno()}")
        assert [read_url(path), read_url(path)] == ["redis://server"] * 2
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"redis://server")
        theirs.shutdown(socket.SHUT_WR)
        assert read_url(Path(f"/dev/fd/{ours.fileno()}")) == "redis://server"
    with pytest.raises(ConfigurationError, match="can't be read: /dev/fd/1048576: Bad file descriptor"):
        read_url(Path("/dev/fd/1048576"))
