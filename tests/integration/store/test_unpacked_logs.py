"""A log of pieces, which were packed singly when they were written, is the same log once segments have it unpacked."""

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.errors import StreamDamagedError
from ci_eventstore.events import log_source
from ci_eventstore.events.codec import encode_logs
from ci_eventstore.events.log_source import BEGINNING, at_places
from ci_eventstore.events.reader import Milestone
from ci_eventstore.events.records import Place
from ci_eventstore.following.records import NoticeType
from ci_eventstore.history.copied_stores import StoredJob, StoreSource, StoreTarget
from ci_eventstore.history.copying import CopiedJob, Copier
from ci_eventstore.history.seal import Sealed
from ci_eventstore.history.store_file import StoreFile, StoreFileSource
from ci_eventstore.jobs.state import JobState
from ci_eventstore.lines.pieces import Piece, pieces
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.segments.payloads import Unpacked
from tests.integration.store.followers import Ids, admin_of, following, next_page, rest_of
from tests.integration.store.sealing import NOW, seal_job
from tests.integration.store.test_copying import store
from tests.integration.store.test_moving_histories import MovingJob
from tests.servers import RealServer
from tests.waiting import wait_until


def long_pieces(count: int, start: int = 0) -> list[JobEvent]:
    """Return events of some forty lines each, as `LogWriter` makes them of a slow log."""
    return [
        JobEvent("log", f"line of piece {n}, ok\n" * 40, timestamp=NOW + timedelta(milliseconds=n))
        for n in range(start, start + count)
    ]


async def begun(repository: RedisJobRepository, count: int = 600) -> None:
    """Create a job that has written so many pieces, and runs."""
    await repository.create_job(Job(id="j", status="running"))
    await repository.add_events("j", long_pieces(count))


async def is_unpacked(repository: RedisJobRepository, position: int) -> bool:
    """Return whether an event's payload is no longer the one that was written."""
    source, place = repository.engine.reader.source, Place(position)
    [(_, payload)] = await source.range(repository.engine.keys.job("j"), place, place)
    return isinstance(payload, Unpacked)


@pytest.mark.parametrize("is_live", [True, False], ids=["joined while it ran", "joined after its end"])
@pytest.mark.parametrize(
    "moves",
    [
        ["seal"],
        ["seal", "archive"],
        ["seal", "write", "seal"],
        ["seal", "archive", "bring back"],
        ["seal", "archive", "write", "seal", "archive", "remove"],
    ],
    ids=", ".join,
)
async def test_a_paused_follower_goes_on_after_moves(
    repository: RedisJobRepository, tmp_path: Path, is_live: bool, moves: list[str]
) -> None:
    """It has a piece as it was written, and the next page begins after that piece, unpacked: no reset comes."""
    await begun(repository)
    if not is_live:
        await repository.complete_job("j", True, NOW)
    async with following(repository) as follower:
        found = await next_page(follower)
        if is_live:
            await repository.add_events("j", long_pieces(600, 600))
            await repository.complete_job("j", True, NOW)
        job = MovingJob(repository, tmp_path, moves)
        for _ in moves:
            await job.move()
        assert job.removed == moves.count("remove")
        assert await is_unpacked(repository, [item for item in found if isinstance(item, int)][-1])
        found += await rest_of(follower)
    last = 1201 if is_live else 601
    assert [item for item in found if isinstance(item, int)] == list(range(1, last + 1))
    assert NoticeType.RESET not in found
    assert repository.following_stats().resets == 0


