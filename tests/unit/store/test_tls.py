"""What is said when TLS fails, and when certificates are read again."""

import os
import ssl
import subprocess
from pathlib import Path

import pytest
from redis import exceptions
from redis.asyncio.connection import Connection, SSLConnection

from ci_eventstore.connection.tls import SharedContext, add_hint, is_lasting, sentence_of, why_unusable


def untrusted(code: int, message: str) -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def reasoned(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (untrusted(10, "certificate has expired"), "isn't accepted, certificate has expired: renew it"),
        (untrusted(62, "Hostname mismatch, certificate is not valid for 'h'."), "not valid for 'h': use a name"),
        (untrusted(19, "self-signed certificate in certificate chain"), "ssl_ca_certs"),
        (untrusted(68, "CA signature digest algorithm too weak"), "too weak"),
        (reasoned("WRONG_VERSION_NUMBER"), "doesn't speak TLS"),
        (reasoned("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "client's certificate, certificate required: .*ssl_certfile"),
        (reasoned("TLSV1_ALERT_UNKNOWN_CA"), "client's certificate, unknown ca"),
    ],
)
def test_a_failure_that_lasts_has_a_sentence(cause: ssl.SSLError, says: str) -> None:
    """It says what is wrong and what to do, however deep redis-py has put the reason."""
    error = exceptions.ConnectionError("Error 1 connecting to h:6379.")
    error.__cause__ = RuntimeError("between")
    error.__cause__.__context__ = cause
    assert is_lasting(error)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(sentence_of(error))


@pytest.mark.parametrize(
    "cause", [reasoned("TLSV1_ALERT_INTERNAL_ERROR"), ssl.SSLEOFError(8, "EOF"), OSError(104, "x")]
)
def test_other_failures_may_pass(cause: OSError) -> None:
    """A server that goes away in the middle of a handshake may come back."""
    error = exceptions.ConnectionError("Error 1 connecting to h:6379.")
    error.__cause__ = cause
    assert not is_lasting(error)
    assert sentence_of(error) is None


@pytest.mark.parametrize(
    ("connection", "cause", "hint"),
    [
        (Connection(), ConnectionResetError(), "speaks TLS"),
        (Connection(), ConnectionRefusedError(), ""),
        (Connection(), gone := TimeoutError(), ""),
        (SSLConnection(), ConnectionResetError(), "asks for a client's certificate"),
        (SSLConnection(ssl_certfile="x"), ConnectionResetError(), "doesn't accept the client's certificate"),
        (SSLConnection(), ConnectionRefusedError(), ""),
        (SSLConnection(), gone, "doesn't speak TLS"),
    ],
)
def test_hints_where_a_server_only_closes(connection: Connection, cause: OSError, hint: str) -> None:
    """With TLS on one side only, the other may fall silent or hang up: what that may mean is said as a guess."""
    kind = exceptions.TimeoutError if cause is gone else exceptions.ConnectionError
    error: exceptions.RedisError = kind("it failed")
    error.__cause__ = cause
    add_hint(connection, error)
    assert str(error).startswith("it failed")
    assert (hint in str(error)) if hint else str(error) == "it failed"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a certificate and its key."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate, key = folder / "own.crt", folder / "own.key"
    made = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *made],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_files_are_checked_before_they_are_used(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A file that isn't there, isn't a certificate or doesn't belong to the other is named by its option."""
    certificate, key = map(str, pair)
    empty, missing = tmp_path / "empty", str(tmp_path / "missing")
    empty.touch()
    assert why_unusable({}) is None
    assert why_unusable({"ssl_ca_certs": certificate, "ssl_certfile": certificate, "ssl_keyfile": key}) is None
    for options, says in (
        ({"ssl_ca_certs": missing}, "ssl_ca_certs names can't be read: No such file"),
        ({"ssl_certfile": missing}, "ssl_certfile names can't be read: No such file"),
        ({"ssl_ca_certs": str(empty)}, "ssl_ca_certs names holds no certificate"),
        ({"ssl_certfile": certificate, "ssl_keyfile": certificate}, "no certificate with its key"),
        ({"ssl_certfile": certificate}, "no certificate with its key"),
        ({"ssl_keyfile": key}, "ssl_keyfile needs ssl_certfile"),
    ):
        assert says in (why_unusable(options) or "")


def test_connections_share_a_context_until_a_file_is_replaced(pair: tuple[Path, Path]) -> None:
    """Making one takes longer than all else of a connection; a certificate that was renewed is read for the next."""
    certificate, key = pair
    options = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    shared, contexts = SharedContext(options), list[ssl.SSLContext]()
    for _ in range(3):
        connection = SSLConnection(ssl_certfile=str(certificate), ssl_keyfile=str(key))
        shared.give_to(connection)
        contexts.append(connection.ssl_context.get())
        if len(contexts) == 2:
            os.utime(certificate, (1, 1))
    assert contexts[0] is contexts[1]
    assert contexts[2] is not contexts[1]
