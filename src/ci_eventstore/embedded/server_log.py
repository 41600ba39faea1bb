"""The file that server and watchdog write to."""

from io import BufferedWriter
from pathlib import Path

NAME = "server.log"
#: When it is bigger, the next start makes it `server.log.1`.
LARGEST_BYTES = 1 << 20
#: What a server writes when it has its data.
_READY = b"Ready to accept connections"
_SHOWN_BYTES = 2000
_SHOWN_LINES = 12


def open_log(directory: Path) -> BufferedWriter:
    """Open the log to append to it; only while no server runs."""
    path = directory / NAME
    if path.exists() and path.stat().st_size > LARGEST_BYTES:
        path.replace(path.with_name(f"{NAME}.1"))
    return path.open("ab")


def end_of_log(directory: Path, start: int) -> str:
    """Return the last lines that were written after a position, to be shown in an error."""
    try:
        with (directory / NAME).open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - _SHOWN_BYTES))
            text = log.read().decode(errors="replace")
    except OSError as error:
        return f"its log can't be read: {error}"
    lines = [f"    {line}" for line in text.splitlines()[-_SHOWN_LINES:] if line.strip()]
    return "\n".join([f"the end of {directory / NAME}:", *lines]) if lines else "it wrote nothing to its log"


def was_served(directory: Path) -> bool:
    """Tell whether a server has had its data here, as far as its log goes back."""
    for name in (NAME, f"{NAME}.1"):
        try:
            if _READY in (directory / name).read_bytes():
                return True
        except OSError:
            continue
    return False