async def test_the_head_of_a_sealed_log_is_the_one_that_was_heard(own: RealServer) -> None:
    """A new connection compares what came last, a late piece, with what the segment has; the next one fits, too."""
    async with RedisJobRepository.from_url(own.url) as repository, admin_of(own) as admin:
        await begun(repository, 30)
        async with following(repository) as follower:
            found: Ids = await next_page(follower)
            await repository.complete_job("j", True, NOW)
            await repository.add_events("j", long_pieces(1, 30))
            await wait_until(lambda: follower_head(repository) == Place(32))
            assert await seal_job(repository) is Sealed.SEALED
            assert await is_unpacked(repository, 32)
            await admin.client_kill_filter(_type="pubsub")
            await repository.add_events("j", long_pieces(1, 31))
            await wait_until(lambda: follower_head(repository) == Place(33))
            found += await rest_of(follower)
        assert [item for item in found if isinstance(item, int)] == list(range(1, 32))
        assert repository.following_stats().resets == 0
        assert await repository.verify("j", deep=True) == []


def follower_head(repository: RedisJobRepository) -> Place:
    """Return how far the one followed job is known."""
    [live] = repository.engine.hub._live.values()
    return live.feed.head


async def test_a_replay_and_a_reader_of_lines_go_on_after_the_sealing(repository: RedisJobRepository) -> None:
    """Both compare each page with the end of the one before, which they have as it was written."""
    await begun(repository, 1500)
    await repository.complete_job("j", True, NOW)
    reader, keys = repository.engine.reader, repository.engine.keys.job("j")
    extent = await reader.extent(keys)
    async with (
        aclosing(repository.replay("j", None)) as replayed,
        aclosing(pieces(reader, keys, extent, Milestone(0, 0, 0, 0))) as read,
    ):
        records: list[object] = [await anext(replayed)]
        found: list[Piece] = [await anext(read)]
        assert await seal_job(repository) is Sealed.SEALED
        assert await is_unpacked(repository, found[0].after.position)
        records += [record async for record in replayed]
        found += [piece async for piece in read]
    assert sum(isinstance(record, JobEvent) for record in records) == 1501
    texts = "".join(event.data or "" for event in long_pieces(1500))
    assert b"".join(piece.data for piece in found) == texts.encode()


async def test_a_reader_of_lines_refuses_another_log(repository: RedisJobRepository) -> None:
    """A piece that isn't the one it has read before is told from one that was unpacked."""
    await begun(repository, 1500)
    reader, keys, nodes = repository.engine.reader, repository.engine.keys.job("j"), repository.engine.nodes
    extent = await reader.extent(keys)
    async with aclosing(pieces(reader, keys, extent, Milestone(0, 0, 0, 0))) as read:
        position = (await anext(read)).after.position
        log = at_places(await reader.source.range(keys, BEGINNING, limit=2000))
        await nodes.read("DEL", keys.stream)
        event = long_pieces(1, position - 1)[0]
        [other] = encode_logs([replace(event, data=(event.data or "").replace("ok", "no"))]).payloads
        for place, payload in log:
            await nodes.read("XADD", keys.stream, str(place), "e", other if place == Place(position) else payload)
        with pytest.raises(StreamDamagedError, match=str(position)):
            await anext(read)


async def test_logs_are_the_same_however_often_they_are_sealed(repository: RedisJobRepository) -> None:
    """A segment is joined with what comes after it: what was unpacked once is that entry in each of them."""
    await begun(repository, 30)
    await repository.complete_job("j", True, NOW)
    for generation in range(3):
        before = await repository.get_events_since("j", 0)
        assert await seal_job(repository) is Sealed.SEALED
        assert await is_unpacked(repository, 1)
        assert await repository.get_events_since("j", 0) == before
        assert await repository.verify("j", deep=True) == []
        await repository.add_events("j", long_pieces(2, 100 * generation))
        assert await repository.verify("j", deep=True) == []


class SealedMeanwhile(StoredJob):
    """A job that is sealed as soon as its record was read for the first time."""

    def __init__(self, repository: RedisJobRepository) -> None:
        super().__init__(repository.engine, "j")
        self._repository = repository
        self._was_read = False

    async def record(self) -> JobState | None:
        """Return the state before the sealing, then the one after it."""
        state = await super().record()
        if not self._was_read:
            self._was_read = True
            assert await seal_job(self._repository) is Sealed.SEALED
        return state


