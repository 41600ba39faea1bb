"""Where the server runs: read from a URL, which is shown without what may be secret, or taken from a ready client."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis import RedisError
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, parse_url

from ci_eventstore.embedded import EmbeddedConnection, EmbeddedServer
from ci_eventstore.errors import ConfigurationError

#: Schemes, and those that redis-py knows them by.
SCHEMES: Mapping[str, str] = MappingProxyType(
    {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
)
#: Options whose values are shown; all others may be secret.
_SHOWN_OPTIONS = frozenset({"db", "protocol", "socket_timeout", "socket_connect_timeout", "ssl_cert_reqs"})
_CREDENTIALS = frozenset({"username", "password"})
_SCHEME = re.compile(r"[a-z]{2,10}(?=://)")
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that was read."""

    #: The URL with secrets hidden.
    shown: str
    #: As redis-py's connections take them, `connection_class` among them.
    options: Mapping[str, Any] = field(repr=False)


def read_address(url: str) -> Address:
    """Read a URL of one of SCHEMES; ConfigurationError, which shows nothing of a URL that can't be read."""
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        begins = f", not {scheme}://" if scheme else ""
        raise ConfigurationError(
            f"the URL must begin with embedded://, redis://, rediss://, valkey://, valkeys:// or unix://{begins}"
        )
    address = _parse(url, scheme)
    if isinstance(address, str):
        raise ConfigurationError(
            f"the URL {scheme}://… can't be read: {address}. Write /, ?, #, @, [ and ] in user and password as "
            "%2F, %3F, %23, %40, %5B and %5D"
        )
    return address


def _parse(url: str, scheme: str) -> Address | str:
    """Return the address, or why it can't be read."""
    try:
        parts = urlsplit(url)
        why = _why_unreadable(parts)
        return why or Address(_shown(scheme, parts), parse_url(SCHEMES[scheme] + url.removeprefix(scheme)))
    except (ValueError, TypeError):
        # Their words would repeat the faulty part, which may be secret.
        return "its parts can't be told apart, or an option has a value that doesn't fit"


def scheme_of(url: str) -> str:
    """Return a URL's scheme; "" if it has none."""
    found = _SCHEME.match(url)
    return found.group() if found else ""


def _why_unreadable(parts: SplitResult) -> str | None:
    """Return why it isn't certain which part of a URL is what; ValueError for a port that is no number."""
    is_unix = parts.scheme == "unix"
    if parts.fragment or "#" in parts.geturl():
        return "it has a #"
    if not is_unix and _may_hide_a_host(parts):
        return "it has an @ after its host"
    if is_unix:
        has_host = bool(parts.netloc.rpartition("@")[2])
        return "it has a host" if has_host else None if parts.path.strip("/") else "it has no path"
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        return "its path is no database number"
    return None if parts.port is None or parts.port > 0 else "it has the port 0"


def _may_hide_a_host(parts: SplitResult) -> bool:
    """Tell whether what was taken for host and path may be the beginning of a password with a / or a ?."""
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    odd = any("@" in f"{name}{value}" for name, value in pairs if name not in _CREDENTIALS)
    return odd or "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc)


def _shown(scheme: str, parts: SplitResult) -> str:
    # The user too: who leaves out the colon may mean the password.
    who = f"{HIDDEN}@" if "@" in parts.netloc else ""
    host = "" if scheme == "unix" else parts.hostname or ""
    port = f":{parts.port}" if host and parts.port else ""
    options = "&".join(
        f"{name}={value if name in _SHOWN_OPTIONS else HIDDEN}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name in _SHOWN_OPTIONS or name in _CREDENTIALS
    )
    # A password that isn't percent-encoded may go on where a path seems to begin.
    path = "/" + parts.path.rpartition("@/")[2] if who and "@/" in parts.path else parts.path
    place = (f"[{host}]" if ":" in host else host) + port + path
    return f"{scheme}://{who}{place}{'?' if options else ''}{options}"


URL_VARIABLE = "CI_EVENTSTORE_URL"
#: Names a file that holds the URL.
URL_FILE_VARIABLE = "CI_EVENTSTORE_URL_FILE"
#: Tells a command which job it is.
JOB_VARIABLE = "CI_EVENTSTORE_JOB_ID"


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Deployment:
    """How connections to one server are made."""

    #: Without a password; for messages.
    name: str
    connection_class: type[Any]
    connection_options: Mapping[str, Any] = field(repr=False)
    #: Called when the last connection was closed.
    release: Callable[[], None] = _nothing


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
    """Return the URL in a file; ConfigurationError."""
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the file with the URL can't be read: {path}: {error.strerror}") from None
    except ValueError:
        text = ""
    if len(text.split()) != 1:
        raise ConfigurationError(f"the file {path} must hold one URL and nothing else")
    return text


def from_url(url: str) -> Deployment:
    """Read a URL: `embedded://PATH`, `redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://PATH`.

    ConfigurationError says what is wrong.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL must be text, not {type(url).__name__}")
    if scheme_of(url) == "embedded":
        return _embedded(url)
    address = read_address(url)
    options = dict(address.options)
    connection_class: Any = options.pop("connection_class", Connection)
    try:
        connection_class(**{name: value for name, value in options.items() if name != "max_connections"})
    except (TypeError, ValueError, RedisError):
        # redis-py's words would repeat the faulty part, which may be secret.
        raise ConfigurationError(f"the URL {address.shown} has an option that can't be used") from None
    return Deployment(address.shown, connection_class, options)


def from_client(client: object) -> Deployment:
    """Use a client's address and credentials; its connections stay its own. ConfigurationError if it is no client."""
    if not isinstance(client, Redis):
        raise ConfigurationError(f"a redis.asyncio.Redis client is needed, or a URL by from_url(), not {client!r}")
    pool = client.connection_pool
    return Deployment("the given client's server", pool.connection_class, dict(pool.connection_kwargs))


def _embedded(url: str) -> Deployment:
    path = unquote(url.removeprefix("embedded://"))
    if not path:
        raise ConfigurationError("the URL embedded:// needs the directory for its data: embedded:///var/lib/ci")
    server = EmbeddedServer(Path(path).expanduser().absolute())
    options = {"path": str(server.socket_path), "server": server}
    return Deployment(url, EmbeddedConnection, options, server.release)
