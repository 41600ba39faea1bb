"""The machine that a controller runs on: the folder for its jobs, and what the machine, not a job, is at fault for.

A controller takes no jobs while its machine can't run any.
"""

import contextlib
import errno
import fcntl
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ci_eventstore.amounts import format_duration
from ci_eventstore.errors import MachineError

logger = logging.getLogger("ci_eventstore.controllers")

#: This machine lacks files, processes, memory or disk; another one may well have them.
MACHINE_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
)
#: How long no job is taken after the first one that couldn't be run; doubled with each further one, up to the last.
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 60.0


def raise_machine_error(what: str, error: OSError) -> None:
    """Raise MachineError if the machine is at fault; return if the job is."""
    if error.errno in MACHINE_ERRORS:
        raise machine_error(what, error) from error


def machine_error(what: str, error: OSError) -> MachineError:
    """Return the error for what this machine can't do, with the reason."""
    return MachineError(f"{what}: {error.strerror or error}")


@contextmanager
def this_machine_needs(what: str) -> Iterator[None]:
    """Raise MachineError for any OSError inside: without this, no job can run here."""
    try:
        yield
    except OSError as error:
        raise machine_error(what, error) from error


class MachineHealth:
    """Decides from the last jobs whether this machine can run any. Pure, except for its log: callers pass the time."""

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._until = -math.inf

    @property
    def is_unfit(self) -> bool:
        """Whether this machine couldn't run the last job; until it runs one, it takes them one at a time."""
        return self._failures > 0

    def pause(self, now: float) -> float:
        """Return how many seconds are left before the next job may be taken."""
        return max(self._until - now, 0.0)

    def allowed(self, count: int, now: float) -> int:
        """Return how many of `count` jobs may be taken; after a failure one, as a trial."""
        if not self._failures:
            return count
        return 0 if self.pause(now) else min(count, 1)

    def note_failure(self, error: MachineError, began: float, now: float) -> None:
        """Note that a job couldn't be run; a job that began before the last failure doesn't count."""
        if began < self._failed_at:
            return
        pause = min(FIRST_PAUSE_SECONDS * 2**self._failures, LAST_PAUSE_SECONDS)
        if not self._failures:
            logger.warning(
                "this machine can't run jobs: %s; they go to others, and it tries again in %s, then less often",
                error,
                format_duration(pause),
            )
        self._failures += 1
        self._failed_at, self._until = now, now + pause

    def note_success(self, began: float) -> None:
        """Note that a job was run, however it ended; a job that began before the last failure doesn't count."""
        if began < self._failed_at:
            return
        if self._failures:
            logger.warning("this machine can run jobs again")
        self._failures, self._failed_at, self._until = 0, -math.inf, -math.inf


FOLDER_PREFIX = "ci-eventstore-controller-"


class WorkFolder:
    """A private temporary folder, locked as long as this process lives.

    Entering it also removes the folders of this user's controllers that were killed.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make the folder; OSError."""
        _remove_abandoned(self._make())
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder."""
        if self._path is not None:
            remove_folder(self._path)
            self._path = None
        self._unlock()

    def new(self) -> Path:
        """Return a new, empty folder inside; if someone has removed the whole, make it again. OSError."""
        try:
            return Path(tempfile.mkdtemp(prefix="job-", dir=self._path))
        except FileNotFoundError:
            return Path(tempfile.mkdtemp(prefix="job-", dir=self._make()))

    def _make(self) -> Path:
        """Make and lock the folder, in place of one that is gone; OSError."""
        self._unlock()
        while True:
            path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
            self._path = path
            try:
                self._lock = _lock(path, waits=True)
                # Before the lock was there, another controller may have removed it as abandoned.
                if path.exists():
                    return path
            except BaseException:
                remove_folder(path)
                raise
            self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, even what a command made read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for path, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(own: Path) -> None:
    """Remove the folders of this user's controllers that are gone: those that can be locked."""
    for path in own.parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            is_ours = path != own and path.lstat().st_uid == os.geteuid() and not path.is_symlink()
            if is_ours and (lock := _lock(path)) is not None:
                remove_folder(path)
                os.close(lock)


def _lock(folder: Path, *, waits: bool = False) -> int | None:
    """Lock a folder as long as the returned descriptor is open; None if that isn't possible."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
