"""When a certificate expires, read from its bytes."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ci_eventstore.connection.certificates import client_certificate, expiry_of, is_on_this_machine
from ci_eventstore.connection.deployments import from_url

UNTIL = datetime(2031, 5, 7, 12, 30, 15, tzinfo=UTC)


def der(tag: int, *parts: bytes) -> bytes:
    """Return a piece of DER."""
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
    return bytes([tag]) + length + content


def certificate(until: bytes, *, has_version: bool = True, issuer: bytes = b"x") -> bytes:
    """Return the frame of a certificate that holds until then."""
    version = der(0xA0, der(0x02, b"\x02")) if has_version else b""
    validity = der(0x30, der(0x17, b"240101000000Z"), until)
    signed = der(0x30, version, der(0x02, b"\x01"), der(0x30, b""), der(0x30, issuer), validity, der(0x30, b"subject"))
    return der(0x30, signed, der(0x30, b""), der(0x03, b"signature"))


@pytest.mark.parametrize(
    "data",
    [
        certificate(der(0x17, b"310507123015Z")),
        certificate(der(0x18, b"20310507123015Z")),
        certificate(der(0x17, b"310507123015Z"), has_version=False),
        certificate(der(0x17, b"310507123015Z"), issuer=b"x" * 300),
    ],
)
def test_the_end_is_read(data: bytes) -> None:
    """In both forms of a time, with and without a version, and after a long name."""
    assert expiry_of(data) == UNTIL


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"garbage that is no certificate", certificate(der(0x17, b"soon")), certificate(der(0x02, b"1"))],
)
def test_what_is_no_certificate_has_no_end(data: bytes) -> None:
    """Nothing is raised for bytes that nobody understands."""
    assert expiry_of(data) is None


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_certificate_that_was_cut_off_has_no_end(cut: int) -> None:
    """Wherever it ends."""
    data = certificate(der(0x17, b"310507123015Z"))
    assert expiry_of(data[:-cut]) is None


def test_a_real_certificate(tmp_path: Path) -> None:
    """That of a client, from the file that the URL names, where its key stands before it."""
    pem = tmp_path / "client.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=ci", "-days", "30", "-keyout", str(pem), "-out", str(tmp_path / "only.pem")]
    subprocess.run([*command, *names], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "only.pem").read_text())
    deployment = from_url(f"rediss://db.example?ssl_certfile={pem}&ssl_keyfile={pem}")
    data = client_certificate(deployment)
    assert data is not None
    until = expiry_of(data)
    assert until is not None
    assert timedelta(days=29) < until - datetime.now(UTC) < timedelta(days=31)
    assert client_certificate(from_url("rediss://db.example")) is None


@pytest.mark.parametrize(
    ("url", "is_near"),
    [
        ("unix:///run/redis", True),
        ("redis://localhost", True),
        ("redis://127.0.0.1", True),
        ("redis://[::1]", True),
        ("redis://10.0.0.1", False),
        ("redis+cluster://127.0.0.1:7000,10.0.0.1:7000", False),
        ("redis+sentinel://127.0.0.1:7000,[::1]:7000/ci", True),
        ("redis://db.example", False),
    ],
)
def test_what_stays_on_this_machine(url: str, is_near: bool) -> None:
    """Sockets and loopback addresses do."""
    assert is_on_this_machine(from_url(url)) is is_near
