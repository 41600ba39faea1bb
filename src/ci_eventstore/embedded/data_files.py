"""Whether a directory's data is still there: a server that finds none begins with an empty store, without a word.

A server that has answered has its data in `appendonlydir`, which the file `store` beside it notes. Programs that didn't
write that file yet have left the server's log.
"""

from contextlib import suppress
from pathlib import Path

from ci_eventstore.embedded.server_log import was_served
from ci_eventstore.errors import EmbeddedServerError

_NOTE = "store"
_MANIFEST = Path("appendonlydir") / "appendonly.aof.manifest"


def note_data(directory: Path) -> None:
    """Note that there is data, once the server has answered; where nothing can be written, the next start does."""
    note = directory / _NOTE
    with suppress(OSError):
        if not note.exists() and (directory / _MANIFEST).exists():
            note.write_text(
                "The data of the store is in appendonlydir: keep them together, and remove them together.\n"
            )


def refuse_lost_data(directory: Path) -> None:
    """Raise EmbeddedServerError if there was data, and it is gone: the server would go on with an empty store."""
    if (directory / _MANIFEST).exists() or not ((directory / _NOTE).exists() or was_served(directory)):
        return
    raise EmbeddedServerError(
        f"the store in {directory} is gone: {directory / _MANIFEST} is missing. Restore appendonlydir from a backup; "
        f"or remove {directory}, to begin with an empty store"
    )
