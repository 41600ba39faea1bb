"""A process that is all clients of a server of live streams, and checks every byte of what each of them got."""

import asyncio
import hashlib
import time
from typing import cast

import uvloop

from benchmarks.live.frames import body_of, log_of
from benchmarks.live.processes import Plan, read_plan, say
from ci_eventstore import RedisJobRepository


class Client(asyncio.Protocol):
    """Asks for a stream, and keeps what comes."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._received: list[bytes] = []
        loop = asyncio.get_running_loop()
        self.has_begun: asyncio.Future[None] = loop.create_future()
        self.has_ended: asyncio.Future[float] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        path = f"/jobs/{self._job_id}/stream?from_beginning=true"
        # Its type is wider than what a connection is given; uvloop's isn't a subclass.
        writable = cast("asyncio.Transport", transport)
        writable.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._received.append(data)
        if not self.has_begun.done():
            self.has_begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note when the server closed."""
        self.has_ended.set_result(time.monotonic())

    def body(self) -> bytes:
        """Return the whole stream."""
        return body_of(b"".join(self._received))


async def listen(plan: Plan) -> None:
    """Follow over HTTP until all streams have ended, and compare them with the store."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(plan.followers):
        _, client = await loop.create_connection(lambda: Client(plan.jobs[0]), "127.0.0.1", plan.port)
        clients.append(client)
    await asyncio.gather(*(client.has_begun for client in clients))
    await asyncio.sleep(0.5)
    say(ready=True)
    ended_at = await asyncio.gather(*(client.has_ended for client in clients))
    say(ended_at=max(ended_at))
    await _check(plan, clients)
    say(are_equal=True)


async def _check(plan: Plan, clients: list[Client]) -> None:
    """Raise AssertionError unless every client got the log as the store has it, with all its bytes."""
    async with RedisJobRepository.from_url(plan.url) as repository:
        events = [event async for event in repository.follow_events(plan.jobs[0])]
    text = "".join(event.data or "" for event in events if event.type == "log")
    checked = set()
    for client in clients:
        body = client.body()
        digest = hashlib.sha256(body).digest()
        # Streams differ by their comments alone, so there are few to be read.
        if digest not in checked:
            log, count = log_of(body)
            if (log, count) != (text, len(events)):
                raise AssertionError(
                    f"a client got {count} of {len(events)} events, {len(log)} of {len(text)} characters"
                )
            checked.add(digest)


if __name__ == "__main__":
    uvloop.run(listen(read_plan()))
