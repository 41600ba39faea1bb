"""An archive is compared with its store, and gives back what an older store lacks: nothing deleted comes with it."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path

import pytest

from ci_common.errors import JobGoneError, JobNotFoundError, LogDeletedError
from ci_common.models import Job, JobEvent
from ci_eventstore.archive import Archive
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import Reference
from ci_eventstore.history.archive_check import ArchiveReport, Known, Verdict, check_archive, judge
from ci_eventstore.history.archive_rebuild import RebuildReport, delete_again, rebuild_from_archive
from ci_eventstore.history.archived_jobs import Folder
from ci_eventstore.history.archiving import Moved
from ci_eventstore.history.seal import Sealed
from ci_eventstore.jobs.tombstones import Deletion
from ci_eventstore.repository import RedisJobRepository
from tests.cancelling import Counted, Steps
from tests.integration.store.sealing import NOW, archive_sealed, lines, seal_job
from tests.integration.store.test_archived_deletion import TOMBSTONE, archived_job, objects
from tests.integration.store.test_archiving import archive, unarchive
from tests.servers import RealServer

Before = dict[str, tuple[bytes, int]]

SEGMENT = "0.1-9.0-0123456789abcdef"
SAME = Reference(Place(0, 1), Place(9), 1, bytes.fromhex("0123456789abcdef"))
OTHER = SAME._replace(root=b"x" * 8)
OF_JOB, OF_LOG = Deletion("j", TOMBSTONE), Deletion("j", until=Place(9, 1))


@pytest.mark.parametrize(
    ("deletions", "known", "expected"),
    [
        ([], Known(None), Verdict.UNKNOWN),
        ([], Known(None, is_deleted=True), Verdict.ORPHAN),
        ([OF_JOB], Known(None), Verdict.ORPHAN),
        ([OF_LOG], Known(None), Verdict.ORPHAN),
        ([], Known([SAME]), Verdict.NEEDED),
        ([], Known([SAME._replace(is_archived=True)]), Verdict.NEEDED),
        ([OF_JOB], Known([SAME]), Verdict.UNKNOWN),
        ([OF_LOG], Known([SAME]), Verdict.UNKNOWN),
        ([OF_LOG], Known([], deleted_to=9), Verdict.ORPHAN),
        ([OF_LOG], Known([], deleted_to=8), Verdict.UNKNOWN),
        ([OF_LOG], Known([]), Verdict.UNKNOWN),
        ([], Known([], deleted_to=9), Verdict.UNKNOWN),
        ([], Known([]), Verdict.UNKNOWN),
        ([], Known([OTHER]), Verdict.ORPHAN),
        ([], Known([OTHER._replace(last=Place(20))]), Verdict.ORPHAN),
        ([], Known([OTHER._replace(last=Place(8))]), Verdict.UNKNOWN),
        ([], Known([OTHER._replace(first=Place(1))]), Verdict.UNKNOWN),
    ],
)
def test_what_becomes_of_an_object(deletions: list[Deletion], known: Known, expected: Verdict) -> None:
    """Only what another segment has all of, or what was deleted, is nobody's any more."""
    assert judge(SEGMENT, Folder("p", "j", deletions=deletions), known)[0] is expected


async def check(repository: RedisJobRepository, *, deep: bool = False, remove: bool = False) -> ArchiveReport:
    """Compare them."""
    return await check_archive(repository.engine, await archive_of(repository), is_deep=deep, removes=remove)


async def rebuild(repository: RedisJobRepository) -> RebuildReport:
    """Bring back what the store lacks."""
    return await rebuild_from_archive(repository.engine, await archive_of(repository))


async def archive_of(repository: RedisJobRepository) -> Archive:
    """Return the store's archive."""
    engine = repository.engine
    found = await engine.reader.source.sealed.archived.archive(engine.keys.tags[0])
    assert found is not None
    return found


async def saved(server: Nodes) -> Before:
    """Return what a backup of the server has."""
    keys = [key async for page in server.scan("*") for key in page]
    return {key: (await server.read("DUMP", key), max(await server.read("PTTL", key), 0)) for key in keys}


async def restore(repository: RedisJobRepository, server: Nodes, backup: Before) -> None:
    """Have the server hold what a backup has."""
    await server.read("FLUSHALL")
    for key, (data, ttl) in backup.items():
        await server.read("RESTORE", key, ttl, data)
    repository.engine.reader.source.sealed.forget()


async def all_of(repository: RedisJobRepository) -> dict[str, Job | None]:
    """Return all jobs with their logs."""
    return {job.id: await repository.get_job(job.id) for job in await repository.page_jobs()}


