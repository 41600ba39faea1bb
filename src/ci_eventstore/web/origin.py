"""Whether a browser's request comes from a page of this server. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_safe(method: str) -> bool:
    """Tell whether a method changes nothing."""
    return method in _SAFE


def is_same_origin(headers: Mapping[str, str], *, required: bool) -> bool:
    """Tell whether a request's `Origin` is the host that it was sent to.

    Browsers send one with all that may change something. Without one, the answer is no if it is `required`.
    """
    origin = headers.get("origin")
    if origin is None:
        return not required
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _DEFAULT_PORTS.get(parts.scheme, "")
    host = headers.get("host", "").lower()
    return bool(host) and host.removesuffix(f":{port}") == parts.netloc.lower().removesuffix(f":{port}")


def is_loopback(host: str) -> bool:
    """Tell whether a `Host` header names the machine that the client is on."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in LOOPBACK
