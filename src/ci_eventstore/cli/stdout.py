"""Write bytes to standard output, as they are, without ever holding up the event loop."""

import asyncio
import os
import select
import sys


class StandardOutput:
    """A file descriptor whose reader may be slow, or stop reading.

    The descriptor stays in blocking mode, because it is shared with other processes: only as much is written at once
    as is known to fit in.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)

    async def write(self, data: bytes) -> None:
        """Write all of it; OSError, of which BrokenPipeError means that nobody reads any more."""
        rest = memoryview(data)
        while rest:
            if not self._poll.poll(0):
                await self._until_writable()
            rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        loop.add_writer(self._descriptor, lambda: writable.done() or writable.set_result(None))
        try:
            await writable
        finally:
            loop.remove_writer(self._descriptor)
