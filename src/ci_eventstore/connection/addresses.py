"""Read URLs: what stands at each scheme, which part of a URL is what, and what of it may be shown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis.asyncio.connection import parse_url

from ci_eventstore.errors import ConfigurationError

#: What stands at an address: one server, Sentinels that know where it is, or some nodes of a cluster.
Place = Literal["server", "sentinel", "cluster"]
#: A host and a port.
HostPort = tuple[str, int]

#: Schemes of one server, and those that redis-py knows them by; the last letter s asks for TLS.
_SERVERS = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_PLACES: Mapping[str, Place] = {"": "server", "+sentinel": "sentinel", "+cluster": "cluster"}
_ALL: dict[str, tuple[str, Place]] = {
    f"{name}{added}": (known, place) for name, known in _SERVERS.items() for added, place in _PLACES.items()
}
#: All schemes: redis-py's, and what stands there.
SCHEMES: Mapping[str, tuple[str, Place]] = MappingProxyType({"unix": ("unix", "server"), **_ALL})
PORTS: Mapping[Place, int] = MappingProxyType({"server": 6379, "sentinel": 26379, "cluster": 6379})
#: Options whose values are shown; all others may be secret.
_SHOWN_OPTIONS = frozenset(
    {"db", "protocol", "socket_timeout", "socket_connect_timeout", "ssl_cert_reqs", "ssl_check_hostname"}
)
#: What the Sentinels want to know, which may differ from what the server wants to.
SENTINEL_CREDENTIALS = MappingProxyType({"sentinel_username": "username", "sentinel_password": "password"})
_CREDENTIALS = frozenset({"username", "password", *SENTINEL_CREDENTIALS})
_SCHEME = re.compile(r"[a-z]{2,10}(?:\+[a-z]{2,10})?(?=://)")
#: A host and perhaps a port, between two commas.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
#: As Sentinel allows them, then perhaps the number of a database.
_SERVICE = re.compile(r"/([A-Za-z0-9._-]+)(/\d+)?")
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that was read."""

    #: The URL with secrets hidden.
    shown: str
    kind: Place
    #: In the URL's order; none for a Unix socket.
    hosts: tuple[HostPort, ...]
    #: As redis-py's connections take them, `connection_class` among them; `host` and `port` of a server only.
    options: Mapping[str, Any] = field(repr=False)
    #: By what name Sentinels know the server.
    service: str = ""


def read_address(url: str) -> Address:
    """Read a URL of one of SCHEMES; ConfigurationError, which shows nothing of a URL that can't be read."""
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        begins = f", not {scheme}://" if scheme else ""
        raise ConfigurationError(
            "the URL must begin with embedded://, redis://, rediss://, valkey://, valkeys:// or unix://, or with "
            f"redis+sentinel:// or redis+cluster:// and their like{begins}"
        )
    address = _parse(url, scheme)
    if isinstance(address, str):
        raise ConfigurationError(
            f"the URL {scheme}://… can't be read: {address}. Write /, ?, #, @, [ and ] in user and password as "
            "%2F, %3F, %23, %40, %5B and %5D"
        )
    return address


def scheme_of(url: str) -> str:
    """Return a URL's scheme; "" if it has none."""
    found = _SCHEME.match(url)
    return found.group() if found else ""


def shown_host(host: str, port: int | None) -> str:
    """Return a host and a port as a URL has them."""
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def _parse(url: str, scheme: str) -> Address | str:
    """Return the address, or why it can't be read."""
    try:
        read = _read_server if SCHEMES[scheme][1] == "server" else _read_many
        return read(url.removeprefix(f"{scheme}://"), scheme)
    except (ValueError, TypeError):
        # Their words would repeat the faulty part, which may be secret.
        return "its parts can't be told apart, or an option has a value that doesn't fit"


