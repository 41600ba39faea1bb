"""Certificates of encrypted connections, and until when they hold.

The standard library decodes only certificates that it has verified; these are read whatever was verified.
"""

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from ci_eventstore.connection.connections import RedisPy
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.link import Link
from ci_eventstore.connection.outcomes import Kind
from ci_eventstore.connection.way import Target

#: Tags of DER.
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
#: What stands in a certificate before its times: serial number, algorithm, issuer.
_PARTS_BEFORE = 3


async def server_certificate(link: Link) -> bytes | None:
    """Return the certificate that the server shows, in DER; None if the connection isn't encrypted."""

    async def look(_: Target, is_again: bool) -> bytes | None:
        pool = link.commands.connection_pool
        connection = await pool.get_connection()
        try:
            transport = RedisPy.transport_of(connection)
            tls = None if transport is None else transport.get_extra_info("ssl_object")
            return None if tls is None else tls.getpeercert(binary_form=True)
        finally:
            await pool.release(connection)

    return cast(bytes | None, await link.persist(Kind.READ, "TLS", look))


def client_certificate(deployment: Deployment) -> bytes | None:
    """Return the certificate that connections show, in DER; None if they have none, OSError or ValueError."""
    path = deployment.connection_options.get("ssl_certfile")
    if not path:
        return None
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    # The first one is the client's own; others lead from it to an authority. A key may stand before it.
    _, found, after = Path(path).read_text("ascii", "replace").partition(begin)
    return ssl.PEM_cert_to_DER_cert(found + after.partition(end)[0] + end)


def is_on_this_machine(deployment: Deployment) -> bool:
    """Return whether connections don't leave this machine, as far as the address says."""
    options = deployment.connection_options
    if "path" in options:
        return True
    hosts = [str(options["host"])] if "host" in options else [host for host, _ in deployment.addresses]
    return all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def expiry_of(certificate: bytes) -> datetime | None:
    """Return until when a certificate in DER holds; None if that can't be read. Pure."""
    try:
        [(_, whole)] = _parts(certificate)
        _, signed = next(_parts(whole))
        parts = [part for part in _parts(signed) if part[0] != _VERSION]
        _, (kind, until) = _parts(parts[_PARTS_BEFORE][1])
        form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}[kind]
        return datetime.strptime(until.decode("ascii"), form).replace(tzinfo=UTC)
    except (ValueError, LookupError, StopIteration):
        return None


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what stands in a piece of DER, one after the other: tag and content."""
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start = 2 + (length & 0x7F)
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            raise ValueError("it ends too early")
        yield tag, data[start : start + length]
        data = data[start + length :]
