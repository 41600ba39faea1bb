"""What an archive has of each job: its segments and what says that they were deleted, found by names alone."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ci_eventstore.archive import Archive, object_name, safe_name, text_of
from ci_eventstore.errors import ConfigurationError, SegmentDamagedError, StoreFormatError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import ROOT_BYTES, Reference, StoredEntry
from ci_eventstore.history.copying import CopiedJob
from ci_eventstore.jobs.state import JobState, from_packed
from ci_eventstore.jobs.tombstones import DELETED, Deletion
from ci_eventstore.keys import Keys
from ci_eventstore.segments.segment import SegmentReader, check_segment, places_in
from ci_eventstore.segments.tail import Tail


@dataclass(slots=True)
class Folder:
    """What an archive has of a job of one incarnation."""

    path: str
    #: None if it can't be known.
    job_id: str | None = None
    incarnation: str | None = None
    #: Sizes by names.
    segments: dict[str, int] = field(default_factory=dict)
    deletions: list[Deletion] = field(default_factory=list)
    #: What else is there, and why it is nothing that is known.
    strange: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> Mapping[str, int]:
        """The segments that nothing says to be deleted."""
        return {
            name: size
            for name, size in self.segments.items()
            if not any(deletion.covers(name) for deletion in self.deletions)
        }


async def folders(archive: Archive, keys: Keys) -> AsyncIterator[Folder]:
    """Yield what the archive has of each job of a store; ArchiveUnavailableError.

    ConfigurationError if it has more partitions than the store: then jobs have other places.
    """
    store = safe_name(keys.prefix)
    found = [int(name) for name in await archive.folders(store) if name.isdecimal()]
    if max(found, default=0) >= keys.partitions:
        raise ConfigurationError(
            f"the archive has jobs of {max(found) + 1} partitions or more, the store has {keys.partitions}: open a new "
            "one once with as many as the old one had"
        )
    for partition in range(keys.partitions):
        folder = Folder("")
        async for page in archive.pages(f"{store}/{partition}"):
            for listed in page:
                path, _, name = listed.name.rpartition("/")
                if path != folder.path:
                    if folder.path:
                        yield await _identified(archive, keys, folder)
                    folder = Folder(path)
                if places_in(name):
                    folder.segments[name] = listed.size
                elif name.startswith(DELETED):
                    await _add_deletion(archive, folder, listed.name)
                else:
                    folder.strange[name] = "it has no name that this program gives"
        if folder.path:
            yield await _identified(archive, keys, folder)


async def _add_deletion(archive: Archive, folder: Folder, name: str) -> None:
    try:
        folder.deletions.append(Deletion.parse(name, await archive.get(name) or b""))
    except StoreFormatError as error:
        folder.strange[name.rpartition("/")[2]] = str(error)


async def _identified(archive: Archive, keys: Keys, folder: Folder) -> Folder:
    """Return the folder with the id of its job, if that is certain."""
    parts = folder.path.split("/")
    if len(parts) != len(("store", "partition", "job", "incarnation")):
        return folder
    found = text_of(parts[2]) or next((deletion.job_id for deletion in folder.deletions), None)
    if found is None and folder.segments:
        found = await _id_in(archive, f"{folder.path}/{next(iter(folder.segments))}")
    folder.incarnation = None if parts[3] == "-" else text_of(parts[3])
    if found is not None:
        partition = int(keys.job(found).tag.strip("{}").partition(":")[2])
        if object_name(keys.prefix, partition, found, folder.incarnation, "").rstrip("/") == folder.path:
            folder.job_id = found
    return folder


async def _id_in(archive: Archive, name: str) -> str | None:
    """Return the id that the tail of a segment has."""
    data = await archive.get(name) or b""
    try:
        return SegmentReader.of(data, len(data)).tail.job_id
    except SegmentDamagedError:
        return None


class _Kept(NamedTuple):
    """A segment of which all bytes were looked at."""

    reference: Reference
    tail: Tail


class ArchivedJob(CopiedJob):
    """A job as the archive has it, up to the end of its newest segment."""

    def __init__(self, archive: Archive, folder: Folder) -> None:
        assert folder.job_id is not None
        self.job_id = folder.job_id
        self._archive = archive
        self._folder = folder
        self._chain: list[_Kept] | None = None

    async def chain(self) -> Sequence[_Kept]:
        """Return the segments of the log, which are all there and in order; SegmentDamagedError."""
        if self._chain is None:
            found, sizes = list[_Kept](), self._folder.left
            wanted = max(sizes, key=last_place)
            while True:
                kept = await self._look(wanted, sizes[wanted])
                found.insert(0, kept)
                if not kept.tail.previous:
                    break
                root = kept.tail.previous[:ROOT_BYTES].hex()
                before = next((name for name in sizes if name.endswith(f"-{root}")), None)
                if before is None:
                    raise SegmentDamagedError(wanted, "the segment before it is missing")
                wanted = before
            self._chain = found
        return self._chain

    async def _look(self, name: str, size: int) -> _Kept:
        places = places_in(name)
        assert places is not None
        reference = Reference(Place(*places[0]), Place(*places[1]), size, bytes.fromhex(name[-2 * ROOT_BYTES :]))
        data = await self.segment(reference)
        check_segment(data, name, reference.root)
        tail = SegmentReader.of(data, size, name, reference.root).tail
        said = (tail.job_id, tail.incarnation, tail.first, tail.last)
        if said != (self.job_id, self._folder.incarnation, *places):
            raise SegmentDamagedError(name, "it is another job's")
        return _Kept(reference, tail)

    async def record(self) -> JobState | None:
        """Return the state at the end of the log."""
        last = (await self.chain())[-1]
        data = await self.segment(last.reference)
        reader = SegmentReader.of(data, last.reference.size, last.reference.name, last.reference.root)
        offset, size = reader.span(len(reader.tail.blocks) - 1)
        packed = reader.read(len(reader.tail.blocks) - 1, data[offset : offset + size]).state
        log = " ".join(str(kept.reference) for kept in await self.chain())
        return from_packed(self.job_id, packed).but(mark=last.tail.mark or None, log=log)

    async def check_missing(self) -> None:
        """Do nothing: whatever is here has a record."""

    async def segment(self, reference: Reference) -> bytes:
        """Return a segment's object; SegmentDamagedError if it isn't there."""
        data = await self._archive.get(f"{self._folder.path}/{reference.name}")
        if data is None:
            raise SegmentDamagedError(reference.name, "it is missing")
        return data

    async def milestones(self) -> Sequence[str]:
        """Return the entries of the sparse index."""
        return [entry for kept in await self.chain() for entry in kept.tail.milestones]

    async def pages(self, first: Place, state: JobState) -> AsyncIterator[Sequence[StoredEntry]]:
        """Yield the log from a place on."""
        for kept in await self.chain():
            if kept.reference.last < first:
                continue
            data = await self.segment(kept.reference)
            reader = SegmentReader.of(data, kept.reference.size, kept.reference.name, kept.reference.root)
            for block in reader.blocks(first, None):
                offset, size = reader.span(block)
                entries = reader.read(block, data[offset : offset + size]).entries
                found = [entry for entry in entries if Place.parse(entry[0]) >= first]
                if found:
                    yield found


def last_place(name: str) -> tuple[int, int]:
    """Return where a segment of that name ends. Pure."""
    places = places_in(name)
    assert places is not None
    return places[1]
