"""A store's content as one file: what it holds comes back, and a file that isn't as it was written is refused."""

import asyncio
import io
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from ci_common.errors import JobGoneError, LogDeletedError
from ci_common.models import Job, JobEvent
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.history import copied_stores, store_file
from ci_eventstore.history.copied_stores import StoreSource, StoreTarget
from ci_eventstore.history.copying import TOGETHER, Copier, CopyReport
from ci_eventstore.history.copying_by_contract import copy_accounts
from ci_eventstore.history.store_file import StoreFile, StoreFileSource
from ci_eventstore.repository import RedisJobRepository
from tests.cancelling import Counted, Steps
from tests.claims import claim
from tests.integration.store.sealing import archive_sealed, ended_job, lines, seal_job
from tests.integration.store.test_copying import fill, kept_for_a_while, seen, store
from tests.servers import RealServer


async def export(repository: RedisJobRepository) -> tuple[bytes, CopyReport]:
    """Return the file of a store."""
    file = io.BytesIO()
    engine = repository.engine
    written = StoreFile(file, engine.keys.prefix, await engine.incarnation.read())
    for user in await repository.list_users():
        written.take_account(user)
    for key in await repository.list_api_keys():
        written.take_account(key)
    copier = Copier(StoreSource(engine), written)
    await copier.bring()
    source = StoreFileSource(file)
    source.check()
    await Copier(source, StoreTarget(engine), report=copier.report).compare()
    return file.getvalue(), copier.report


async def bring(data: bytes, repository: RedisJobRepository) -> CopyReport:
    """Bring what a file holds into a store."""
    source = StoreFileSource(io.BytesIO(data))
    source.check()
    copier = Copier(source, StoreTarget(repository.engine))
    await copy_accounts(await source.accounts(), repository, copier.report)
    return await copier.copy()


def frames_of(data: bytes) -> list[list[Any]]:
    """Return what another program reads: each frame unpacked, and its one array."""
    found = []
    while data:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        found.append(msgpack.unpackb(unpacker.decompress(data)))
        data = unpacker.unused_data
    return found


def content_of(data: bytes) -> Counter[str]:
    """Return what a file holds, whatever the order, the store's name and the time."""
    jobs, job = [], list[Any]()
    for frame in frames_of(data)[1:-1]:
        if frame[0] not in ("segment", "entries"):
            jobs.append(job)
            job = []
        # Pages may be cut otherwise.
        job += [frame] if frame[0] != "entries" else frame[1]
    return Counter(map(repr, [*jobs, job]))


@pytest.mark.parametrize(
    "jobs", [5, pytest.param(100, marks=pytest.mark.slow(reason="many jobs, read several times"))], ids=str
)
async def test_what_is_exported_is_imported(own: RealServer, seed: int, jobs: int, tmp_path: Path) -> None:
    """From one partition to four and back, by files, which have equal content; a second import changes nothing."""
    async with store(own, "a") as first, store(own, "b", 4) as second, store(own, "c") as third:
        await fill(first, random.Random(seed), jobs)
        await ended_job(first, "gone")
        await first.delete_job("gone")
        await ended_job(first, "archived")
        await seal_job(first, "archived")
        await archive_sealed(first, tmp_path, "archived")
        before, files = await seen(first), list[bytes]()
        for source, target in ((first, second), (second, third)):
            data, report = await export(source)
            assert (report.is_whole, report.compared) == (True, len(before["order"]))
            for is_first in (True, False):
                report = await bring(data, target)
                assert (report.left, report.different) == ({}, [])
                assert (report.copied > 0, report.deleted > 0) == (is_first, is_first)
                assert report.source_digest == report.target_digest
            assert await seen(target) == before
            assert await target.verify(deep=True) == []
            assert await kept_for_a_while(target) == []
            files.append(data)
            with pytest.raises(JobGoneError):
                await target.get_job("gone")
        assert content_of(files[0]) == content_of(files[1])
        assert (await export(third))[1].is_whole
        waiting = [job.id for job in await third.list_jobs() if job.status == "queued"]
        assert {one.job.id for one in await claim(third, "default", "c", len(waiting), 30)} == set(waiting)