@pytest.mark.parametrize("deep", [False, True])
async def test_damage_is_named(repository: RedisJobRepository, tmp_path: Path, deep: bool) -> None:
    """A missing, shorter, longer or another's object; one of which a byte is another by a deep look, at least."""
    await archived_job(repository, tmp_path, count=700)
    await archived_job(repository, tmp_path, "other")
    report = await check(repository, deep=deep)
    assert (report.jobs, report.objects, report.is_whole, report.orphans, report.unknown) == (2, 2, True, [], {})
    path = next((tmp_path / "ci/0/j").rglob("0.1-*"))
    of_other = next((tmp_path / "ci/0/other").rglob("0.1-*"))
    data = path.read_bytes()
    flipped = data[:20] + bytes([data[20] ^ 1]) + data[21:]
    for damaged in (None, data[:-1], data + b"x", of_other.read_bytes(), flipped):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        report = await check(repository, deep=deep, remove=True)
        assert list(report.damaged) == ["j"] or (damaged is flipped and not deep)
        assert (report.removed, report.orphans) == (0, [])
        path.touch()
        path.write_bytes(data)
    assert (await check(repository, deep=True)).is_whole


async def test_only_what_nobody_needs_is_removed(repository: RedisJobRepository, server: Nodes, tmp_path: Path) -> None:
    """Replaced by a longer segment, or left of a deleted job; not what is beside the store, unknown, or strange."""
    await archived_job(repository, tmp_path, "late")
    await repository.add_event("late", JobEvent("log", "late\n"))
    assert (await check(repository, remove=True)).removed == 0
    assert await seal_job(repository, "late") is Sealed.SEALED
    await archived_job(repository, tmp_path, "back")
    await unarchive(repository, "back")
    await archived_job(repository, tmp_path, "A strange/id")
    await archived_job(repository, tmp_path, "lost")
    await server.read("DEL", "{ci:0}:job:lost")
    left = next((tmp_path / "ci/0/lost").rglob("0.1-*"))
    await archived_job(repository, tmp_path, "gone")
    kept = next((tmp_path / "ci/0/gone").rglob("0.1-*"))
    data = kept.read_bytes()
    await repository.delete_job("gone")
    kept.write_bytes(data)
    (tmp_path / "ci/0/note.txt").write_text("somebody's")
    (tmp_path / "ci/0/nobody").mkdir()
    (tmp_path / "ci/0/nobody" / left.name).write_bytes(b"x")
    before = objects(tmp_path)
    report = await check(repository)
    assert objects(tmp_path) == before
    assert sorted(name.split("/")[2] for name in report.orphans) == ["gone", "late"]
    lost = left.relative_to(tmp_path).as_posix()
    assert sorted(report.unknown) == sorted(["ci/0", "ci/0/nobody", "ci/0/note.txt", lost])
    report = await check(repository, remove=True)
    assert (report.removed, report.is_whole) == (2, True)
    assert not kept.exists()
    assert left.exists()
    assert (await check(repository, remove=True)).removed == 0
    assert len(await repository.get_events_since("late", 0)) == 7
    assert len(await repository.get_events_since("A strange/id", 0)) == 6
    assert await archive(repository, tmp_path, "back") is Moved.MOVED
    assert (await rebuild(repository)).brought == ["lost"]


