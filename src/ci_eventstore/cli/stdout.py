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
        self._is_abandoned = False
        self._writable = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Write all of it; OSError, of which BrokenPipeError means that nobody reads any more."""
        rest = memoryview(data)
        while rest:
            if not self._poll.poll(0):
                await self._until_writable()
                if self._is_abandoned:
                    raise BrokenPipeError
            rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]

    def abandon(self) -> None:
        """Wait no longer for a reader that doesn't read: what doesn't fit in at once raises BrokenPipeError."""
        self._is_abandoned = True
        self._writable.set()

    async def _until_writable(self) -> None:
        if self._is_abandoned:
            return
        loop = asyncio.get_running_loop()
        self._writable.clear()
        loop.add_writer(self._descriptor, self._writable.set)
        try:
            await self._writable.wait()
        finally:
            loop.remove_writer(self._descriptor)


def open_missing_streams() -> None:
    """Let standard streams that this process was started without go nowhere, and no other file take their places."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def discard_output() -> None:
    """Let what Python still buffers for standard output go nowhere, so that its last flush doesn't complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