async def test_a_long_log_in_small_pages(own: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several segments, and several pages after them; the target's beginning of it is made longer."""
    monkeypatch.setattr(copied_stores, "PAGE_BYTES", 512)
    monkeypatch.setattr(store_file, "TOGETHER", 2)
    async with store(own, "a") as source, store(own, "b", 3) as target:
        await ended_job(source, "j", 40)
        for _ in range(3):
            await seal_job(source, "j")
            await source.add_events("j", lines(60, 100))
        early, _ = await export(source)
        assert (await bring(early, target)).is_whole
        await source.add_events("j", lines(60, 100))
        late, report = await export(source)
        assert report.is_whole
        assert Counter(frame[0] for frame in frames_of(late))["entries"] > 1
        assert (await bring(late, target)).is_whole
        assert await seen(target) == await seen(source)
        assert await target.verify(deep=True) == []
        # An older file brings nothing back.
        assert set((await bring(early, target)).left) == {"job j"}
        assert await seen(target) == await seen(source)


async def test_deleted_logs_stay_deleted(own: RealServer) -> None:
    """What came after them is there, and what the target had of them goes."""
    async with store(own, "a") as source, store(own, "b", 2) as target:
        for n in range(4):
            await ended_job(source, f"j{n}", 5)
        await seal_job(source, "j1")
        await seal_job(source, "j3")
        assert (await bring((await export(source))[0], target)).copied == 4
        for n in range(4):
            await source.delete_log(f"j{n}")
        await seal_job(source, "j1")
        for n in (2, 3):
            await source.add_event(f"j{n}", JobEvent("log", "late\n"))
        await seal_job(source, "j3")
        data, report = await export(source)
        assert (report.is_whole, b"line 3" in b"".join(map(repr_bytes, frames_of(data)))) == (True, False)
        assert (await bring(data, target)).is_whole
        async with store(own, "c", 3) as fresh:
            assert (await bring(data, fresh)).is_whole
            for repository in (target, fresh):
                for n in (2, 3):
                    assert [event.data for event in await repository.read_events(f"j{n}", 6)] == ["late\n"]
                with pytest.raises(LogDeletedError):
                    await repository.read_events("j0")
                assert await repository.verify(deep=True) == []


def repr_bytes(frame: list[Any]) -> bytes:
    """Return what stands in a frame, as bytes to look into."""
    return repr(frame).encode()


async def test_what_runs_or_cannot_be_read_is_left_out(own: RealServer) -> None:
    """It is named, and nothing of it is in the file."""
    async with store(own, "a") as source, store(own, "b") as target:
        for job_id in ("bad", "good"):
            await ended_job(source, job_id, 5)
        await source.create_job(Job(id="runs", status="running"))
        await source.engine.nodes.read("XDEL", source.engine.keys.job("bad").stream, "3-0")
        # Something of it is written before the damage is found, and nothing comes after it.
        await ended_job(source, "z", 100)
        await seal_job(source, "z")
        await source.add_events("z", lines(9))
        await source.engine.nodes.read("XDEL", source.engine.keys.job("z").stream, "105-0")
        data, report = await export(source)
        assert (set(report.left), report.copied, report.different) == ({"job bad", "job runs", "job z"}, 1, [])
        assert (await bring(data, target)).is_whole
        assert [job.id for job in await target.list_jobs()] == ["good"]


async def test_a_store_gets_back_what_it_has_lost(own: RealServer) -> None:
    """From its own file, jobs that are no longer there, and nothing instead of what is."""
    async with store(own, "a") as repository:
        for job_id in ("lost", "longer"):
            await ended_job(repository, job_id, 5)
        before = await seen(repository)
        data, _ = await export(repository)
        keys = repository.engine.keys.job("lost")
        await repository.engine.nodes.read("UNLINK", keys.hash, keys.stream, keys.log_index)
        await repository.rebuild()
        await repository.add_event("longer", JobEvent("log", "late\n"))
        assert [job.id for job in await repository.list_jobs()] == ["longer"]
        report = await bring(data, repository)
        assert (report.copied, set(report.left)) == (1, {"job longer"})
        after = await seen(repository)
        assert after["events"]["lost"] == before["events"]["lost"]
        assert after["events"]["longer"][:-1] == before["events"]["longer"]
        assert await repository.verify() == []


@pytest.fixture
async def data(own: RealServer) -> bytes:
    """A small file."""
    async with store(own, "a") as repository:
        await fill(repository, random.Random(1), 10)
        return (await export(repository))[0]


def refused(data: bytes) -> str:
    """Return why a file is refused."""
    with pytest.raises(StoreFormatError) as caught:
        StoreFileSource(io.BytesIO(data)).check()
    return str(caught.value)


async def test_what_was_cut_off_or_altered_is_refused(data: bytes, seed: int) -> None:
    """At any byte, and with the byte's frame named."""
    StoreFileSource(io.BytesIO(data)).check()
    choose = random.Random(seed)
    for _ in range(50):
        assert refused(data[: choose.randrange(len(data))])
        place = choose.randrange(len(data))
        assert refused(data[:place] + bytes([data[place] ^ 1 << choose.randrange(8)]) + data[place + 1 :])
    assert "it is cut off" in refused(data[:-1])
    assert "it is cut off" in refused(data[: len(data) // 2])
    assert "3 bytes stand after its end" in refused(data + b"abc")
    for nothing in (b"", b"abc", b"x" * 100_000):
        assert refused(nothing)
    assert "no file of" in refused(pack([["job", 1]]))
    assert "version 2" in refused(pack([["ci-eventstore store", 2, {}]]))


def pack(frames: list[list[Any]]) -> bytes:
    """Return the file that has these frames."""
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    return b"".join(compressor.compress(msgpack.packb(frame)) for frame in frames)


def signed(frames: list[list[Any]]) -> bytes:
    """Return the file of these frames with an end that is right."""
    data = pack(frames)
    counts = Counter(frame[0] for frame in frames if frame[0] in store_file.KINDS)
    return data + pack([["end", dict(counts), blake2b(data, digest_size=20).digest()]])


ODD: list[list[Any]] = [[], [1], [1, 2], [1, 2, 3], [{}], ["a", {}, []], ["a", "b"], [[["0-1", "text"]]]]


def alterations(frames: list[list[Any]]) -> Iterator[tuple[str, list[list[Any]]]]:
    """Yield a file's frames, altered so that each by itself is right, or at least an array."""
    numbers = {kind: [n for n, frame in enumerate(frames) if frame[0] == kind] for kind in store_file.KINDS}
    for kind in store_file.KINDS[:-1]:
        for place in numbers[kind][:3]:
            before, frame, after = frames[:place], frames[place], frames[place + 1 :]
            for content in ODD:
                yield f"{kind} of {content}", [*before, [kind, *content], *after]
            yield f"{kind} of another kind", [*before, ["odd", *frame[1:]], *after]
            if kind in ("job", "segment", "entries"):
                yield f"{kind} missing", [*before, *after]
            if kind in ("segment", "entries"):
                yield f"{kind} twice", [*before, frame, frame, *after]
    for kind in ("user", "key", "gone"):
        yield f"{kind} after jobs", [*frames, frames[numbers[kind][0]]]
    yield "segment after entries", [*frames, frames[numbers["segment"][0]]]
    segment = frames[numbers["segment"][0]]
    altered = ["segment", segment[1], segment[2][:9] + b"!" + segment[2][10:]]
    yield "segment altered", [altered if frame is segment else frame for frame in frames]


async def test_frames_that_make_no_sense_are_refused(data: bytes) -> None:
    """Also if the digest is right: what is missing, double or elsewhere. Without it, nothing is taken."""
    frames = frames_of(data)[:-1]
    StoreFileSource(io.BytesIO(signed(frames))).check()
    for what, altered in alterations(frames):
        assert refused(signed(altered)), what
    for place in range(1, len(frames)):
        assert refused(pack([*frames[:place], *frames[place + 1 :], frames_of(data)[-1]]))


async def test_nothing_of_a_damaged_file_is_imported(own: RealServer, data: bytes) -> None:
    """Not even what comes before the damage."""
    async with store(own, "b") as target:
        before = await seen(target)
        with pytest.raises(StoreFormatError):
            await bring(data[:-10], target)
        assert await seen(target) == before


@pytest.mark.slow
async def test_an_import_may_stop_anywhere(own: RealServer) -> None:
    """Slow, as it begins many times: cancelled at any await, it leaves no half of a job; the next one completes it."""
    async with store(own, "a") as source:
        await fill(source, random.Random(2), 6)
        await ended_job(source, "gone")
        await source.delete_job("gone")
        before, (data, _) = await seen(source), await export(source)
    at = 0
    while True:
        at += 11
        async with store(own, f"b{at}", 2) as target:
            steps = Steps(at, 1)

            async def work(target: RedisJobRepository = target) -> None:
                await bring(data, target)

            steps.victim = task = asyncio.create_task(Counted(work(), steps))
            await asyncio.gather(task, return_exceptions=True)
            half = await seen(target)
            assert all(before["events"][job_id] == events for job_id, events in half["events"].items())
            assert await target.verify() == []
            assert (await bring(data, target)).is_whole
            assert await seen(target) == before
        if not steps.was_reached:
            break


def checked(file: io.BytesIO) -> StoreFileSource:
    """Return a file's content, once the file was read through."""
    source = StoreFileSource(file)
    source.check()
    return source


async def test_progress_rises_to_all_jobs(own: RealServer) -> None:
    """A copy, an export and an import tell how many jobs were brought, then how many were compared, to the last one."""
    told, file = list[tuple[int, int]](), io.BytesIO()

    def note(done: int, total: int) -> None:
        told.append((done, total))

    async with store(own, "a", 3) as first, store(own, "b") as second, store(own, "c", 2) as third:
        for number in range(20):
            await first.create_job(Job(id=f"j{number}", status="queued"))
        source, target = StoreSource(first.engine), StoreTarget(second.engine)
        written = StoreFile(file, "a", await source.incarnation())
        steps: tuple[tuple[Callable[[], Awaitable[object]], int], ...] = (
            (lambda: Copier(source, target, note).copy(), 40),
            (lambda: Copier(source, written, note).bring(), 20),
            (lambda: Copier(checked(file), StoreTarget(first.engine), note).compare(), 20),
            (lambda: Copier(checked(file), StoreTarget(third.engine), note).copy(), 40),
        )
        for step, total in steps:
            told.clear()
            await step()
            assert told[-1] == (total, total)
            assert {one for _, one in told} == {total}
            assert len(told) >= total // TOGETHER
            assert all(before < after for (before, _), (after, _) in pairwise(told))