async def test_what_was_deleted_is_deleted_again_first(
    repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """Of a store that has it from an older backup, before anything is brought that this lacks."""
    await asyncio.gather(*(archived_job(repository, tmp_path, name) for name in ("stays", "goes", "loses its log")))
    backup = await saved(server)
    await archived_job(repository, tmp_path, "later")
    await repository.delete_job("goes")
    await repository.delete_log("loses its log")
    await restore(repository, server, backup)
    assert await repository.get_job_summary("goes") is not None
    for again in (True, False):
        report = await delete_again(repository.engine, await archive_of(repository))
        deleted = ["goes", "loses its log"] if again else []
        assert (sorted(report.deleted), report.brought, report.left) == (deleted, [], {})
        with pytest.raises(JobGoneError):
            await repository.get_job("goes")
        with pytest.raises(LogDeletedError):
            await repository.get_events_since("loses its log", 0)
        assert len(await repository.get_events_since("stays", 0)) == 6
        assert await repository.get_job("later") is None
    assert (await rebuild(repository)).brought == ["later"]


@pytest.mark.usefixtures("small_segments")
async def test_a_server_that_lost_all_gets_it_back(
    repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """Small and large jobs, with late output and deleted logs, whatever their ids: nothing deleted."""
    await archived_job(repository, tmp_path, "small")
    await archived_job(repository, tmp_path, "A large/one ü", count=700)
    await repository.add_events("small", lines(3))
    await archived_job(repository, tmp_path, "without log")
    await repository.delete_log("without log")
    await repository.add_events("without log", lines(2))
    for job_id in ("small", "without log"):
        await seal_job(repository, job_id)
        assert await archive(repository, tmp_path, job_id) is Moved.MOVED
    await archived_job(repository, tmp_path, "gone")
    await repository.delete_job("gone")
    repository.engine.reader.source.sealed.forget()
    before = {job_id: await repository.get_job_summary(job_id) for job_id in ("small", "A large/one ü", "without log")}
    events = {job_id: await repository.get_events_since(job_id, 6) for job_id in before}
    await server.read("FLUSHALL")
    repository.engine.reader.source.sealed.forget()
    await repository.engine.reader.source.sealed.archived.remember(
        repository.engine.keys, tmp_path.as_uri(), takes_over=True
    )
    report = await rebuild(repository)
    assert (sorted(report.brought), report.deleted, report.left) == (sorted(before), ["gone"], {})
    assert {job_id: await repository.get_job_summary(job_id) for job_id in before} == before
    assert {job_id: await repository.get_events_since(job_id, 6) for job_id in before} == events
    assert await repository.verify(deep=True) == []
    assert [key async for page in server.scan("{ci:0}:segment:*") for key in page] == []
    with pytest.raises(JobGoneError):
        await repository.get_job("gone")
    with pytest.raises(LogDeletedError):
        await repository.get_events_since("without log", 0)
    again = await rebuild(repository)
    assert (again.brought, again.deleted, again.left) == ([], [], {})
    assert (await check(repository, deep=True)).is_whole


async def late(repository: RedisJobRepository, folder: Path) -> None:
    """Have late output, sealed and archived with the rest, and what it replaces removed."""
    await repository.add_events("j", lines(3))
    await seal_job(repository)
    await archive_sealed(repository, folder)
    await check(repository, remove=True)


#: What happens to a job after a backup was made.
LATER: dict[str, Callable[[RedisJobRepository, Path], Awaitable[object]]] = {
    "nothing": lambda _, __: asyncio.sleep(0),
    "archived": archive_sealed,
    "late": late,
    "deleted": lambda repository, _: repository.delete_job("j"),
    "log deleted": lambda repository, _: repository.delete_log("j"),
}


#: How far it had come when the backup was made.
STATES = ("queued", "ended", "sealed", "archived", "late")
QUICK = {("queued", "late"), ("sealed", "deleted"), ("archived", "late"), ("late", "log deleted")}


@pytest.mark.parametrize(
    ("state", "later"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in product(STATES, LATER)],
)
async def test_an_older_server_beside_a_newer_archive(
    repository: RedisJobRepository, valkey: RealServer, server: Nodes, tmp_path: Path, state: str, later: str
) -> None:
    """Whatever the backup has of the job: it is then as the archive has it, and what was deleted is gone."""
    engine = repository.engine
    await engine.reader.source.sealed.archived.remember(engine.keys, tmp_path.as_uri())
    await repository.create_job(Job(id="j", status="queued", user_id="ada"))
    backup = await saved(server)
    await repository.update_job_status("j", "running")
    await repository.add_events("j", lines(5))
    await repository.complete_job("j", True, NOW)
    backup = await saved(server) if state != "queued" else backup
    await seal_job(repository)
    backup = await saved(server) if state in ("sealed", "archived", "late") else backup
    if state in ("archived", "late") or later == "nothing":
        await archive_sealed(repository, tmp_path)
        backup = await saved(server) if state in ("archived", "late") else backup
    if state == "late":
        await repository.add_event("j", JobEvent("log", "late\n"))
        backup = await saved(server)
        await seal_job(repository)
    await LATER[later](repository, tmp_path)
    newest = None if "deleted" in later else await repository.get_job("j")
    await restore(repository, server, backup)
    report = await rebuild(repository)
    assert report.left == ({"job j": report.left.get("job j")} if "deleted" in later and state == "queued" else {})
    if state == "late" and later == "nothing":
        # The archive never had its end; the backup has.
        assert len(await repository.get_events_since("j", 0)) == 7
    elif report.left:
        async with RedisJobRepository.from_url(valkey.url) as another:
            await another.cancel_job("j")
        assert (await rebuild(repository)).deleted == ["j"]
    elif newest is not None:
        repository.engine.reader.source.sealed.forget()
        assert await repository.get_job("j") == newest
    if "deleted" in later:
        with pytest.raises((JobGoneError, LogDeletedError)):
            await repository.get_events_since("j", 0)
    assert (await rebuild(repository)).brought == []
    assert await repository.verify(deep=True) == []
    assert (await check(repository, deep=True, remove=True)).is_whole


async def test_a_newer_server_beside_an_older_archive(
    repository: RedisJobRepository, server: Nodes, tmp_path: Path
) -> None:
    """What an older archive lacks is named, and no log is shorter for it."""
    await archived_job(repository, tmp_path)
    older = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}  # noqa: ASYNC240
    await late(repository, tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:  # noqa: ASYNC240 - of a test
        path.unlink()
    for name, data in older.items():
        (tmp_path / name).write_bytes(data)
    report = await check(repository, remove=True)
    assert (list(report.damaged), report.orphans, len(report.unknown)) == (["j"], [], 1)
    rebuilt = await rebuild(repository)
    assert (rebuilt.brought, rebuilt.deleted, list(rebuilt.left)) == ([], [], ["job j"])
    assert await repository.delete_job("j")


async def test_what_runs_stays(
    repository: RedisJobRepository, valkey: RealServer, server: Nodes, tmp_path: Path
) -> None:
    """In the backup it runs, in the archive it has ended, or is deleted: named, and left to whoever has it."""
    await repository.create_job(Job(id="j", status="running", user_id="ada"))
    backup = await saved(server)
    await repository.complete_job("j", True, NOW)
    await seal_job(repository)
    await archive_sealed(repository, tmp_path)
    for deletes in (False, True):
        if deletes:
            await restore(repository, server, backup)
            async with RedisJobRepository.from_url(valkey.url) as another:
                await another.complete_job("j", True, NOW)
                await another.engine.reader.source.sealed.archived.remember(another.engine.keys, tmp_path.as_uri())
                await another.delete_job("j")
        await restore(repository, server, backup)
        await repository.engine.reader.source.sealed.archived.remember(repository.engine.keys, tmp_path.as_uri())
        report = await rebuild(repository)
        assert (report.brought, report.deleted, list(report.left)) == ([], [], ["job j"])
        job = await repository.get_job("j")
        assert job is not None
        assert job.status == "running"


@pytest.mark.slow  # a store of several partitions, whose names no file system tells apart by capitals
async def test_stores_of_any_name_come_back(own: RealServer, tmp_path: Path) -> None:
    """Whatever its prefix, its partitions and its ids; another store in the same archive stays another one."""
    ids = ["a", "A", "ü/b", "x" * 200, "..", "-", "=2f", "😀"]
    for prefix in ("Ci-X", "ci-x"):
        async with RedisJobRepository.from_url(own.url, prefix=prefix, partitions=4) as repository:
            for job_id in ids:
                await archived_job(repository, tmp_path, job_id)
    async with RedisJobRepository.from_url(own.url, prefix="Ci-X") as repository:
        before = await all_of(repository)
        await repository.delete_job("A")
    async with RedisJobRepository.from_url(own.url, prefix="ci-x") as repository:
        await repository.engine.nodes.read("FLUSHALL")
    async with RedisJobRepository.from_url(own.url, prefix="Ci-X", partitions=4) as repository:
        await repository.engine.reader.source.sealed.archived.remember(
            repository.engine.keys, tmp_path.as_uri(), takes_over=True
        )
        report = await rebuild(repository)
        assert (sorted(report.brought), report.deleted, report.left) == (sorted(set(ids) - {"A"}), ["A"], {})
        assert await all_of(repository) == {job_id: job for job_id, job in before.items() if job_id != "A"}
        assert await repository.verify(deep=True) == []
        assert (await check(repository, deep=True)).unknown == {}


async def test_an_archive_of_more_partitions_is_refused(repository: RedisJobRepository, tmp_path: Path) -> None:
    """A store that was opened with fewer would lack jobs, and say that nothing is left."""
    await archived_job(repository, tmp_path)
    (tmp_path / "ci/7/other/x").mkdir(parents=True)
    (tmp_path / "ci/7/other/x" / SEGMENT).write_bytes(b"x")
    for look in (rebuild, check):
        with pytest.raises(ConfigurationError, match="8 partitions"):
            await look(repository)


async def test_rebuilding_may_stop_anywhere(repository: RedisJobRepository, server: Nodes, tmp_path: Path) -> None:
    """Cancelled at any await, it leaves each job whole or missing; the next one brings all."""
    await archived_job(repository, tmp_path)
    await archived_job(repository, tmp_path, "gone")
    before = await repository.get_job("j")
    backup = await saved(server)
    await repository.delete_job("gone")
    at, reached = 0, True
    while reached:
        at += 1
        await restore(repository, server, {key: data for key, data in backup.items() if "accounts" in key})
        steps = Steps(at, 1)

        async def work() -> None:
            await rebuild(repository)

        steps.victim = task = asyncio.create_task(Counted(work(), steps))
        await asyncio.gather(task, return_exceptions=True)
        repository.engine.reader.source.sealed.forget()
        found = await all_of(repository)
        assert found in ({}, {"j": before})
        await rebuild(repository)
        assert await all_of(repository) == {"j": before}
        with pytest.raises(JobNotFoundError):
            await repository.get_events_since("gone", 0)
        assert await repository.verify(deep=True) == []
        reached = steps.was_reached
    assert at > 5
