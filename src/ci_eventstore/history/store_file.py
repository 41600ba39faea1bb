"""A store's content as one file: a source and a target of copies like a store. docs/format.md has its bytes.

A file is Zstandard frames, each with a checksum, each of one array of msgpack. Its last frame has a digest of all
before it, so that nothing is missing from a file that has it. A file is read through before anything of it is used.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple

import msgpack
import zstandard

from ci_common.errors import RepositoryError
from ci_common.memory import MemoryJobRepository
from ci_common.models import APIKey, User, to_rfc3339
from ci_eventstore.accounts.records import api_key_from_hash, api_key_to_hash, user_from_hash, user_to_hash
from ci_eventstore.errors import StoreError, StoreFormatError
from ci_eventstore.events.log_source import at_places
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference, StoredEntry, references_in
from ci_eventstore.history.copied_stores import end_of
from ci_eventstore.history.copying import DIGEST_BYTES, TOGETHER, CopiedJob, Source, Taken, Target
from ci_eventstore.jobs.state import JobState, from_hash, to_hash
from ci_eventstore.jobs.tombstones import Tombstone
from ci_eventstore.keys import Keys
from ci_eventstore.projection.fold import Fold
from ci_eventstore.segments.payloads import Unpacked
from ci_eventstore.segments.segment import SegmentReader, check_segment

NAME = "ci-eventstore store"
VERSION = 1
#: The kinds of frames, in their order; those of a job follow it.
KINDS = ("user", "key", "gone", "job", "segment", "entries", "end")
#: Segments are packed already.
LEVEL = 3
CHUNK_BYTES = 64 * 1024
#: A frame has an entry, a segment, or a page of entries: one that is greater, unpacked, is none.
MAX_FRAME_BYTES = 1 << 30


def _packed(item: Sequence[object]) -> bytes:
    content: bytes = msgpack.packb(item, unicode_errors="surrogateescape")
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(content)


class Frame(NamedTuple):
    """A frame of a file: where it begins and where it ends, and what it holds."""

    start: int
    end: int
    kind: str
    content: list[Any]


class StoreFile(Target):
    """Writes such a file: what it takes is in it in that order. `finish` ends it."""

    def __init__(self, file: BinaryIO, prefix: str, incarnation: str | None) -> None:
        self._file = file
        self._keys = Keys(prefix)
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._size = 0
        self._counts = Counter[str]()
        #: A job's frames follow each other.
        self._lock = asyncio.Lock()
        about = {"prefix": prefix, "incarnation": incarnation, "time": to_rfc3339(datetime.now(UTC))}
        self._write(NAME, VERSION, about)

    async def incarnation(self) -> str | None:
        """Return None: any store may be written to a file."""
        return None

    def take_account(self, record: User | APIKey) -> None:
        """Write a user or an API key, with its hash."""
        if isinstance(record, User):
            self._write("user", user_to_hash(record))
        else:
            self._write("key", api_key_to_hash(record))

    async def take_tombstone(self, job_id: str, text: str) -> bool:
        """Write a tombstone."""
        Tombstone.parse(job_id, text)
        self._write("gone", job_id, text)
        return True

    async def take(self, job: CopiedJob, state: JobState) -> Taken:
        """Write a job, or nothing of it if it can't be read."""
        async with self._lock:
            begun = self._size, self._digest.copy(), self._counts.copy()
            try:
                await self._write_job(job, state)
            except BaseException:
                self._size, self._digest, self._counts = begun
                self._file.seek(self._size)
                self._file.truncate()
                raise
        return Taken.COPIED

    async def _write_job(self, job: CopiedJob, state: JobState) -> None:
        references = [one._replace(is_archived=False) for one in _references(job.job_id, state)]
        log = " ".join(map(str, references)) or None
        after = references[-1].last.next if references else Place(0)
        milestones = await job.milestones() if references else ()
        index = [entry for entry in milestones if int(entry.partition(" ")[0]) > after.position]
        self._write("job", job.job_id, to_hash(state.but(log=log)), index)
        fold = Fold(self._keys.job(job.job_id))
        for reference, one in zip(_references(job.job_id, state), references, strict=True):
            data = await job.segment(reference)
            check_segment(data, one.name, one.root)
            self._write("segment", one.name, data)
            fold.state, _ = end_of(job.job_id, one, data)
        async for page in job.pages(after, state):
            if any(isinstance(payload, Unpacked) for _, payload in page):
                raise StoreFormatError(
                    f"job {job.job_id!r} was sealed meanwhile: its entries aren't as they were written"
                )
            # Whatever is missing is found here, as in a store.
            fold.take(at_places(page))
            self._write("entries", page)

    async def finish(self) -> None:
        """Write what a reader knows by that nothing is missing, and send all to the disk's file; OSError."""
        self._write("end", dict(+self._counts), self._digest.digest())
        self._file.flush()

    def job(self, job_id: str) -> CopiedJob:
        """Raise StoreError: a file is compared by reading it."""
        raise StoreError(f"job {job_id!r} can't be read of a file that is written")

    def _write(self, kind: str, *content: object) -> None:
        data = _packed((kind, *content))
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
        self._counts[kind] += kind in KINDS


