"""Where the socket is: in a private folder with a short path, which the data directory's `socket` file names.

The file is needed because processes of one user may have different environments: cron sets no XDG_RUNTIME_DIR, and so
its processes would look for the socket elsewhere than those of a login session.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ci_eventstore.errors import EmbeddedServerError

#: How long a socket's path may be, in bytes: what macOS takes, 4 less than Linux.
LONGEST_SOCKET_PATH = 103
_RECORD = "socket"


def current_socket(directory: Path) -> Path:
    """Return where the socket of this user's server is, or would be made now."""
    user_id = os.geteuid()
    return recorded_socket(directory, user_id) or default_socket(directory, os.environ, user_id)


def default_socket(directory: Path, environment: Mapping[str, str], user_id: int) -> Path:
    """Return where to make the socket for a data directory, which is given without symbolic links."""
    place = Path(_folder_name(directory)) / "server.sock"
    session = environment.get("XDG_RUNTIME_DIR", "")
    preferred = Path(session) / "ci-eventstore" / place
    if _is_own_session(session, user_id) and len(os.fsencode(preferred)) <= LONGEST_SOCKET_PATH:
        return preferred
    return Path(f"/tmp/ci-eventstore-{user_id}") / place


def recorded_socket(directory: Path, user_id: int) -> Path | None:
    """Return where the last server's socket was made; None if there was none, or others can write there now.

    None also in a copied data directory, whose record names the original's socket.
    """
    try:
        socket = Path(os.fsdecode((directory / _RECORD).read_bytes()))
        folders = _folders_of(socket)
        is_private = all(fault_of(folder.lstat(), user_id) is None for folder in folders)
    except (OSError, ValueError):
        return None
    return socket if is_private and socket.parent.name == _folder_name(directory) else None


def record_socket(directory: Path, socket: Path) -> None:
    """Write down where the socket is, at once or not at all. OSError, such as for a full disk."""
    draft = directory / f"{_RECORD}.new"
    draft.write_bytes(os.fsencode(socket))
    draft.replace(directory / _RECORD)


def make_private(socket: Path, user_id: int) -> None:
    """Make the socket's folders; EmbeddedServerError if others could put something there."""
    for folder in _folders_of(socket):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if fault := fault_of(folder.lstat(), user_id):
            raise EmbeddedServerError(
                f"the folder {folder} {fault}, so the embedded server's socket can't be put there: "
                "remove it, or set XDG_RUNTIME_DIR to a folder that only you can use"
            )


def fault_of(status: os.stat_result, user_id: int) -> str | None:
    """Return why a folder isn't private to a user; None if it is."""
    if not stat.S_ISDIR(status.st_mode):
        return "isn't a folder"
    if status.st_uid != user_id:
        return f"belongs to user {status.st_uid}, not to {user_id}"
    if status.st_mode & 0o077:
        return f"may be used by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _folder_name(directory: Path) -> str:
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]


def _folders_of(socket: Path) -> tuple[Path, Path]:
    return socket.parent.parent, socket.parent


def _is_own_session(folder: str, user_id: int) -> bool:
    try:
        return os.path.isabs(folder) and fault_of(Path(folder).stat(), user_id) is None
    except OSError:
        return False
