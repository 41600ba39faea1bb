"""Where jobs run: a folder of a controller's own, which doesn't outlive it for long."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "ci-eventstore-controller-"


class WorkFolder:
    """A private temporary folder that is locked as long as this process lives.

    Entering it makes the folder, and removes those of this user whose controllers were killed.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make the folder; OSError."""
        _remove_abandoned(self._make())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the folder."""
        if self._path is not None:
            remove(self._path)
            self._path = None
        self._unlock()

    def new(self) -> Path:
        """Return a new, empty folder in it, which is made again if someone has removed it; OSError."""
        try:
            return Path(tempfile.mkdtemp(prefix="job-", dir=self._path))
        except FileNotFoundError:
            return Path(tempfile.mkdtemp(prefix="job-", dir=self._make()))

    def _make(self) -> Path:
        """Make the folder, locked, in place of one that is gone; OSError."""
        self._unlock()
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._path = path
            try:
                self._lock = _lock(path, waits=True)
                # Another controller may have just taken it for abandoned, and is removing it.
                if path.exists():
                    return path
            except BaseException:
                remove(path)
                raise
            self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also what a command has made read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for path, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(own: Path) -> None:
    """Remove the folders of controllers that are gone: those that can be locked."""
    for path in _others(own):
        lock = _lock(path)
        if lock is not None:
            remove(path)
            os.close(lock)


def _others(own: Path) -> Iterator[Path]:
    for path in own.parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path != own and path.lstat().st_uid == os.geteuid() and not path.is_symlink():
                yield path


def _lock(folder: Path, *, waits: bool = False) -> int | None:
    """Lock a folder for as long as the descriptor is open; None if that isn't possible."""
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
