"""Receivers of webhooks: servers that note what they are sent, and answer as a test says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook as ForeignVerifier

#: Bytes to answer with, "" for none: then the connection ends.
Answer = Callable[["Received"], Awaitable[bytes]]


@dataclass(frozen=True)
class Received:
    """A request."""

    line: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """Return the message, once the foreign verifier has accepted it."""
        data: dict[str, Any] = ForeignVerifier(secret).verify(self.body, self.headers)
        return data


def status(number: int, *headers: str) -> bytes:
    """Return an answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {number} X", "content-length: 0", *headers, "", ""]).encode()


@dataclass
class Receiver:
    """A server on a port of this machine."""

    port: int = 0
    #: What it was sent, in order.
    received: list[Received] = field(default_factory=list)
    #: How often somebody has connected.
    connections: int = 0
    answer: Answer | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The ids of the messages, as often as they came."""
        return [one.headers["webhook-id"] for one in self.received]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            request = Received(head[0], headers, await reader.readexactly(int(headers["content-length"])))
            self.received.append(request)
            writer.write(await self.answer(request) if self.answer else status(204))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            # The sender has gone.
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiver(
    answer: Answer | None = None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    """Serve until the block ends."""
    opened = Receiver(answer=answer)
    tasks = set[asyncio.Task[None]]()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(opened.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, host, 0, ssl=tls)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(number: int, *headers: str) -> Answer:
    """Return what always answers so."""

    async def answer(request: Received) -> bytes:
        return status(number, *headers)

    return answer
