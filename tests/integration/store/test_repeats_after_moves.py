"""A write whose reply was lost, and whose job is sealed, archived or deleted before it comes again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ci_common.errors import JobGoneError
from ci_common.models import Job, JobEvent
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.archiving import Moved, unarchive_job
from ci_eventstore.history.seal import Sealed
from ci_eventstore.jobs.tombstones import read_tombstone
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.repository import RedisJobRepository
from tests.claims import claim
from tests.examples import slow
from tests.fault_proxy import SCRIPTS, Fault, FaultProxy
from tests.integration.store.sealing import NOW, archive_sealed, ended_job, lines, seal_job
from tests.servers import RealServer

Act = Callable[[RedisJobRepository, str], Awaitable[object]]


async def _running(repository: RedisJobRepository, job_id: str) -> None:
    await repository.create_job(Job(id=job_id, status="running", user_id="ada"))
    await repository.add_events(job_id, lines(5))


async def _waiting(repository: RedisJobRepository, job_id: str) -> None:
    await repository.create_job(Job(id=job_id, status="queued", user_id="ada", command=["make"]))


CLAIMED: dict[str, Claimed] = {}


async def _claimed(repository: RedisJobRepository, job_id: str) -> None:
    await _waiting(repository, job_id)
    [CLAIMED[job_id]] = await claim(repository, "default", "c", 1, 30)


async def _end_claimed(repository: RedisJobRepository, job_id: str) -> None:
    claimed = CLAIMED[job_id]
    await repository.writer(job_id, claimed.claim, claimed).complete(True, NOW)


async def _nothing(repository: RedisJobRepository, job_id: str) -> None:
    pass


async def _create(repository: RedisJobRepository, job_id: str) -> None:
    await repository.create_job(Job(id=job_id, status="completed", user_id="ada", end_time=NOW, events=lines(5)))


#: What is written: what comes before it, and the write, after which the job has ended.
WRITES: dict[str, tuple[Act, Act]] = {
    "a creation": (_nothing, _create),
    "late output": (ended_job, lambda repository, job_id: repository.add_events(job_id, lines(3, 100))),
    "one late event": (ended_job, lambda repository, job_id: repository.add_event(job_id, lines(1, 100)[0])),
    "a status": (_running, lambda repository, job_id: repository.update_job_status(job_id, "failed")),
    "an end": (_running, lambda repository, job_id: repository.complete_job(job_id, True, NOW)),
    "the end in the log": (
        _running,
        lambda repository, job_id: repository.add_event(job_id, JobEvent("complete", success=True)),
    ),
    "a cancel": (_running, lambda repository, job_id: repository.cancel_job(job_id)),
    "a cancel while it waits": (_waiting, lambda repository, job_id: repository.cancel_job(job_id)),
    "the end of a claimed job": (_claimed, _end_claimed),
    "a pin": (ended_job, lambda repository, job_id: repository.keep_job(job_id)),
}


async def _seal(repository: RedisJobRepository, folder: Path) -> None:
    assert await seal_job(repository) is Sealed.SEALED


async def _archive(repository: RedisJobRepository, folder: Path) -> None:
    await _seal(repository, folder)
    await archive_sealed(repository, folder)


async def _delete_log(repository: RedisJobRepository, folder: Path) -> None:
    assert await repository.delete_log("j")


async def _delete(repository: RedisJobRepository, folder: Path) -> None:
    assert await repository.delete_job("j")


@pytest.mark.parametrize("then", [_seal, _archive, _delete_log, _delete], ids=lambda then: then.__name__[1:])
@pytest.mark.parametrize("what", ["late output", *(slow(one) for one in WRITES if one != "late output")])
async def test_a_write_that_comes_again_has_its_effect_once(
    own: RealServer,
    proxy: FaultProxy,
    tmp_path: Path,
    what: str,
    then: Callable[[RedisJobRepository, Path], Awaitable[None]],
) -> None:
    """It is known after each of them, or told that its job is gone; nothing is doubled, and nothing comes back."""
    before, write = WRITES[what]
    async with RedisJobRepository.from_url(own.url) as repository, RedisJobRepository.from_url(proxy.url) as remote:
        # The server knows the scripts by then, so the first call has its effect.
        for job_id in ("warm", "j"):
            await before(repository, job_id)
        await write(repository, "warm")
        has_moved, was, calls = False, await _seen(repository), 0

        def cut_off(command: Sequence[bytes]) -> Fault | None:
            nonlocal calls
            if command[0].upper() not in SCRIPTS or has_moved:
                return None
            calls += 1
            # An event of a job that has ended is asked for its budget first.
            if calls == 1 and "late" in what:
                return None
            return Fault.CUT_BEFORE if proxy.faults else Fault.CUT_AFTER

        proxy.plan = cut_off
        writing = asyncio.create_task(_outcome(write(remote, "j")))
        async with asyncio.timeout(30):
            while await _seen(repository) == was:  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.01)
        await then(repository, tmp_path)
        known = await _seen(repository)
        assert not writing.done()
        has_moved = True
        outcome = await writing
        assert isinstance(outcome, JobGoneError) if then is _delete else outcome is None, outcome
        assert await _seen(repository) == known
        assert await repository.verify(deep=True) == []


async def _outcome(call: Awaitable[object]) -> Exception | None:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return error
    return None


async def _seen(repository: RedisJobRepository) -> object:
    """Return all that readers get of the job."""
    state = await repository.engine.jobs.state("j")
    deleted = 0 if state is None or state.deleted_to is None else state.deleted_to
    return state, [] if state is None else await repository.get_events_since("j", deleted)


async def test_each_move_is_answered_as_the_first_time(
    repository: RedisJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its script runs again, since the answer was lost, and finds the record as it has left it."""
    await ended_job(repository)
    run, engine = Nodes.run, repository.engine

    async def run_twice(self: Nodes, *call: Any, **options: Any) -> Any:
        await run(self, *call, **options)
        return await run(self, *call, **options)

    monkeypatch.setattr(Nodes, "run", run_twice)
    assert await seal_job(repository) is Sealed.SEALED
    await archive_sealed(repository, tmp_path)
    assert await unarchive_job(engine.nodes, engine.reader.source, engine.keys.job("j")) is Moved.MOVED
    assert await repository.delete_log("j")
    assert await seal_job(repository) is Sealed.SEALED
    # Of a deleted job nothing says which call has deleted it.
    assert not await repository.delete_job("j")
    assert await read_tombstone(engine.nodes, engine.keys.job("j")) is not None
