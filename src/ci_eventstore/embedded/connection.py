"""A connection to the embedded server, which runs whenever there is one."""

import asyncio
from typing import Any

from redis import exceptions
from redis.asyncio.connection import UnixDomainSocketConnection

from ci_eventstore.embedded.server import EmbeddedServer


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection that starts the server of which it is one, at first and again when it is gone.

    Connecting raises redis-py's ConnectionError; if the server can't be started, with EmbeddedServerError as its cause.
    """

    def __init__(self, *, server: EmbeddedServer, **options: Any) -> None:
        super().__init__(**options)
        self._server = server

    async def _connect(self) -> None:
        if not self._server.is_in_use:
            await asyncio.to_thread(self._server.ensure_running)
        try:
            await self._connect_to_socket()
        except (FileNotFoundError, ConnectionRefusedError, exceptions.ConnectionError):
            # The last one, redis-py's, is what a server that is being killed leaves of a connection it has just taken.
            await self.disconnect(nowait=True)
            await asyncio.to_thread(self._server.ensure_running)
            await self._connect_to_socket()

    async def _connect_to_socket(self) -> None:
        self.path = str(self._server.socket_path)
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
