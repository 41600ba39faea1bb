"""Open a zip file that nobody trusts: its directory is measured before it is loaded.

`zipfile` reads the whole directory at once and makes an object of each entry, however many there are and whatever the
file says of their number. So it is given a file that refuses to hand out too big a directory; what it takes for the
directory is then what was measured.
"""

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ci_eventstore.errors import ProjectError

MAX_ENTRIES = 100_000
#: 100,000 entries with names of nearly 300 bytes each.
MAX_DIRECTORY_BYTES = 32 * 1024**2
#: What each entry of a directory begins with.
ENTRY = b"PK\x01\x02"

#: What `zipfile` raises for files that are none, or damaged.
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose directory isn't too big, without waiting for anything that isn't a regular file.

    OSError, ProjectError, and UNREADABLE for what is none.
    """
    # A FIFO would wait for its other end, and some devices for more than that.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ProjectError(f"{path} is not a regular file")
    with _Measured(io.FileIO(descriptor)) as file, zipfile.ZipFile(file) as archive:
        file.has_directory = True
        yield archive


class _Measured(io.BufferedReader):
    """A file that refuses to be read in pieces that can only be a directory that is too big."""

    #: The directory was read: files follow.
    has_directory = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read no more than a directory may have; ProjectError."""
        if self.has_directory:
            return super().read(size)
        most = MAX_DIRECTORY_BYTES + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) == most:
            raise ProjectError(f"it has a directory of more than {MAX_DIRECTORY_BYTES // 1024**2} MiB")
        if data.count(ENTRY) > MAX_ENTRIES:
            raise ProjectError(f"it has more than {MAX_ENTRIES:,} entries")
        return data
