"""`LogWriter`: text or bytes in, events out."""

import asyncio
import codecs
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from ci_common.errors import InvalidArgumentError, RepositoryError
from ci_eventstore.errors import (
    ConfigurationError,
    LogNotStoredError,
    LogWriterClosedError,
    OtherEventLoopError,
    OutcomeUnknownError,
    StoreError,
)
from ci_eventstore.settings import check_number
from ci_eventstore.writer.chunk_sender import LOST_LINE, ChunkSender, LogSink
from ci_eventstore.writer.chunks import CHUNK_SECONDS
from ci_eventstore.writer.masked_chunks import MaskedChunks
from ci_eventstore.writer.masking import SecretTexts
from ci_eventstore.writer.rescue import RescueFile
from ci_eventstore.writer.surrogates import without_halves
from ci_eventstore.writer.time_limit import TimeLimit

logger = logging.getLogger("ci_eventstore.writer")

#: How long a cancelled task waits for the store to take a chunk.
CANCELLED_SECONDS = 5.0
#: A chunk that is sent has left after this many turns of the event loop.
SENDING_TURNS = 2
#: What output may come as, besides text.
BYTES = (bytes, bytearray, memoryview)
CANCELLED = "the task that stores the log was cancelled"


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a `LogWriter` paces itself; ConfigurationError for what can't be."""

    #: Text that comes within this many seconds of the first goes out together with it.
    pause_seconds: float = 0.1
    #: At most this many characters wait for the store; then `write` waits.
    spool_characters: int = 16 * 1024 * 1024
    #: The writer gives up after this long without any answer.
    patience_seconds: float = 600.0
    #: Where the rest of a log is kept that couldn't be stored; the system's temporary folder if None.
    rescue_directory: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        check_number(self, "pause_seconds", 0)
        check_number(self, "patience_seconds", 0)
        check_number(self, "spool_characters", 1, is_whole=True)
        if self.rescue_directory is not None and not isinstance(self.rescue_directory, Path):
            raise ConfigurationError(f"rescue_directory={self.rescue_directory!r} must be a Path")


