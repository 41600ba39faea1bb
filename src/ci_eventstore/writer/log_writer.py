"""`LogWriter`: text or bytes in, events out."""

import asyncio
import codecs
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ci_common.errors import RepositoryError
from ci_common.models import JobEvent
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    LogNotStoredError,
    LogWriterClosedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from ci_eventstore.events.append import Call
from ci_eventstore.writer.chunks import Chunker
from ci_eventstore.writer.masking import Masker
from ci_eventstore.writer.rescue import RescueFile
from ci_eventstore.writer.time_limit import TimeLimit

logger = logging.getLogger("ci_eventstore.writer")

#: What a log says where the server forgot events that it had acknowledged.
LOST_LINE = "[events that were acknowledged before this line were lost by the server]\n"

#: How long a cancelled task waits for the store to take a chunk.
CANCELLED_SECONDS = 5.0

SendChunk = Callable[[JobEvent, Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a `LogWriter` paces itself."""

    #: After the first text, what comes within so many seconds goes out together.
    pause_seconds: float = 0.1
    #: So many characters may wait for the store; then `write` waits.
    spool_characters: int = 16 * 1024 * 1024
    #: For so long the writer tries without any answer before it gives up.
    patience_seconds: float = 600.0
    #: Where the rest of a log is kept that couldn't be stored; the system's temporary folder if None.
    rescue_directory: Path | None = None


class LogWriter:
    r"""Writes one source's output to a job's log, in order, each character once.

        async with repository.log_writer("build-7", secrets=[token]) as writer:
            await writer.write(b"Running tests...\n")

    Bytes are read as UTF-8, invalid ones kept; no character is split over two events. Events end with lines where lines
    are short enough, and go out with the first text at once, then after a tenth of a second or 64 KiB, unfinished lines
    too. Secrets are replaced by `***`, however they are split; text that may be the beginning of one waits until it
    can't be. While the server is away, text waits in memory up to a limit, then `write` waits. `LogNotStoredError` is
    raised by `write` or at the end if the job is gone or the server stays away; it names a file with the rest, what is
    written afterwards included. The file may begin with text that the log got after all.
    """

    def __init__(
        self, job_id: str, send: SendChunk, *, secrets: Iterable[str] = (), settings: WriterSettings | None = None
    ) -> None:
        self._job_id = job_id
        self._send_chunk = send
        self._settings = settings or WriterSettings()
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._masker = Masker(secrets)
        self._chunker = Chunker()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._is_closing = False
        self._yielded_at = 0.0
        self._call = Call(new_token(), 0)
        self._limit = TimeLimit()
        self._rescue_file = RescueFile(self._settings.rescue_directory)
        self._failure: LogNotStoredError | None = None

    def open(self) -> None:
        """Begin to send, as `async with` does; who calls it has to leave the writer as well."""
        self._sender = asyncio.create_task(self._send_all())

    async def __aenter__(self) -> Self:
        """Begin to send."""
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Send the rest; LogNotStoredError if it can't be stored. A cancelled task waits for the store but shortly."""
        if isinstance(error, asyncio.CancelledError):
            self.hurry(CANCELLED_SECONDS)
        self._take_in(self._decoder.decode(b"", final=True))
        self._chunker.add(self._masker.finish())
        self._is_closing = True
        self._changed.set()
        if self._sender is not None:
            await self._sender
        if self._failure is not None:
            self._rescue(self._failure.__cause__)
            if kind is None:
                raise self._failure

    async def write(self, data: str | bytes) -> None:
        """Take text or bytes; return at once, unless too much waits to be stored.

        LogNotStoredError; LogWriterClosedError before the writer was entered, or after it was left.
        """
        if self._sender is None or self._is_closing:
            raise LogWriterClosedError(self._job_id)
        if isinstance(data, bytes):
            self._take_in(self._decoder.decode(data))
        else:
            self._take_in(self._decoder.decode(b"", final=True) + data if self._decoder.getstate()[0] else data)
        if self._failure is not None:
            self._rescue(self._failure.__cause__)
            raise self._failure
        if self._chunker.has_full_chunk or time.monotonic() - self._yielded_at > self._settings.pause_seconds:
            await self._give_way()

    def hurry(self, seconds: float) -> None:
        """From now on, give up when the store hasn't taken a chunk within so many seconds."""
        self._limit.shorten(seconds)

    async def until_over(self) -> LogNotStoredError | None:
        """Return when everything is stored and the writer closed, or as soon as it gives up: why it did."""
        if self._sender is not None:
            await asyncio.wait({self._sender})
        return self._failure

    def _take_in(self, text: str) -> None:
        self._chunker.add(self._masker.mask(text))
        if not self._changed.is_set() and self._chunker.characters:
            self._changed.set()

    async def _give_way(self) -> None:
        """Let the sender run, and wait for room if there is none."""
        await asyncio.sleep(0)
        while self._chunker.characters > self._settings.spool_characters and self._failure is None:
            self._has_room.clear()
            await self._has_room.wait()
        self._yielded_at = time.monotonic()
        if self._failure is not None:
            raise self._failure

    async def _send_all(self) -> None:
        """Send chunks until the writer is closed and nothing is left, or nothing can be stored any more."""
        while self._chunker.characters or not self._is_closing:
            self._changed.clear()
            if not self._chunker.characters:
                await self._changed.wait()
                continue
            chunk = self._chunker.take()
            try:
                async with self._limit.hold():
                    await self._store(chunk)
            except RepositoryError as error:
                self._give_up(chunk, error)
                return
            except TimeoutError:
                self._give_up(chunk, StoreUnavailableError("the store gave no answer in the time that was left"))
                return
            self._has_room.set()
            await self._pause()

    async def _pause(self) -> None:
        """Let text gather, unless there is enough for a chunk or no more comes."""
        until = time.monotonic() + self._settings.pause_seconds
        while not self._is_closing and not self._chunker.has_full_chunk:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _store(self, chunk: str) -> None:
        """Store one chunk, through outages: the same call again has its effect once."""
        event, started = JobEvent("log", chunk), time.monotonic()
        self._call = Call(self._call.token, self._call.number + 1)
        while True:
            try:
                await self._send_chunk(event, self._call)
            except AcknowledgedEventsLostError:
                logger.warning("the server lost acknowledged events", extra={"job_id": self._job_id})
                self._call = Call(new_token(), 1)
                event = JobEvent("log", LOST_LINE + chunk)
            except (OutcomeUnknownError, StoreUnavailableError):
                if time.monotonic() - started > self._settings.patience_seconds:
                    raise
                logger.warning("the store is away, the log waits", extra={"job_id": self._job_id})
            else:
                return

    def _give_up(self, chunk: str, error: RepositoryError) -> None:
        """Keep what isn't stored in a file, and tell whoever writes."""
        self._rescue_file.add(chunk)
        self._rescue(error)
        self._has_room.set()

    def _rescue(self, cause: BaseException | None) -> None:
        """Put what waits into the rescue file, and say how much that has by now."""
        while self._chunker.characters:
            self._rescue_file.add(self._chunker.take())
        self._failure = LogNotStoredError(self._job_id, self._rescue_file.size_bytes, self._rescue_file.path)
        self._failure.__cause__ = cause


def new_token() -> str:
    """Return a writer's token."""
    return secrets.token_hex(8)
