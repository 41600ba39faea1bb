"""Where jobs run: a folder of a controller's own, which doesn't outlive it for long."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

PREFIX = "ci-eventstore-controller-"


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
            remove(self._path)
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
            path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._path = path
            try:
                self._lock = _lock(path, waits=True)
                # Before the lock was there, another controller may have removed it as abandoned.
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
    """Remove a folder with everything in it, even what a command made read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for path, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(own: Path) -> None:
    """Remove the folders of this user's controllers that are gone: those that can be locked."""
    for path in own.parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            is_ours = path != own and path.lstat().st_uid == os.geteuid() and not path.is_symlink()
            if is_ours and (lock := _lock(path)) is not None:
                remove(path)
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
