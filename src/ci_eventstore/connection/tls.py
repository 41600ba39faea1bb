"""TLS: the files it needs, one context for many connections, and what is said when it fails."""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from redis import exceptions
from redis.asyncio.connection import SSLConnection

#: Options that name files: of an authority, of a client's certificate, and of its key.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: What to do about a certificate that isn't accepted, by OpenSSL's number of the reason.
_ADVICE: Mapping[int, str] = MappingProxyType(
    {
        9: "the clock of one side is wrong, or it was made for later",
        10: "renew it",
        18: "name the file of its authority by ssl_ca_certs",
        19: "name the file of its authority by ssl_ca_certs",
        20: "name the file of its authority by ssl_ca_certs",
        62: "use a name that it has",
        64: "use a name that it has, or give it this address (subjectAltName)",
    }
)
#: OpenSSL's reasons for what isn't TLS.
_PLAIN = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
#: And for what a server says of the client's certificate.
_REFUSED = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    }
)

_ASKS = "perhaps it asks for a client's certificate, ssl_certfile and ssl_keyfile"


def why_unusable(options: Mapping[str, Any]) -> str | None:
    """Return why the files that the options of a connection name can't be used; None if they can."""
    for name in FILES:
        if options.get(name):
            try:
                Path(options[name]).read_bytes()
            except OSError as error:
                return f"the file that {name} names can't be read: {error.strerror}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority, certificate, key = map(options.get, FILES)
    try:
        if authority:
            context.load_verify_locations(authority)
    except ssl.SSLError:
        return "the file that ssl_ca_certs names holds no certificate"
    try:
        if certificate:
            # An encrypted key without a password must not ask for one at the terminal.
            context.load_cert_chain(certificate, key, lambda: options.get("ssl_password") or "")
    except ssl.SSLError:
        return "ssl_certfile and ssl_keyfile name no certificate with its key"
    return "ssl_keyfile needs ssl_certfile" if key and not certificate else None


class SharedContext:
    """The TLS context of one pool's connections: to make one takes 60 ms. A file that was replaced is read again."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._files = [Path(options[name]) for name in FILES if options.get(name)]
        self._context: ssl.SSLContext | None = None
        self._read_from: list[int] = []

    def give_to(self, connection: Any) -> None:
        """Have a connection use it, if that speaks TLS; redis-py's ConnectionError if a file can't be read."""
        if not isinstance(connection, SSLConnection):
            return
        try:
            versions = [file.stat().st_mtime_ns for file in self._files]
            if self._context is None or versions != self._read_from:
                self._context, self._read_from = connection.ssl_context.get(), versions
        except OSError as error:
            raise exceptions.ConnectionError(f"a certificate or key can't be read: {error.strerror}") from error
        connection.ssl_context.context = self._context


def is_lasting(error: BaseException) -> bool:
    """Tell whether one side of a connection won't have the other, also the next time. Pure."""
    return any(_sentence_of(cause) is not None for cause in _chain(error))


def sentence_of(error: BaseException) -> str | None:
    """Return what is wrong, and what to do; None if it isn't TLS, or passes by itself. Pure."""
    return next(filter(None, map(_sentence_of, _chain(error))), None)


def _sentence_of(error: BaseException) -> str | None:
    # OpenSSL doesn't give each error all of its attributes.
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", "").rstrip(".") or "verification failed"
        advice = _ADVICE.get(getattr(error, "verify_code", 0))
        return f"the server's certificate isn't accepted, {why}{': ' if advice else ''}{advice or ''}"
    if reason in _PLAIN:
        return "it doesn't speak TLS: begin the URL with redis or valkey, without the s"
    if reason in _REFUSED:
        words = str(reason).partition("ALERT_")[2].replace("_", " ").lower()
        return f"it doesn't accept the client's certificate, {words}: give it another one by ssl_certfile, ssl_keyfile"
    return None


def add_hint(connection: Any, error: exceptions.RedisError) -> None:
    """Say what else a failed attempt to connect may mean: where TLS is on one side only, the other side may be silent.

    A server that asks for a client's certificate may close the connection before it says so.
    """
    is_closed = any(isinstance(cause, ConnectionError) for cause in _chain(error)) or "closed by server" in str(error)
    is_refused = any(isinstance(cause, ConnectionRefusedError) for cause in _chain(error))
    if isinstance(connection, SSLConnection):
        if isinstance(error, exceptions.TimeoutError):
            hint = "perhaps it doesn't speak TLS"
        elif is_closed and not is_refused:
            hint = "perhaps it doesn't accept the client's certificate" if connection.certfile else _ASKS
        else:
            return
    elif is_closed and not is_refused and hasattr(connection, "host"):
        hint = "perhaps it speaks TLS, which rediss:// and valkeys:// do"
    else:
        return
    error.args = (f"{error} ({hint})",)


def _chain(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__
