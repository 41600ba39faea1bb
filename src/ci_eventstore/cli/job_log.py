"""What a command prints, on its way into its job's log."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from ci_eventstore.cli.messages import say
from ci_eventstore.errors import LogNotStoredError
from ci_eventstore.writer.log_writer import LogWriter
from ci_eventstore.writer.mask_lines import MaskLines


class JobLog:
    """A `LogWriter` that says when it gives up, and then takes output all the same: it goes into the rescue file."""

    def __init__(self, writer: LogWriter, register: Callable[[str], None] = lambda secret: None) -> None:
        """Tell others of each secret that the command names, too."""
        #: Why the log isn't complete, known once this is closed.
        self.failure: LogNotStoredError | None = None
        #: Whether the output stands at the beginning of a line.
        self.ends_a_line = True
        self._writer = writer
        self._register = register
        self._lines = MaskLines(self._add_secret)
        self._is_hurried = False

    async def __aenter__(self) -> Self:
        """Begin to store."""
        await self._writer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store the rest, in the rescue file if need be."""
        await self._pass_on(self._lines.finish())
        try:
            await self._writer.__aexit__(kind, error, traceback)
        except LogNotStoredError as failure:
            self.failure = failure

    async def write(self, piece: bytes) -> None:
        """Take output; return at once, unless too much waits to be stored."""
        await self._pass_on(self._lines.take(piece))

    def hurry(self, seconds: float) -> None:
        """From now on, wait at most `seconds` for the store to take a chunk."""
        self._is_hurried = True
        self._writer.hurry(seconds)

    def _add_secret(self, secret: str) -> None:
        self._writer.add_secret(secret)
        self._register(secret)

    async def _pass_on(self, piece: bytes) -> None:
        if not piece:
            return
        self.ends_a_line = piece.endswith(b"\n")
        try:
            await self._writer.write(piece)
        except LogNotStoredError:
            # It is in the rescue file, and `report` says so.
            return

    async def report(self) -> None:
        """Say so as soon as nothing is stored any more; return when it is certain that everything is, or isn't."""
        failure = await self._writer.until_over()
        if failure is not None:
            where = f"but kept in {failure.path}" if failure.path else "nor could it be kept in a local file"
            goes_on = "" if self._is_hurried else "; the command goes on"
            what = f"the rest of the output is not stored in the log of job {failure.job_id}, {where}{goes_on}"
            say(f"warning: {what}: {failure.__cause__}")
