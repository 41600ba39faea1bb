"""Where the store runs: taken from a URL, from the environment, or from a ready client."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from redis import RedisError
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from ci_eventstore.connection.addresses import (
    SENTINEL_CREDENTIALS,
    HostPort,
    Place,
    read_address,
    scheme_of,
    shown_host,
)
from ci_eventstore.connection.tls import why_unusable
from ci_eventstore.embedded import EmbeddedConnection, EmbeddedServer
from ci_eventstore.errors import ConfigurationError

URL_VARIABLE = "CI_EVENTSTORE_URL"
#: Names a file that holds the URL.
URL_FILE_VARIABLE = "CI_EVENTSTORE_URL_FILE"
#: Tells a command which job it is.
JOB_VARIABLE = "CI_EVENTSTORE_JOB_ID"
_DESCRIPTOR = re.compile(r"/dev/fd/([0-9]+)")


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Deployment:
    """How connections are made: to one server, to the one that Sentinels name, or to the nodes of a cluster."""

    #: Without a password; for messages.
    name: str
    connection_class: type[Any]
    #: Of a cluster's nodes and of Sentinels' server, all but `host` and `port`; see `at`.
    connection_options: Mapping[str, Any] = field(repr=False)
    #: Called when the last connection was closed.
    release: Callable[[], None] = _nothing
    kind: Place = "server"
    #: Those of the URL, in its order: the server's, the Sentinels', or those of some nodes. None for a socket.
    addresses: tuple[HostPort, ...] = ()
    #: By what name Sentinels know the server.
    service: str = ""
    #: How connections to the Sentinels themselves are made, at each of `addresses`.
    sentinels: "Deployment | None" = None

    def at(self, host: str, port: int) -> "Deployment":
        """Return the deployment of one server among these, a node of a cluster for example."""
        options = {**self.connection_options, "host": host, "port": port}
        name = f"{shown_host(host, port)} of {self.name}"
        return Deployment(name, self.connection_class, options, addresses=((host, port),))


def default_url() -> str:
    """Return the URL from the environment, or an embedded server under the user's data directory.

    ConfigurationError if the file with the URL can't be read, and in a controller's job, which isn't told of the store:
    an embedded one would be another.
    """
    url = given_url()
    if url:
        return url
    if os.environ.get(JOB_VARIABLE):
        raise ConfigurationError(
            f"this is a controller's job, which isn't told where the store is: say so by --url, or let the controller "
            f"do so by --pass-env {URL_VARIABLE}"
        )
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return f"embedded://{data}/ci-eventstore"


def given_url() -> str | None:
    """Return the URL in `CI_EVENTSTORE_URL`, else that in the file `CI_EVENTSTORE_URL_FILE`; ConfigurationError."""
    url, path = os.environ.get(URL_VARIABLE), os.environ.get(URL_FILE_VARIABLE)
    if url:
        return url
    return read_url(Path(path)) if path else None


def read_url(path: Path) -> str:
    """Return the URL in a file; ConfigurationError.

    `/dev/fd/N` is read through that descriptor: to open it anew would need the right to open its file.
    """
    try:
        inherited = _DESCRIPTOR.fullmatch(str(path))
        text = (_read_inherited(int(inherited[1])) if inherited else path.read_text()).strip()
    except OSError as error:
        raise ConfigurationError(f"the file with the URL can't be read: {path}: {error.strerror}") from None
    except ValueError:
        text = ""
    if len(text.split()) != 1:
        raise ConfigurationError(f"the file {path} must hold one URL and nothing else")
    return text


def _read_inherited(descriptor: int) -> str:
    with open(os.dup(descriptor), encoding="utf-8") as file:
        if file.seekable():
            file.seek(0)
        return file.read()


def from_url(url: str) -> Deployment:
    """Read a URL: `embedded://PATH`, `unix://PATH`, or one of `redis://`, `rediss://`, `valkey://`, `valkeys://`.

    Each of these four may have `+sentinel` or `+cluster` before its colon. ConfigurationError says what is wrong.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL must be text, not {type(url).__name__}")
    if scheme_of(url) == "embedded":
        return _embedded(url)
    address = read_address(url)
    options = dict(address.options)
    connection_class: Any = options.pop("connection_class", Connection)
    # They have users of their own, if any; those of the server mean nothing to them.
    given = {known: options.pop(name) for name, known in SENTINEL_CREDENTIALS.items() if name in options}
    try:
        if given and address.kind != "sentinel":
            raise TypeError
        tried = {name: value for name, value in options.items() if name != "max_connections"}
        # It would look up its version in the file system, for a millisecond.
        connection_class(**{"driver_info": None, **tried})
    except (TypeError, ValueError, RedisError):
        # redis-py's words would repeat the faulty part, which may be secret.
        raise ConfigurationError(f"the URL {address.shown} has an option that can't be used") from None
    unusable = why_unusable(options) if issubclass(connection_class, SSLConnection) else None
    if unusable:
        raise ConfigurationError(f"the URL {address.shown} can't be used: {unusable}")
    its: dict[str, Any] = {"kind": address.kind, "addresses": address.hosts, "service": address.service}
    if address.kind == "sentinel":
        common = {name: value for name, value in options.items() if name not in ("username", "password", "db")}
        its["sentinels"] = Deployment(address.shown, connection_class, common | given)
    return Deployment(address.shown, connection_class, options, **its)


