"""Append what a command prints to its job's log."""

import asyncio
import codecs

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent
from ci_common.repository import JobRepository

#: What may wait for the store; beyond it, `write` waits.
BUFFER_BYTES = 1024 * 1024


class OutputAppender:
    """Appends bytes to a job's log as text, no character split over two events.

    The first piece goes at once; what arrives while an append is on its way waits, and goes out together as the next
    event. After an append that failed nothing more is stored: `failure` says why.
    """

    def __init__(self, repository: JobRepository, job_id: str) -> None:
        self.failure: RepositoryError | None = None
        #: How far the log is complete.
        self.stored_bytes = 0
        self.stored_lines = 0
        #: Whether the output stands at the beginning of a line.
        self.ends_a_line = True
        self._repository = repository
        self._job_id = job_id
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._waiting = bytearray()
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def write(self, data: bytes) -> None:
        """Take output; return as soon as there is room for more."""
        async with self._changed:
            self.ends_a_line = data.endswith(b"\n")
            if self.failure is None:
                self._waiting += data
                self._changed.notify_all()
                await self._changed.wait_for(lambda: len(self._waiting) < BUFFER_BYTES)

    async def close(self) -> None:
        """Say that this was all; `send` ends when the rest is stored."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def send(self) -> None:
        """Append what is written, until all of it is stored or an append fails."""
        is_last = False
        while not is_last and self.failure is None:
            data, is_last = await self._take()
            text = self._decoder.decode(data, final=is_last)
            if text:
                await self._append(text)

    async def _take(self) -> tuple[bytes, bool]:
        """Return all that waits, as soon as something does, and whether it is the last."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._is_closed)
            data = bytes(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return data, self._is_closed

    async def _append(self, text: str) -> None:
        try:
            await self._repository.add_event(self._job_id, JobEvent("log", text))
        except RepositoryError as error:
            async with self._changed:
                self.failure = error
                self._waiting.clear()
                self._changed.notify_all()
        else:
            self.stored_bytes += len(text.encode("utf-8", "surrogateescape"))
            self.stored_lines += text.count("\n")