class LogWriter:
    r"""Writes one source's output to a job's log, in order, each character once.

        async with repository.log_writer("build-7", secrets=[token]) as writer:
            await writer.write(b"Running tests...\n")

    Bytes are read as UTF-8, invalid ones kept; no character is split over two events. Events end with lines where lines
    are short enough, and go out with the first text at once, then after a tenth of a second or 64 KiB, unfinished lines
    too. An event's time is that at which the first of its text was written, however late the store gets it; lines that
    come a quarter of a second later are another event. Secrets are replaced by `***`, however they are split; text that
    may be the beginning of one waits until it can't be. While the server is away or full, text waits in memory up to a
    limit, then `write` waits.

    `write` takes text; `flush` returns when it is stored, and so does leaving the writer. `LogNotStoredError` is raised
    by each of them if the job is gone or the server stays away; it names a file with the rest, what is written
    afterwards included. The file may begin with text that the log got after all. If the server has lost text that it
    had stored, as a failover may, a line in the log says so.
    """

    def __init__(
        self, job_id: str, sink: LogSink, *, secrets: SecretTexts = (), settings: WriterSettings | None = None
    ) -> None:
        self._job_id = job_id
        self._settings = settings or WriterSettings()
        self._chunks = ChunkSender(job_id, sink, self._settings.patience_seconds)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._chunker = MaskedChunks(secrets, max(CHUNK_SECONDS, self._settings.pause_seconds))
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: asyncio.Task[None] | None = None
        self._is_closing = False
        self._is_to_look_back = True
        #: Of all text, before it is masked: how many characters were taken, stored, and asked for without a pause.
        self._taken = self._stored = self._flushed = 0
        self._yielded_at = 0.0
        self._limit = TimeLimit()
        self._rescue_file = RescueFile(self._settings.rescue_directory)
        self._failure: LogNotStoredError | None = None

    def open(self) -> None:
        """Begin to send, as `async with` does, if it hasn't begun; who calls it has to leave the writer as well."""
        if self._sender is None:
            self._loop = asyncio.get_running_loop()
            self._sender = asyncio.create_task(self._send_all())
            self._sender.add_done_callback(self._note_end)

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
        failure = await self._finish()
        if failure is not None and kind is None:
            raise failure

    async def close(self, *, looks_back: bool = True) -> None:
        """Send the rest, as leaving `async with` does; LogNotStoredError.

        Someone whose next write to the job asks the store for what it took needn't look back here.
        """
        self._is_to_look_back = looks_back
        await self.__aexit__(None, None, None)

    async def write(self, data: str | bytes) -> None:
        """Take text or bytes; return at once, unless too much waits to be stored. Half a surrogate pair becomes U+FFFD.

        LogNotStoredError; LogWriterClosedError before the writer was entered, or after it was left.
        """
        self._check_open()
        if isinstance(data, str):
            text = without_halves(data)
            self._take_in(self._decoder.decode(b"", final=True) + text if self._decoder.getstate()[0] else text)
        elif isinstance(data, BYTES):
            self._take_in(self._decoder.decode(data))
        else:
            raise InvalidArgumentError("data", data, "text or bytes")
        self._raise_failure()
        if self._chunker.full or time.monotonic() - self._yielded_at > self._settings.pause_seconds:
            await self._give_way()

    async def flush(self) -> None:
        """Return when everything that was written before is stored; LogNotStoredError, LogWriterClosedError.

        But for what can't go out yet: the beginning of a character, and text that may be the beginning of a secret.
        """
        self._check_open()
        self._flushed = taken = self._taken
        self._changed.set()
        while self._stored < taken and self._failure is None:
            self._has_room.clear()
            await self._has_room.wait()
        self._raise_failure()

    def add_secret(self, secret: str) -> None:
        """Mask a secret from now on, in what waits to be sent too; in all its spellings, as those given at first."""
        self._chunker.add_secret(secret)
        self._changed.set()

    def masked(self, text: str) -> str:
        """Return a complete text as the log would have it."""
        return self._chunker.masker.mask_all(text)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more text, since it was left."""
        return self._is_closing

    def hurry(self, seconds: float) -> None:
        """From now on, give up when the store hasn't taken a chunk within `seconds`."""
        self._limit.shorten(seconds)

    async def until_over(self) -> LogNotStoredError | None:
        """Return when everything is stored and the writer closed, or as soon as it gives up: why it did."""
        if self._sender is not None:
            await asyncio.wait({self._sender})
        return self._failure

    def _check_open(self) -> None:
        if self._is_closing or self._sender is None:
            raise LogWriterClosedError(self._job_id)
        if self._loop is not asyncio.get_running_loop():
            self._check_loop()

    def _check_loop(self) -> None:
        """Raise OtherEventLoopError in another event loop, LogNotStoredError if text was left when its own ended."""
        if self._loop is not asyncio.get_running_loop():
            error = OtherEventLoopError(f"the log writer of job {self._job_id!r}")
            if self._loop is not None and self._loop.is_closed() and self._chunker.characters:
                self._give_up(error)
            raise self._failure if self._failure and self._failure.size_bytes else error

    def _raise_failure(self) -> None:
        """Raise if the writer has given up, with what was written since in the rescue file, too."""
        if self._failure is not None:
            self._give_up(self._failure.__cause__)
            raise self._failure

    def _take_in(self, text: str) -> None:
        self._chunker.add(text, time.time())
        self._taken += len(text)
        if not self._changed.is_set() and self._chunker.characters:
            self._changed.set()

    async def _finish(self) -> LogNotStoredError | None:
        """Send the rest; return why that failed, if it did. If this is cancelled, wait for the store but shortly."""
        if self._sender is not None:
            self._check_loop()
        if not self._is_closing:
            self._take_in(self._decoder.decode(b"", final=True))
        self._is_closing = True
        self._chunker.end()
        self._changed.set()
        try:
            await self.until_over()
        except asyncio.CancelledError:
            self.hurry(CANCELLED_SECONDS)
            await self.until_over()
            raise
        finally:
            if self._failure is not None:
                self._give_up(self._failure.__cause__)
        return self._failure

    async def _give_way(self) -> None:
        """Let the sender run, and wait for room if there is none."""
        await asyncio.sleep(0)
        while self._chunker.characters > self._settings.spool_characters and self._failure is None:
            self._has_room.clear()
            await self._has_room.wait()
        self._yielded_at = time.monotonic()
        self._raise_failure()

    async def _send_all(self) -> None:
        """Send until the writer is closed and nothing is left; whatever ends this earlier is the writer's failure."""
        text = ""
        try:
            while self._chunker.has_more or not self._is_closing:
                self._changed.clear()
                if not self._chunker.has_more:
                    await self._changed.wait()
                    continue
                chunk, taken = await self._chunker.take_in_steps()
                text = chunk.text
                if text:
                    self._mask_ahead()
                    async with self._limit.hold():
                        await self._chunks.send(chunk)
                self._stored, is_sent, text = self._stored + taken, bool(text), ""
                self._has_room.set()
                if is_sent:
                    await self._pause()
            if self._is_to_look_back:
                text = LOST_LINE
                async with self._limit.hold():
                    await self._chunks.look_back()
        except TimeoutError:
            # A call may be on its way.
            self._give_up(OutcomeUnknownError(f"the log of job {self._job_id}, in the time that was left"), text)
        except asyncio.CancelledError:
            self._give_up(StoreError(CANCELLED), text)
            raise
        except Exception as error:
            if not isinstance(error, RepositoryError):
                logger.exception("the task that stores a log failed", extra={"job_id": self._job_id})
            self._give_up(error, text)

    def _note_end(self, sender: "asyncio.Task[None]") -> None:
        """Give up for a sender that couldn't: it was cancelled before it had begun, or even giving up has failed."""
        if self._failure is None and (sender.cancelled() or sender.exception() is not None):
            self._give_up(StoreError(CANCELLED) if sender.cancelled() else sender.exception())

    def _mask_ahead(self, turns: int = SENDING_TURNS) -> None:
        """Mask the next chunk when the one before has left, while the store takes it."""
        then = self._chunker.mask_ahead if turns == 1 else partial(self._mask_ahead, turns - 1)
        asyncio.get_running_loop().call_soon(then)

    async def _pause(self) -> None:
        """Let text gather, unless there is enough for a chunk or no more comes."""
        until = time.monotonic() + self._settings.pause_seconds
        while not self._is_closing and not self._chunker.full and self._flushed <= self._stored:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def _give_up(self, cause: BaseException | None, text: str = "") -> None:
        """Put a text and what waits into the rescue file, and tell whoever writes, and how much that has by now."""
        if not self._rescue_file.add_all(chain([text], self._rest())):
            # It may be that secrets can't be masked.
            self._rescue_file.give_up(self._chunker.drop())
        self._failure = LogNotStoredError(self._job_id, self._rescue_file.size_bytes, self._rescue_file.path)
        self._failure.__cause__ = cause
        self._has_room.set()

    def _rest(self) -> Iterator[str]:
        while self._chunker.has_more:
            yield self._chunker.take_masked()[0].text
