"""Read URLs of servers, and show them without what may be secret. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis.asyncio.connection import parse_url

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

    #: Without what may be secret.
    shown: str
    #: As redis-py's connections take them, `connection_class` among them.
    options: Mapping[str, Any] = field(repr=False)


def read(url: str) -> Address:
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
        # Not with their words, which repeat what is wrong.
        return "its parts can't be told apart, or an option has a value that doesn't fit"


def scheme_of(url: str) -> str:
    """Return what a URL begins with, "" if that is no scheme."""
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
