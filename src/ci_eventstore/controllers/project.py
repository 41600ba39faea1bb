"""A job's project as a zip file: packed when the job is submitted, unpacked where it runs.

Nobody trusts the file: nothing is written outside of the folder, no link is made, and what is unpacked is counted as it
comes, whatever the file says about itself.
"""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import IO

from ci_eventstore import zip_file
from ci_eventstore.controllers.machine import raise_machine_error
from ci_eventstore.errors import ProjectError

#: What a project may have, unpacked.
MAX_BYTES = 10 * 1024**3
#: A project of more than FREE_BYTES may be at most this many times as big as its zip file.
MAX_RATIO = 200
FREE_BYTES = 100 * 1024**2
PIECE_BYTES = 1024 * 1024


def check_zip(path: Path) -> None:
    """Check that a file can be read and is a zip file; ProjectError."""
    try:
        with zip_file.opened(path):
            return
    except ProjectError as error:
        raise ProjectError(f"{path} can't be taken: {error}") from None
    except OSError as error:
        raise ProjectError(f"{path} can't be read: {error.strerror or error}") from None
    except zip_file.UNREADABLE:
        raise ProjectError(f"{path} is no zip file") from None


def unpack(path: Path, folder: Path, is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Unpack a project's zip file into an empty folder; ProjectError if it is damaged or not to be trusted.

    Executable files stay executable; links and special files are refused. MachineError when the disk is full, or this
    machine lacks something else. ProjectError also as soon as `is_stopped` says so.
    """
    try:
        with zip_file.opened(path) as archive:
            limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
            for entry in archive.infolist():
                if is_stopped():
                    raise ProjectError("it was stopped")
                limit = _unpack_entry(archive, entry, folder, limit, is_stopped)
    except ProjectError as error:
        raise ProjectError(f"the project can't be unpacked: {error}") from None
    except OSError as error:
        raise_machine_error(f"the project {path} can't be unpacked here", error)
        raise ProjectError(f"the project {path} can't be unpacked: {error.strerror or error}") from None
    except zip_file.UNREADABLE as error:
        raise ProjectError(f"the project {path} can't be unpacked, it is damaged: {error}") from None


def pack(folder: Path, target: Path) -> None:
    """Pack a folder's files into a zip file, which appears complete or not at all; ProjectError, OSError.

    A link to a file inside is packed as that file. Links that lead out of the folder, to folders or to nowhere, and
    special files are refused.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_name(f".{token_hex(8)}.new")
    try:
        with draft.open("xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
                _pack_all(archive, folder)
            file.flush()
            os.fsync(file.fileno())
        # What would be refused when it is unpacked is refused here.
        check_zip(draft)
        draft.rename(target)
        _sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def _pack_all(archive: zipfile.ZipFile, folder: Path) -> None:
    left, entries = MAX_BYTES, 0
    for path in _walk(folder, folder.resolve()):
        entries, left = entries + 1, left - path.stat().st_size
        if left < 0 or entries > zip_file.MAX_ENTRIES:
            raise ProjectError(f"{folder} has more than {MAX_BYTES // 1024**3} GiB or {zip_file.MAX_ENTRIES:,} entries")
        archive.write(path, path.relative_to(folder))


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    """Yield all folders and files below a folder, in the order of their names."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            if not (path.is_file() and path.resolve().is_relative_to(root)):
                raise ProjectError(f"{path} is a link that doesn't lead to a file inside of {root}")
            yield path
        elif path.is_dir():
            yield path
            yield from _walk(path, root)
        elif path.is_file():
            yield path
        else:
            raise ProjectError(f"{path} is neither a file nor a folder")


def _unpack_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, limit: int, is_stopped: Callable[[], bool]
) -> int:
    """Unpack one entry, and return how many bytes are still allowed after it."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    target = folder / _safe_name(entry.filename)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ProjectError(f"{entry.filename!r} is a link or a special file")
    if entry.is_dir() or kind == stat.S_IFDIR:
        target.mkdir(parents=True, exist_ok=True)
        return limit
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o777 if (entry.external_attr >> 16) & 0o111 else 0o666
    with archive.open(entry) as packed, open(_create(target, mode), "wb") as file:
        return _copy(packed, file, limit, is_stopped)


def _copy(packed: IO[bytes], file: IO[bytes], limit: int, is_stopped: Callable[[], bool]) -> int:
    while piece := packed.read(PIECE_BYTES):
        limit -= len(piece)
        if limit < 0:
            raise ProjectError(
                f"it has more than {MAX_BYTES // 1024**3} GiB, or more than {FREE_BYTES // 1024**2} MiB "
                f"and {MAX_RATIO} times what its zip file has"
            )
        if is_stopped():
            raise ProjectError("it was stopped")
        file.write(piece)
    return limit


def _create(path: Path, mode: int) -> int:
    """Create a new file, and return its descriptor; ProjectError for a second entry of the same name."""
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise ProjectError(f"{path.name!r} is in it twice") from None


def _safe_name(name: str) -> PurePosixPath:
    """Return an entry's name as a path below the folder; ProjectError if it leads out."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ProjectError(f"{name!r} leads out of the folder")
    return path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
