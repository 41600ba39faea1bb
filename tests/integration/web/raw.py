"""Requests as bytes over a socket: those that no client library sends, too."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit


async def exchange(
    url: str, method: str, path: str, headers: Sequence[tuple[str, bytes]] = (), body: bytes = b""
) -> tuple[int, bytes]:
    """Send a request, and return the status and the head of the response; its body is left alone."""
    [status, head] = await _send(url, head_of(url, method, path, headers, len(body)), _pieces(body))
    return int(status), head


async def send_chunks(
    url: str, method: str, path: str, headers: Sequence[tuple[str, bytes]], total: int
) -> tuple[int, int]:
    """Send a body of unknown length until the server answers; return the status, and how many bytes it took."""
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        piece = bytes(64 * 1024)
        while sent < total:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
            sent += len(piece)
        yield b"0\r\n\r\n"

    opening = head_of(url, method, path, [*headers, ("Transfer-Encoding", b"chunked")])
    [status, _] = await _send(url, opening, chunks())
    return int(status), sent


def head_of(url: str, method: str, path: str, headers: Sequence[tuple[str, bytes]], length: int | None = None) -> bytes:
    """Return the beginning of a request, up to its body."""
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    if "host" not in names:
        lines.append(f"Host: {urlsplit(url).netloc}".encode())
    if length is not None and "content-length" not in names:
        lines.append(b"Content-Length: %d" % length)
    lines += [name.encode() + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _send(url: str, opening: bytes, body: AsyncIterator[bytes]) -> tuple[int, bytes]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        writer.write(opening)
        async for piece in body:
            if head.done():
                break
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            answer = await head
    finally:
        head.cancel()
        writer.transport.abort()
    return int(answer.split(b" ", 2)[1]), answer
