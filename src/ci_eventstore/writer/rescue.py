"""Keep in a local file what of a log couldn't be stored."""

import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ci_eventstore.writer.surrogates import without_halves

logger = logging.getLogger("ci_eventstore.writer")


class RescueFile:
    """A file that nobody else may read, made when there is something to keep."""

    def __init__(self, directory: Path | None) -> None:
        """Use a new file in a directory; in the system's temporary folder if None."""
        #: None as long as there is no such file, or when it couldn't take all.
        self.path: str | None = None
        #: Of all that was to be kept.
        self.size_bytes = 0
        self._directory = directory
        self._is_broken = False

    def add(self, text: str) -> None:
        """Keep text after what is kept already; after a first failure nothing more is kept, and `path` is None."""
        data = without_halves(text).encode("utf-8", "surrogateescape")
        self.size_bytes += len(data)
        if self._is_broken or not data:
            return
        try:
            self._append(data)
        except OSError as error:
            logger.error("the rest of a log can't be kept in %s: %s", self.path or "a local file", error)
            self.give_up()

    def add_all(self, texts: Iterable[str]) -> bool:
        """Keep several texts; False if they couldn't be made or kept, for a reason that nobody has thought of."""
        try:
            for text in texts:
                self.add(text)
        except Exception:
            logger.exception("the rest of a log can't be kept")
            return False
        return True

    def give_up(self, size_bytes: int = 0) -> None:
        """Keep nothing from now on, text of a size included; what was kept so far isn't all."""
        self.size_bytes += size_bytes
        self.path, self._is_broken = None, True

    def _append(self, data: bytes) -> None:
        if self.path is None:
            descriptor, self.path = tempfile.mkstemp(".log", "ci-eventstore-", self._directory)
        else:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