def _references(job_id: str, state: JobState) -> list[Reference]:
    return references_in(job_id, state.log) if state.log else []


@dataclass(slots=True)
class FiledJob(CopiedJob):
    """A job in a file: where its frames are."""

    read: Callable[[int], Frame]
    job_id: str
    state: JobState
    index: Sequence[str]
    #: Where each segment lies, and each page of entries, with the place of its last entry.
    segments: dict[str, int] = field(default_factory=dict)
    entries: list[tuple[Place, int]] = field(default_factory=list)

    async def record(self) -> JobState | None:
        """Return the job's state."""
        return self.state

    async def check_missing(self) -> None:
        """Do nothing: each job has a record."""

    async def segment(self, reference: Reference) -> bytes:
        """Return a segment."""
        data: bytes = self.read(self.segments[reference.name]).content[1]
        return data

    async def milestones(self) -> Sequence[str]:
        """Return the entries of the sparse index that segments don't have."""
        return self.index

    async def pages(self, first: Place, state: JobState) -> AsyncIterator[Sequence[StoredEntry]]:
        """Yield the log from a place on, a block or a page at a time."""
        for reference in _references(self.job_id, self.state):
            if reference.last >= first:
                data = await self.segment(reference)
                reader = SegmentReader.of(data, reference.size, reference.name, reference.root)
                for number in reader.blocks(first, None):
                    offset, size = reader.span(number)
                    if page := _from(first, reader.read(number, data[offset : offset + size]).entries):
                        yield page
                    await asyncio.sleep(0)
        for last, offset in self.entries:
            if last >= first:
                yield _from(first, [(place, payload) for place, payload in self.read(offset).content[0]])
                await asyncio.sleep(0)

    def add(self, frame: Frame) -> None:
        """Note the next frame of the job; StoreFormatError, ValueError."""
        if frame.kind == "segment":
            name, data = frame.content
            wanted = _references(self.job_id, self.state)[len(self.segments)]
            if (name, len(data)) != (wanted.name, wanted.size) or self.entries:
                raise ValueError(f"segment {name} isn't the one that its record says")
            check_segment(data, name, wanted.root)
            self.segments[name] = frame.start
        else:
            [page] = frame.content
            last = self.entries[-1][0] if self.entries else Place(0)
            for place, payload in page:
                if Place.parse(place) <= last or not isinstance(payload, bytes):
                    raise ValueError(f"no entry should be at {place!r}, after {last}")
                last = Place.parse(place)
            self.entries.append((last, frame.start))

    def check(self) -> None:
        """Refuse a job of which something is missing; ValueError."""
        references = _references(self.job_id, self.state)
        end = self.entries[-1][0] if self.entries else references[-1].last if references else None
        if len(self.segments) != len(references) or end != Place(self.state.position, self.state.part):
            raise ValueError(f"job {self.job_id!r} ends at {end}, and its record says otherwise")


def _from(first: Place, entries: Sequence[StoredEntry]) -> Sequence[StoredEntry]:
    """Return the entries of a page from a place on."""
    if not entries or Place.parse(entries[0][0]) >= first:
        return entries
    return entries[bisect_left(entries, first, key=lambda entry: Place.parse(entry[0])) :]


