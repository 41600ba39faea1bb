"""Locks on files, which the kernel takes back when their holder dies."""

import fcntl
import os
from pathlib import Path
from typing import Self

#: Lower ones may be replaced in a child that gets its own standard input and output.
_LOWEST_DESCRIPTOR = 3


class FileLock:
    """A lock on a file that was taken. It lives as long as any process has the descriptor open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path, *, shared: bool) -> Self | None:
        """Take the lock without waiting, or return None if someone else has it. OSError if the file can't be opened."""
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        lock = cls(path, descriptor)
        if lock.is_current():
            return lock
        lock.close()
        return None

    @property
    def descriptor(self) -> int:
        """The open file: a child process that inherits it has the lock too."""
        if self._descriptor is None:
            raise ValueError("the lock was given back")
        return self._descriptor

    def is_current(self) -> bool:
        """Return whether the locked file is still the one that others find under its path."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close this process's descriptor; a child that was given it keeps the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int:
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
    finally:
        os.close(opened)