def _read_server(rest: str, scheme: str) -> Address | str:
    known, kind = SCHEMES[scheme]
    parts = urlsplit(f"{scheme}://{rest}")
    why = _why_unreadable(parts)
    if why:
        return why
    options = parse_url(f"{known}://{rest}")
    hosts = () if scheme == "unix" else ((options.get("host", "localhost"), options.get("port", PORTS[kind])),)
    host = "" if scheme == "unix" else shown_host(parts.hostname or "", parts.port)
    return Address(_shown(scheme, parts, host), kind, hosts, MappingProxyType(dict(options)))


def _read_many(rest: str, scheme: str) -> Address | str:
    """Read a URL that has several hosts: as if it were that of one server, whose place they take."""
    known, kind = SCHEMES[scheme]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    who, at, listed = authority.rpartition("@")
    hosts = [_HOST.fullmatch(part) for part in listed.split(",")]
    if not all(found and (found[2] is None or 0 < int(found[2]) < 65536) for found in hosts):
        return "its hosts can't be told apart: write them as host:port,host:port"
    pairs = [(found[1].strip("[]").lower(), int(found[2] or 0)) for found in hosts if found]
    parts = urlsplit(f"{known}://{who}{at}host{rest.removeprefix(authority)}")
    service, path = "", parts.path.rstrip("/")
    if kind == "sentinel":
        found = _SERVICE.fullmatch(path)
        if found is None:
            return f"it must say by what name the Sentinels know the server, as {scheme}://host/mymaster does"
        service, path = found[1], found[2] or ""
    parts = parts._replace(path=path)
    why = _why_unreadable(parts)
    if why:
        return why
    options = dict(parse_url(parts.geturl()))
    if kind == "cluster" and options.get("db"):
        return "a cluster has no database but 0"
    del options["host"]
    places = ",".join(shown_host(*pair) for pair in pairs)
    shown = _shown(scheme, parts, f"{places}/{service}" if service else places)
    with_ports = tuple((host, port or PORTS[kind]) for host, port in pairs)
    return Address(shown, kind, with_ports, MappingProxyType(options), service)


def _why_unreadable(parts: SplitResult) -> str | None:
    """Return why it isn't certain which part of a URL is what; ValueError for a port that is no number."""
    is_unix = parts.scheme == "unix"
    if parts.fragment or "#" in parts.geturl():
        return "it has a #"
    if _has_odd_options(parts) or (not is_unix and _may_hide_a_host(parts)):
        return "it has an @ after its host"
    if is_unix:
        has_host = bool(parts.netloc.rpartition("@")[2])
        return "it has a host" if has_host else None if parts.path.strip("/") else "it has no path"
    if "," in parts.netloc.rpartition("@")[2]:
        return "it has several hosts, so its scheme must say +sentinel or +cluster"
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        return "its path is no database number"
    return None if parts.port is None or parts.port > 0 else "it has the port 0"


def _has_odd_options(parts: SplitResult) -> bool:
    """Tell whether what was taken for options may be the end of a password with a ?, and what comes after it."""
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    return any("@" in f"{name}{value}" for name, value in pairs if name not in _CREDENTIALS)


def _may_hide_a_host(parts: SplitResult) -> bool:
    """Tell whether what was taken for host and path may be the beginning of a password with a / or a ?."""
    return "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc)


def _shown(scheme: str, parts: SplitResult, place: str) -> str:
    # The user too: who leaves out the colon may mean the password.
    who = f"{HIDDEN}@" if "@" in parts.netloc else ""
    options = "&".join(
        f"{name}={value if name in _SHOWN_OPTIONS else HIDDEN}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name in _SHOWN_OPTIONS or name in _CREDENTIALS
    )
    # A password that isn't percent-encoded may go on where a path seems to begin.
    path = "/" + parts.path.rpartition("@/")[2] if who and "@/" in parts.path else parts.path
    return f"{scheme}://{who}{place}{path}{'?' if options else ''}{options}"
