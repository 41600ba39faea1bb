"""Where the server runs, chosen by URL alone, or taken from a ready client."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from redis import RedisError
from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from ci_eventstore.connection import urls
from ci_eventstore.embedded import EmbeddedConnection, EmbeddedServer
from ci_eventstore.errors import ConfigurationError

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
    """Return the URL that the environment says, or an embedded server under the user's data directory.

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
    """Return the URL that `CI_EVENTSTORE_URL` or the file `CI_EVENTSTORE_URL_FILE` say; ConfigurationError."""
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
    if urls.scheme_of(url) == "embedded":
        return _embedded(url)
    address = urls.read(url)
    options = dict(address.options)
    connection_class: Any = options.pop("connection_class", Connection)
    try:
        connection_class(**{name: value for name, value in options.items() if name != "max_connections"})
    except (TypeError, ValueError, RedisError):
        # Not with redis-py's words, which repeat what is wrong.
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
