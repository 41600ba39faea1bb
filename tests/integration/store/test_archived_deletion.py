"""What is deleted has no object left but the one that says so; stopped anywhere, it is deleted by the next call."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path

import pytest

from ci_common.errors import JobGoneError, LogDeletedError
from ci_eventstore.archive import MARK, OWNER, Archive
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ArchiveUnavailableError, StoreFormatError
from ci_eventstore.events.records import Place
from ci_eventstore.history.archiving import Moved
from ci_eventstore.history.retention import sweep
from ci_eventstore.history.rules import Rule
from ci_eventstore.jobs.tombstones import Deletion, Reason, Tombstone, read_tombstone
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from tests.cancelling import Counted, Steps
from tests.examples import slow
from tests.integration.store.sealing import archive_sealed, ended_job, lines, seal_job
from tests.integration.store.test_archiving import archive, unarchive

Delete = Callable[[RedisJobRepository, str], Awaitable[bool]]
DELETES: dict[str, Delete] = {
    "job": lambda repository, job_id: repository.delete_job(job_id),
    "log": lambda repository, job_id: repository.delete_log(job_id),
}
each_deletion = pytest.mark.parametrize("what", list(DELETES))


def objects(folder: Path) -> set[str]:
    """Return the names of all objects but those that say what the folders are, without their folders."""
    return {path.name for path in folder.rglob("*") if path.is_file()} - {MARK, OWNER}


def deletions(folder: Path) -> set[str]:
    """Return what is said to be deleted."""
    return {name for name in objects(folder) if name.startswith("deleted-")}


async def archived_job(repository: RedisJobRepository, folder: Path, job_id: str = "j", count: int = 5) -> None:
    """Have an archived job."""
    await ended_job(repository, job_id, count)
    await seal_job(repository, job_id)
    await archive_sealed(repository, folder, job_id)


TOMBSTONE = Tombstone(Reason.RETENTION, "failed", "0" * 10, "1" * 10, "ab", 1234)  # type: ignore[arg-type]


@pytest.mark.parametrize("deletion", [Deletion("a\nb\ud800", TOMBSTONE), Deletion("ü", until=Place(12, 3))])
def test_what_an_object_says(deletion: Deletion) -> None:
    """It is read as it was written; under another name, or cut, it says nothing."""
    assert Deletion.parse(f"ci/0/x/y/{deletion.name}", deletion.data) == deletion
    for name, data in (("deleted-z", deletion.data), (deletion.name, deletion.data[:6]), (deletion.name, b"")):
        with pytest.raises(StoreFormatError):
            Deletion.parse(name, data)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("0.1-12.3-0123456789abcdef", [True, True]), ("0.1-13.0-0123456789abcdef", [True, False]),
     ("deleted-a", [False, False]), ("another", [False, False])],
)  # fmt: skip
def test_what_it_covers(name: str, expected: list[bool]) -> None:
    """All segments of a deleted job; of a deleted log those that end before the place; nothing else."""
    assert [Deletion("j", TOMBSTONE).covers(name), Deletion("j", until=Place(12, 3)).covers(name)] == expected


@each_deletion
@pytest.mark.parametrize("lies", ["archived", "unarchived", "sealed", "live"])
@pytest.mark.usefixtures("small_segments")
async def test_nothing_is_left_but_what_says_so(
    repository: RedisJobRepository, tmp_path: Path, what: str, lies: str
) -> None:
    """Wherever the log lies, also if objects of it are there that no record refers to."""
    await archived_job(repository, tmp_path, "other")
    others = objects(tmp_path)
    await ended_job(repository, count=700)
    if lies != "live":
        await seal_job(repository)
    if lies in ("archived", "unarchived"):
        await archive_sealed(repository, tmp_path)
        assert objects(tmp_path) > others
    if lies == "unarchived":
        await unarchive(repository)
    assert await DELETES[what](repository, "j")
    [said] = objects(tmp_path) - others
    assert said == ("deleted-a" if what == "job" else "deleted-701.0")
    assert not await DELETES[what](repository, "j")
    assert len(objects(tmp_path)) == len(others) + 1
    assert await repository.verify(deep=True) == []
    assert len(await repository.get_events_since("other", 0)) == 6


async def test_a_log_goes_on_after_its_deletion(repository: RedisJobRepository, tmp_path: Path) -> None:
    """What comes later is sealed, archived, and stays when the deletion is repeated."""
    await archived_job(repository, tmp_path)
    assert await repository.delete_log("j")
    await repository.add_events("j", lines(3))
    await seal_job(repository)
    assert await archive(repository, tmp_path) is Moved.MOVED
    repository.engine.reader.source.sealed.forget()
    assert len(await repository.get_events_since("j", 6)) == 3
    assert await repository.verify(deep=True) == []
    assert await repository.delete_log("j")
    await seal_job(repository)
    assert await archive(repository, tmp_path) is Moved.MOVED
    assert not await repository.delete_log("j")
    repository.engine.reader.source.sealed.forget()
    assert await repository.verify(deep=True) == []
    assert await repository.get_job_summary("j") is not None
    with pytest.raises(LogDeletedError):
        await repository.get_events_since("j", 0)


@each_deletion
async def test_an_archive_that_is_away_refuses(repository: RedisJobRepository, tmp_path: Path, what: str) -> None:
    """Nothing is deleted where it can't be said in the archive; of any job of the store."""
    await archived_job(repository, tmp_path)
    await ended_job(repository, "live", 5)
    mark = (tmp_path / MARK).read_bytes()
    (tmp_path / MARK).unlink()
    before = objects(tmp_path)
    for job_id in ("j", "live"):
        with pytest.raises(ArchiveUnavailableError):
            await DELETES[what](repository, job_id)
        assert len(await repository.get_events_since(job_id, 0)) == 6
    assert objects(tmp_path) == before
    (tmp_path / MARK).write_bytes(mark)
    for job_id in ("j", "live"):
        assert await DELETES[what](repository, job_id)
        assert len(objects(tmp_path / "ci/0" / job_id)) == 1


