"""Tombstones: what stays of a deleted job, so that its id is given to no other, and whoever asks for it is told.

Where the store has an archive, an object there says the same, and that a log was deleted. It is written before anything
is deleted. So what an older store, restored from a backup, has of it again is known to be deleted.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.archive import Archive
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_text
from ci_eventstore.errors import ArchiveDiffersError, StoreFormatError
from ci_eventstore.events.archived_log import name_in_archive
from ci_eventstore.events.records import Place
from ci_eventstore.facts.facts import STATUS_LETTERS, STATUSES
from ci_eventstore.keys import JobKeys, gone_key
from ci_eventstore.members import SORT_KEY_LENGTH, sort_key_of
from ci_eventstore.segments.segment import places_in


class Reason(Enum):
    """Why a job was deleted; the value is its letter in a tombstone."""

    #: Somebody asked for it.
    ASKED = "a"
    #: A policy of retention.
    RETENTION = "r"


class Tombstone(NamedTuple):
    """What is known of a deleted job: nothing that a user wrote, nor whose it was."""

    reason: Reason
    #: Its last.
    status: JobStatus
    #: Sort keys of its creation and of its end.
    created: str
    ended: str
    #: The job's, which is the token of its creation; "" for older jobs.
    incarnation: str
    #: The server's time of the deletion, in milliseconds since 1970; a new tombstone gets it by the script.
    deleted_ms: int = 0

    @property
    def letters(self) -> str:
        """What it begins with in the store; then comes the time."""
        return self.reason.value + STATUS_LETTERS[self.status]

    @property
    def rest(self) -> str:
        """What comes after the time."""
        return f"{self.created} {self.ended} {self.incarnation}"

    @classmethod
    def parse(cls, job_id: str, text: str) -> "Tombstone":
        """Read what stands in the store; StoreFormatError."""
        try:
            letters, deleted_ms, created, ended, incarnation = text.split(" ")
            keys = _sort_key(created), _sort_key(ended)
            return cls(Reason(letters[:1]), STATUSES[letters[1:]], *keys, incarnation, int(deleted_ms))
        except (ValueError, KeyError, IndexError) as error:
            raise StoreFormatError(f"the tombstone of job {job_id!r} can't be read: {error}") from error


def _sort_key(text: str) -> str:
    """Return the sort key in a tombstone, of which those from before version 4 of the format have sixteen digits."""
    return text if len(text) == SORT_KEY_LENGTH else sort_key_of(int(text, 16))


async def read_tombstone(nodes: Nodes, keys: JobKeys) -> Tombstone | None:
    """Return a job's tombstone, None if it has none; StoreFormatError, StoreUnavailableError."""
    [found] = await nodes.read_many([("HGET", gone_key(keys.tag), keys.job_id)])
    return None if found is None or found is WRONG_TYPE else Tombstone.parse(keys.job_id, as_text(found))


#: What the names of deletions begin with.
DELETED = "deleted-"


class Deletion(NamedTuple):
    """What an archive says of a job that was deleted, or whose log was: an object in the folder of the job."""

    job_id: str
    #: Of the job, with the time; None if its log alone was deleted.
    tombstone: Tombstone | None = None
    #: Up to where the log was deleted, if the job stays.
    until: Place = Place(0)

    @property
    def name(self) -> str:
        """The object's name, without its folder."""
        said = f"{self.until.position}.{self.until.part}" if self.tombstone is None else self.tombstone.reason.value
        return DELETED + said

    @property
    def data(self) -> bytes:
        """What the object holds."""
        stone = self.tombstone
        said = str(self.until) if stone is None else f"{stone.letters} {stone.deleted_ms} {stone.rest}"
        return f"{said}\n{self.job_id}".encode("utf-8", "surrogatepass")

    @classmethod
    def parse(cls, name: str, data: bytes) -> "Deletion":
        """Read an object, of whatever folder; StoreFormatError."""
        try:
            said, _, job_id = data.decode("utf-8", "surrogatepass").partition("\n")
            is_of_job = " " in said
            tombstone = Tombstone.parse(job_id, said) if is_of_job else None
            found = cls(job_id, tombstone, Place(0) if is_of_job else Place.parse(said.encode()))
            if not job_id or found.name != name.rpartition("/")[2]:
                raise ValueError("it isn't what its name says")
        except ValueError as error:
            raise StoreFormatError(f"what {name} says was deleted can't be read: {error}") from error
        return found

    def covers(self, name: str) -> bool:
        """Return whether the object of a name, without its folder, was deleted. Pure."""
        places = places_in(name)
        return places is not None and (self.tombstone is not None or places[1] <= self.until)


async def note_deletion(archive: Archive, keys: JobKeys, incarnation: str | None, deletion: Deletion) -> None:
    """Say in the archive what is about to be deleted; also again. ArchiveUnavailableError, StoreFormatError."""
    name = name_in_archive(keys, incarnation, deletion.name)
    try:
        await archive.put(name, deletion.data)
    except ArchiveDiffersError:
        # It was said before, at another time.
        Deletion.parse(name, await archive.get(name) or b"")


async def remove_deleted(archive: Archive, keys: JobKeys, incarnation: str | None, deletion: Deletion) -> None:
    """Remove the objects of what was deleted, as far as they are there; ArchiveUnavailableError."""
    await _remove(archive, keys, incarnation, deletion.covers)


async def forget_deletion(archive: Archive, keys: JobKeys, tombstone: Tombstone) -> None:
    """Remove all that the archive has of a deleted job, what says so last; ArchiveUnavailableError."""
    await remove_deleted(archive, keys, tombstone.incarnation, Deletion(keys.job_id, tombstone))
    await _remove(archive, keys, tombstone.incarnation, lambda name: name.startswith(DELETED))


async def _remove(archive: Archive, keys: JobKeys, incarnation: str | None, takes: Callable[[str], bool]) -> None:
    async for page in archive.pages(name_in_archive(keys, incarnation, "").rstrip("/")):
        for listed in page:
            if takes(listed.name.rpartition("/")[2]):
                await archive.delete(listed.name)
