"""A proxy before an HTTP server that breaks chosen requests in a chosen way."""

import asyncio
import contextlib
from collections.abc import Callable
from enum import Enum
from typing import Self

#: What no error may show.
SECRET = "a-very-secret-key"


class HttpFault(Enum):
    """What happens to a request and its answer."""

    #: The server does it, and its answer is lost.
    ANSWER_LOST = "answer lost"
    #: The connection ends in the middle of the answer's body.
    BODY_CUT = "body cut"
    #: One bit of the answer's last byte is another one.
    BYTE_FLIPPED = "byte flipped"
    #: The server never sees it, and no answer comes.
    STALL = "stall"
    #: The answer comes a few bytes at a time.
    DRIP = "drip"
    #: The server never sees it; the proxy answers so.
    CONFLICT = "409 Conflict"
    PRECONDITION = "412 Precondition Failed"
    FORBIDDEN = "403 Forbidden"
    BROKEN = "500 Internal Server Error"
    SLOW_DOWN = "503 Slow Down"


#: What comes at a time of an answer that drips, and the pause before it.
DRIP_BYTES = 256
DRIP_SECONDS = 0.01

#: Says by its method what happens to a request; None lets it through.
HttpPlan = Callable[[str], HttpFault | None]


def broken(fault: HttpFault, method: str, times: int = 1_000_000) -> HttpPlan:
    """Return a plan that breaks the first requests of a method."""
    left = times

    def plan(found: str) -> HttpFault | None:
        nonlocal left
        if found != method or not left:
            return None
        left -= 1
        return fault

    return plan


def nth(fault: HttpFault, number: int) -> HttpPlan:
    """Return a plan that breaks one request, counted from 1, whatever its method."""
    count = 0

    def plan(_: str) -> HttpFault | None:
        nonlocal count
        count += 1
        return fault if count == number else None

    return plan


class HttpFaultProxy:
    """Listens on a port of its own; each connection takes one request."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.plan: HttpPlan = lambda method: None
        self.faults = 0
        #: The methods of all requests so far.
        self.requests: list[str] = []
        self._stalled: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything off."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def stalled(self) -> int:
        """How many requests wait for an answer that doesn't come."""
        return len(self._stalled)

    def cut_stalled(self) -> None:
        """Have these wait no longer: their connections end."""
        for writer in self._stalled:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
        method = lines[0].split(b" ")[0].decode()
        self.requests.append(method)
        fault = self.plan(method)
        self.faults += fault is not None
        if fault is HttpFault.STALL:
            self._stalled.add(writer)
            try:
                await reader.read()
            finally:
                self._stalled.discard(writer)
            return
        if fault is not None and fault.value[:3].isdecimal():
            writer.write(f"HTTP/1.1 {fault.value}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        answer = await self._ask(lines, body)
        if fault is HttpFault.ANSWER_LOST:
            return
        if fault is HttpFault.BODY_CUT:
            begin = answer.index(b"\r\n\r\n") + 4
            answer = answer[: begin + (len(answer) - begin) // 2]
        if fault is HttpFault.BYTE_FLIPPED:
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        if fault is HttpFault.DRIP:
            await _drip(writer, answer)
            return
        writer.write(answer)
        await writer.drain()

    async def _ask(self, lines: list[bytes], body: bytes) -> bytes:
        """Return the whole answer of the server."""
        kept = [line for line in lines if not line.lower().startswith((b"connection:", b"expect:"))]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        with contextlib.closing(writer):
            writer.write(b"\r\n".join([*kept, b"Connection: close", b"", body]))
            await writer.drain()
            answer = await reader.read()
        head, _, rest = answer.partition(b"\r\n\r\n")
        told = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join([*told, b"Connection: close", b"", rest])


async def _drip(writer: asyncio.StreamWriter, answer: bytes) -> None:
    for start in range(0, len(answer), DRIP_BYTES):
        await asyncio.sleep(DRIP_SECONDS)
        writer.write(answer[start : start + DRIP_BYTES])
        await writer.drain()