class StoreFileSource(Source):
    """Reads such a file; StoreFormatError says what is wrong with it, and at which byte."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.seek(0, 2)
        self._zstandard = zstandard.ZstdDecompressor()
        #: How many frames there are of each kind, once the file was checked.
        self.counts: Mapping[str, int] = {}

    def check(self) -> None:
        """Read all of it, and refuse it if a single byte isn't as it was written."""
        counts, end = Counter[str](), Frame(0, 0, "", [])

        def counted() -> Iterator[Frame]:
            nonlocal end
            for end in self._frames():
                counts[end.kind] += end.kind in KINDS[:-1]
                if end.kind in _READ:
                    _read(end)
                yield end

        for _ in self._filed_jobs(counted()):
            pass
        if end.content != [dict(+counts), self._digest_until(end.start)]:
            raise StoreFormatError(f"the {end.start} bytes before its end aren't what was written")
        self.counts = counts

    async def incarnation(self) -> str | None:
        """Return None: what a store has lost may come back from its own file."""
        return None

    async def count(self) -> int:
        """Return how many jobs the file says that it has."""
        return self.counts.get("job", 0)

    async def tombstones(self) -> AsyncIterator[Sequence[tuple[str, str]]]:
        """Yield the tombstones."""
        for frame in self._frames():
            if frame.kind == "gone":
                yield [(frame.content[0], frame.content[1])]
            elif frame.kind == "job":
                return

    async def jobs(self) -> AsyncIterator[Sequence[CopiedJob]]:
        """Yield the jobs, each with the places of its frames."""
        page: list[CopiedJob] = []
        for job in self._filed_jobs(self._frames()):
            page.append(job)
            if len(page) == TOGETHER:
                yield page
                page = []
        if page:
            yield page

    async def accounts(self) -> MemoryJobRepository:
        """Return users and API keys, in a repository to copy them from."""
        found = MemoryJobRepository()
        for frame in self._frames():
            record = _read(frame) if frame.kind in ("user", "key") else None
            try:
                if isinstance(record, User):
                    await found.create_user(record)
                elif isinstance(record, APIKey):
                    await found.create_api_key(record)
                elif frame.kind in KINDS:
                    break
            except RepositoryError as error:
                raise StoreFormatError(f"the frame at byte {frame.start}: {error}") from error
        return found

    def _filed_jobs(self, frames: Iterable[Frame]) -> Iterator[FiledJob]:
        job = None
        for frame in frames:
            try:
                if frame.kind in ("job", "end"):
                    if job is not None:
                        job.check()
                        yield job
                    job = self._job_in(frame) if frame.kind == "job" else None
                elif frame.kind in ("segment", "entries"):
                    if job is None:
                        raise ValueError("it belongs to no job")
                    job.add(frame)
            except (ValueError, TypeError, IndexError, StoreFormatError) as error:
                raise StoreFormatError(f"the frame at byte {frame.start}: {error}") from error

    def _job_in(self, frame: Frame) -> FiledJob:
        job_id, record, index = frame.content
        if not isinstance(job_id, str) or not all(isinstance(entry, str) for entry in index):
            raise ValueError(f"{job_id!r} and its index make no job")
        return FiledJob(self._frame_at, job_id, from_hash(job_id, _reply_of(record)), index)

    def _frames(self) -> Iterator[Frame]:
        """Yield all frames; the last one is the end."""
        start, before = 0, -1
        while True:
            frame = self._frame_at(start)
            if start == 0:
                if frame.kind != NAME:
                    raise StoreFormatError("it is no file of `ci-eventstore export-store`")
                if frame.content[0] != VERSION:
                    raise StoreFormatError(f"it has version {frame.content[0]!r}, this program reads {VERSION}")
            elif frame.kind not in KINDS or (KINDS.index(frame.kind) < min(before, KINDS.index("job"))):
                raise StoreFormatError(f"the frame at byte {start} is {frame.kind!r}, which doesn't belong there")
            yield frame
            before = KINDS.index(frame.kind) if frame.kind in KINDS else -1
            start = frame.end
            if frame.kind == "end":
                if start != self._end:
                    raise StoreFormatError(f"{self._end - start} bytes stand after its end")
                return

    def _frame_at(self, start: int) -> Frame:
        unpack = self._zstandard.decompressobj()
        parts, size, end = list[bytes](), 0, start
        self._file.seek(start)
        try:
            while not unpack.eof:
                data = self._file.read(CHUNK_BYTES)
                if not data:
                    raise StoreFormatError(f"it is cut off: it has {self._end} bytes, and no end")
                parts.append(unpack.decompress(data))
                size, end = size + len(parts[-1]), end + len(data)
                if size > MAX_FRAME_BYTES:
                    raise StoreFormatError(f"the frame at byte {start} is too big")
            end -= len(unpack.unused_data)
            kind, *content = msgpack.unpackb(b"".join(parts), unicode_errors="surrogateescape")
        except (zstandard.ZstdError, msgpack.UnpackException, ValueError, TypeError) as error:
            if start == 0:
                raise StoreFormatError(f"it is no file of `ci-eventstore export-store`, or damaged: {error}") from error
            raise StoreFormatError(f"the frame at byte {start} is damaged: {error}") from error
        return Frame(start, end, kind, content)

    def _digest_until(self, end: int) -> bytes:
        digest, left = blake2b(digest_size=DIGEST_BYTES), end
        self._file.seek(0)
        while left and (data := self._file.read(min(left, CHUNK_BYTES))):
            digest.update(data)
            left -= len(data)
        return digest.digest()


def _reply_of(record: object) -> list[bytes]:
    """Return the fields of a record as a server would; ValueError."""
    if not isinstance(record, dict) or not all(isinstance(text, str) for pair in record.items() for text in pair):
        raise ValueError(f"{record!r} is no record")
    return [text.encode("utf-8", "surrogateescape") for pair in record.items() for text in pair]


def _id_in(record: object) -> str:
    return str(record.get("id")) if isinstance(record, dict) else ""


#: What is read of frames that stand by themselves.
_READ: Mapping[str, Callable[..., User | APIKey | Tombstone]] = {
    "user": lambda record: user_from_hash(_id_in(record), _reply_of(record)),
    "key": lambda record: api_key_from_hash(_id_in(record), _reply_of(record)),
    "gone": Tombstone.parse,
}


def _read(frame: Frame) -> User | APIKey | Tombstone:
    """Return what such a frame holds; StoreFormatError."""
    try:
        return _READ[frame.kind](*frame.content)
    except (StoreFormatError, ValueError, TypeError, AttributeError) as error:
        raise StoreFormatError(f"the frame at byte {frame.start}: {error}") from error