def from_client(client: object) -> Deployment:
    """Use a client's address and credentials; its connections stay its own. ConfigurationError if it is no client.

    It may be that of a server, of a cluster, or of the primary that Sentinels name.
    """
    if isinstance(client, RedisCluster):
        return _of_cluster(client)
    if not isinstance(client, Redis):
        raise ConfigurationError(
            f"a redis.asyncio.Redis or RedisCluster client is needed, or a URL by from_url(), not {client!r}"
        )
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return _of_sentinel(pool)
    options = dict(pool.connection_kwargs)
    hosts = ((options["host"], options.get("port", 6379)),) if "host" in options else ()
    return Deployment("the given client's server", pool.connection_class, options, addresses=hosts)


#: Options of connections that belong to the client they were given to, or to one host of several.
_OF_THE_CLIENT = frozenset(
    {"connection_class", "connection_pool", "response_callbacks", "himport_registry", "redis_connect_func"}
    | {"host", "port", "orig_host_address", "maint_notifications_pool_handler"}
    | {"oss_cluster_maint_notifications_handler"}
)


def _of_cluster(client: RedisCluster) -> Deployment:
    options = {name: value for name, value in client.connection_kwargs.items() if name not in _OF_THE_CLIENT}
    nodes = tuple((node.host, int(node.port)) for node in client.startup_nodes)
    connection_class = client.connection_kwargs["connection_class"]
    return Deployment("the given client's cluster", connection_class, options, kind="cluster", addresses=nodes)


def _of_sentinel(pool: SentinelConnectionPool) -> Deployment:
    if not pool.is_master:
        raise ConfigurationError("the given client's Sentinels lead it to replicas: use master_for(), not slave_for()")
    pools = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    name = "the given client's server"
    options, its = (
        {name: value for name, value in given.items() if name not in _OF_THE_CLIENT}
        for given in (pool.connection_kwargs, pools[0].connection_kwargs)
    )
    # redis-py's classes for Sentinels find the server by themselves, as `Sentinels` does here.
    is_tls = issubclass(pool.connection_class, SSLConnection)
    return Deployment(
        name,
        SSLConnection if is_tls else Connection,
        options,
        kind="sentinel",
        addresses=tuple((each.connection_kwargs["host"], int(each.connection_kwargs["port"])) for each in pools),
        service=pool.service_name,
        sentinels=Deployment(name, pools[0].connection_class, its),
    )


def _embedded(url: str) -> Deployment:
    path = unquote(url.removeprefix("embedded://"))
    if not path:
        raise ConfigurationError("the URL embedded:// needs the directory for its data: embedded:///var/lib/ci")
    server = EmbeddedServer(Path(path).expanduser().absolute())
    options = {"path": str(server.socket_path), "server": server}
    return Deployment(url, EmbeddedConnection, options, server.release)