@each_deletion
async def test_it_goes_away_after_that(
    repository: RedisJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The job or its log is deleted, which the error says by the way; its objects go with the next call."""
    await archived_job(repository, tmp_path)

    async def away(archive: Archive, name: str) -> None:
        raise ArchiveUnavailableError(archive.url, f"away ({name})")

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "delete", away)
        with pytest.raises(ArchiveUnavailableError):
            await DELETES[what](repository, "j")
    with pytest.raises((JobGoneError, LogDeletedError)):
        await repository.get_events_since("j", 0)
    assert len(objects(tmp_path)) == 2
    assert not await DELETES[what](repository, "j")
    assert objects(tmp_path) == deletions(tmp_path)


@pytest.mark.parametrize(
    ("what", "beside"),
    [
        ("job", "alone"),
        *(slow(*both) for both in product(DELETES, ("archiver", "another"))),
        slow("log", "alone"),
    ],
)
async def test_it_may_stop_anywhere(repository: RedisJobRepository, tmp_path: Path, what: str, beside: str) -> None:
    """Cancelled at any await: all of it is there or it is said to be deleted; the next call leaves nothing.

    Beside an archiver, beside another deletion; each goes on where the other one stopped.
    """
    at = 0
    while True:
        at += 1
        job_id = f"j{at}"
        await ended_job(repository, job_id, 5)
        await seal_job(repository, job_id)
        if beside != "archiver":
            await archive_sealed(repository, tmp_path, job_id)
        also: list[Awaitable[object]] = [archive(repository, tmp_path, job_id)] if beside == "archiver" else []
        also += [DELETES[what](repository, job_id)] if beside == "another" else []
        steps = Steps(at, 1)

        async def work(job_id: str = job_id) -> None:
            await DELETES[what](repository, job_id)

        steps.victim = task = asyncio.create_task(Counted(work(), steps))
        await asyncio.gather(task, *also, return_exceptions=True)
        repository.engine.reader.source.sealed.forget()
        try:
            assert len(await repository.get_events_since(job_id, 0)) == 6
        except (JobGoneError, LogDeletedError):
            assert list((tmp_path / "ci/0" / job_id).rglob("deleted-*"))
        await DELETES[what](repository, job_id)
        assert objects(tmp_path / "ci/0" / job_id) == deletions(tmp_path / "ci/0" / job_id)
        assert await repository.verify() == []
        if not steps.was_reached:
            break
    assert at > 5


async def test_retention_says_so_first_and_takes_it_back(
    repository: RedisJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes the same way; if a job is kept just after that was said, the job stays, and isn't said to be deleted."""
    await archived_job(repository, tmp_path)
    await archived_job(repository, tmp_path, "kept")
    put = Archive.put

    async def keeping(archive: Archive, name: str, data: bytes) -> None:
        await put(archive, name, data)
        if "/kept/" in name:
            await repository.keep_job("kept")

    monkeypatch.setattr(Archive, "put", keeping)
    swept = await sweep(repository.engine, [Rule(older_than_seconds=0, takes_unsealed=True)])
    assert (swept.deleted, swept.left) == (["j"], {})
    assert deletions(tmp_path) == {"deleted-r"}
    assert not list((tmp_path / "ci/0/kept").rglob("deleted-*"))
    assert len(await repository.get_events_since("kept", 0)) == 6


async def test_what_was_said_has_the_tombstone(
    repository: RedisJobRepository, server: Nodes, keys: Keys, tmp_path: Path
) -> None:
    """All but the milliseconds between them: why, how and when it ended, which job it was; nothing of the user."""
    await archived_job(repository, tmp_path)
    await repository.delete_job("j")
    path = next(tmp_path.rglob("deleted-a"))  # noqa: ASYNC240 - of a test
    tombstone = await read_tombstone(server, keys.job("j"))
    assert tombstone is not None
    said = Deletion.parse(path.name, path.read_bytes())
    assert said.job_id == "j"
    assert said.tombstone is not None
    assert said.tombstone._replace(deleted_ms=tombstone.deleted_ms) == tombstone
    assert abs(said.tombstone.deleted_ms - tombstone.deleted_ms) < 60_000
    assert re.fullmatch(rb"[ar]c \d+( [-\w]{10}){2} [a-z2-7]{12}\nj", path.read_bytes())
