"""A proxy on TCP between client and server that refuses some commands, as those that hide parts of Redis do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from hiredis import Reader, pack_command


@asynccontextmanager
async def hiding_proxy(port: int, refusals: Mapping[bytes, str]) -> AsyncIterator[int]:
    """Pass commands on to a port of this machine, one by one, but for those that are refused; yield the proxy's port.

    `refusals` has the reply, without its minus sign, to each command that isn't passed on.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, behind = await asyncio.open_connection("127.0.0.1", port)
        commands = Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    refusal = refusals.get(command[0].upper())
                    if refusal is not None:
                        writer.write(f"-{refusal}\r\n".encode())
                        continue
                    behind.write(pack_command(tuple(command)))
                    writer.write(await _one_reply(upstream))
        finally:
            behind.close()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as opened:
        yield opened.sockets[0].getsockname()[1]
        # What is still connected is of no interest any more.
        with contextlib.suppress(AttributeError):
            opened.close_clients()  # type: ignore[attr-defined]  # from Python 3.13 on


async def _one_reply(upstream: asyncio.StreamReader) -> bytes:
    """Return the bytes of one reply, whose end the reader finds."""
    reply, whole = Reader(), b""
    while True:
        data = await upstream.read(65536)
        if not data:
            raise ConnectionResetError("the server hung up")
        whole += data
        reply.feed(data)
        if reply.gets() is not False:
            return whole
