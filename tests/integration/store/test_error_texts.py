"""Whatever a handler raises or says, in whatever characters, its job ends at once, and its log says why."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.controllers import Controller, ControllerSettings
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.repository import RedisJobRepository
from tests.examples import slow

#: Half a surrogate pair, half a character, NUL, a control sequence, and a byte that isn't UTF-8.
TEXTS = ["\ud83d", "\ude00 tail", "a\x00b", "\x1b[2J", "\udcff", "\ud83d\ude00"]


class UnspeakableError(Exception):
    """Can't even be shown."""

    def __str__(self) -> str:
        """Fail."""
        raise ZeroDivisionError


async def raise_text(job: ClaimedJob, text: str) -> None:
    raise ValueError(text)


async def raise_group(job: ClaimedJob, text: str) -> None:
    raise ExceptionGroup(text, [ValueError(text), KeyError(text)])


async def exit_with(job: ClaimedJob, text: str) -> None:
    raise SystemExit(text)


async def raise_unspeakable(job: ClaimedJob, text: str) -> None:
    raise UnspeakableError(text)


async def fail(job: ClaimedJob, text: str) -> None:
    await job.fail(text)


async def note(job: ClaimedJob, text: str) -> None:
    error = ValueError("plain")
    error.add_note(text)
    raise error


async def name_a_container(job: ClaimedJob, text: str) -> None:
    await job.writer.update_status("running", container_id=text)
    raise ValueError(text)


async def append(job: ClaimedJob, text: str) -> None:
    await job.writer.append([JobEvent("log", text)])
    raise ValueError(text)


async def cancel(job: ClaimedJob, text: str) -> None:
    await job.writer.cancel(text)
    raise ValueError(text)


#: The first is quick enough.
WAYS = [
    raise_text,
    *(slow(way) for way in (raise_group, exit_with, raise_unspeakable, fail, note, name_a_container, append, cancel)),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
async def test_a_job_fails_once(
    repository: RedisJobRepository, way: Callable[[ClaimedJob, str], Awaitable[None]]
) -> None:
    """A real controller runs each job a single time, however it ends."""
    runs: list[str] = []
    for number, _ in enumerate(TEXTS):
        await repository.create_job(Job(id=f"j{number}", status="queued"))

    async def handle(job: ClaimedJob) -> None:
        runs.append(job.job.id)
        await way(job, TEXTS[int(job.job.id[1:])])

    settings = ControllerSettings(concurrency=len(TEXTS), lease_seconds=5.0, poll_seconds=0.05)
    async with Controller(repository, settings=settings) as controller, asyncio.timeout(30):
        running = asyncio.create_task(controller.run(handle))
        for number, _ in enumerate(TEXTS):
            async for _ in repository.follow_events(f"j{number}"):
                pass
        controller.stop()
        await running
    assert sorted(runs) == [f"j{number}" for number, _ in enumerate(TEXTS)]
    for number, text in enumerate(TEXTS):
        job = await repository.get_job(f"j{number}")
        assert job is not None
        assert job.status in ("failed", "cancelled"), ascii(text)
        log = "".join(event.data or "" for event in job.events)
        assert "[" in log, ascii(text)
        if way not in (fail, cancel):
            assert "Traceback" in log, ascii(text)
