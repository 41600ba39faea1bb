"""A fault proxy before several servers that name each other: whoever is sent on to one meets the proxy there, too."""

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

from tests.deployments.members import Member, spare_port
from tests.fault_proxy import FaultProxy

#: Whose replies name servers.
NAMING = (b"CLUSTER", b"SENTINEL")


class Doors(FaultProxy):
    """Has a TCP port for each server; in what servers say of each other, it puts its own ports in place of theirs."""

    def __init__(self, members: Sequence[Member], url: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(members[0].socket_path)
        self._members = members
        self._url = url
        self._tls = tls
        #: By the servers' ports. All have five digits, so that replies keep their lengths.
        self._ports: dict[int, int] = {}
        self._servers: list[asyncio.Server] = []

    @property
    def url(self) -> str:
        """The deployment's address, by way of the proxy."""
        return self._renamed(self._url.encode()).decode()

    async def __aenter__(self) -> Self:
        """Listen before each server."""
        await super().__aenter__()
        for member in self._members:
            await self._open(member)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cut everything off."""
        for server in self._servers:
            server.close()
        await super().__aexit__(kind, error, traceback)

    def translated(self, command: bytes, reply: bytes) -> bytes:
        """Return a reply in which servers are found behind this."""
        return self._renamed(reply) if command in NAMING or reply.startswith(b"-") else reply

    async def _open(self, member: Member) -> None:
        accept = partial(self._accept, upstream_path=member.socket_path)
        while member.port not in self._ports:
            port = spare_port()
            try:
                server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=self._tls)
            except OSError:
                # Somebody was faster.
                continue
            self._servers.append(server)
            self._ports[member.port] = port

    def _renamed(self, text: bytes) -> bytes:
        for port, door in self._ports.items():
            text = text.replace(b"%d" % port, b"%d" % door)
        return text
