"""Keep in a local file what of a log couldn't be stored."""

import logging
import os
import tempfile
from pathlib import Path

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
        """Keep text behind what is kept already; after a first failure nothing more is kept, and `path` is None."""
        data = text.encode("utf-8", "surrogateescape")
        self.size_bytes += len(data)
        if self._is_broken or not data:
            return
        try:
            self._append(data)
        except OSError as error:
            logger.error("the rest of a log can't be kept in %s: %s", self.path or "a local file", error)
            self.path, self._is_broken = None, True

    def _append(self, data: bytes) -> None:
        if self.path is None:
            descriptor, self.path = tempfile.mkstemp(".log", "ci-eventstore-", self._directory)
        else:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