class OneJob(StoreSource):
    """A store of one job, which is sealed while it is copied."""

    def __init__(self, repository: RedisJobRepository) -> None:
        super().__init__(repository.engine)
        self._job = SealedMeanwhile(repository)

    async def jobs(self) -> AsyncIterator[Sequence[CopiedJob]]:
        """Yield the job."""
        yield [self._job]


async def test_pages_of_large_entries_are_small(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes by the bytes of the one before it, as they are unpacked; the first one has few entries of any size."""
    monkeypatch.setattr(log_source, "PAGE_BYTES", 20_000)
    await begun(repository, 300)
    await repository.complete_job("j", True, NOW)
    assert await seal_job(repository) is Sealed.SEALED
    source, keys = repository.engine.reader.source, repository.engine.keys.job("j")
    found = [page async for page in source.pages(keys, BEGINNING, Place(301))]
    assert [len(page) for page in found[:2]] == [log_source.FIRST_ENTRIES, 20_000 // len(found[0][-1][1])]
    assert max(sum(len(payload) for _, payload in page) for page in found[1:]) <= 22_000
    assert [place.position for page in found for place, _ in page if place.part == 0] == list(range(1, 302))


async def test_no_unpacked_entry_comes_into_a_stream(own: RealServer) -> None:
    """Its mark would be another one there: a job that is sealed while it is copied is copied as it is sealed."""
    async with store(own, "a") as source, store(own, "b") as target:
        await begun(source, 100)
        await source.complete_job("j", True, NOW)
        report = await Copier(OneJob(source), StoreTarget(target.engine)).copy()
        assert (report.copied, report.left, report.different) == (1, {}, [])
        assert not await target.engine.nodes.read("EXISTS", target.engine.keys.job("j").stream)
        assert await target.verify("j", deep=True) == []
        assert await target.get_events_since("j", 0) == await source.get_events_since("j", 0)


async def test_no_unpacked_entry_comes_into_a_file(own: RealServer) -> None:
    """It would be imported into a stream; a job that is sealed while it is exported is exported as it is sealed."""
    async with store(own, "a") as source, store(own, "b") as target:
        await begun(source, 100)
        await source.complete_job("j", True, NOW)
        file = io.BytesIO()
        written = StoreFile(file, "a", await source.engine.incarnation.read())
        copier = Copier(OneJob(source), written)
        await copier.bring()
        report = copier.report
        assert (report.copied, report.left) == (1, {})
        filed = StoreFileSource(file)
        filed.check()
        assert (filed.counts["segment"], filed.counts.get("entries", 0)) == (1, 0)
        assert (await Copier(filed, StoreTarget(target.engine)).copy()).is_whole
        assert await target.verify("j", deep=True) == []
        assert await target.get_events_since("j", 0) == await source.get_events_since("j", 0)


async def test_a_copy_that_was_sealed_does_not_differ(own: RealServer) -> None:
    """Stores are compared entry by entry, also if one has unpacked what the other one has as it was written."""
    async with store(own, "a") as source, store(own, "b") as target:
        await begun(source, 100)
        await source.complete_job("j", True, NOW)
        copier = Copier(StoreSource(source.engine), StoreTarget(target.engine))
        assert (await copier.copy()).is_whole
        assert await seal_job(target) is Sealed.SEALED
        again = await Copier(StoreSource(source.engine), StoreTarget(target.engine)).copy()
        assert (again.already, again.different) == (1, [])
        assert again.source_digest == again.target_digest
        await source.add_events("j", long_pieces(1, 500))
        longer = await Copier(StoreSource(source.engine), StoreTarget(target.engine)).copy()
        assert (longer.copied, longer.left, longer.different) == (1, {}, [])
        assert await target.verify("j", deep=True) == []
