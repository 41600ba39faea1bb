"""One repository in several event loops, one after the other and at once."""

import asyncio
import gc
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ci_common.models import Job, JobEvent, JobStatus
from ci_eventstore.controllers import ClaimedJob, Controller
from ci_eventstore.errors import NotInitializedError, OtherEventLoopError
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.loops import ENTRIES, RUNNERS, Runner, Step, in_thread
from tests.leftovers import descriptors
from tests.servers import RealServer

_numbers = itertools.count()


@pytest.fixture
def shared(valkey: RealServer) -> Iterator[RedisJobRepository]:
    """A repository as modules have it: opened in one loop, used in others. In the end its projections are right."""
    repository = RedisJobRepository.from_url(valkey.url, prefix=f"loops-{os.getpid()}-{next(_numbers)}")
    asyncio.run(repository.initialize())
    yield repository

    async def end() -> None:
        assert await repository.verify() == []
        await repository.close()

    asyncio.run(end())
    # What loops that were closed under it have left is complained of here, not in another test.
    gc.collect()


def public_names() -> set[str]:
    names = {name for name in dir(RedisJobRepository) if not name.startswith("_")}
    return names - {"close", "from_url"}


def test_all_entries_are_tried() -> None:
    """The table below has each public method and property of the repository."""
    assert public_names() == set(ENTRIES)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", RUNNERS, ids=lambda run: run.__name__)
def test_every_entry_works_in_every_loop(shared: RedisJobRepository, run: Runner) -> None:
    """Whatever a program asks of a repository, it works in its second and third event loop as in its first."""
    failures: list[str] = []

    def work(loop: int) -> Callable[[], object]:
        turns = itertools.count()

        async def ask_for_all() -> None:
            turn = next(turns)
            for name, step in ENTRIES.items():
                try:
                    async with asyncio.timeout(20):
                        await step(shared, f"job-{loop}-{turn}")
                except Exception as error:  # noqa: BLE001 - all of them are shown
                    failures.append(f"{name} in loop {loop}: {error!r}")

        return ask_for_all

    run([work(loop) for loop in range(3)])  # type: ignore[misc]
    assert failures == []


def test_first_thing_in_a_loop(shared: RedisJobRepository) -> None:
    """Each entry may be the first that a loop asks for."""

    async def ask(step: Step, job: str) -> None:
        async with asyncio.timeout(20):
            await step(shared, job)

    for name, step in ENTRIES.items():
        asyncio.run(ask(step, "job"))
        if name == "follow":
            asyncio.run(ask(step, "job"))


def test_no_connection_outlives_its_loop(shared: RedisJobRepository) -> None:
    """However many loops a program has, it has no more connections than one of them needs."""

    async def work() -> None:
        await shared.create_job(Job(id=f"job-{next(_numbers)}", status="running"))
        await shared.list_jobs()

    asyncio.run(work())
    before = len(descriptors())
    for _ in range(10):
        asyncio.run(work())
    assert len(descriptors()) == before


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_without_an_end_leaves_no_connection(shared: RedisJobRepository) -> None:
    """The next loop lets go of what a loop has left that was closed under it."""

    async def work() -> None:
        await shared.create_job(Job(id=f"job-{next(_numbers)}", status="running"))

    asyncio.run(work())
    gc.collect()
    before = len(descriptors())
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()
    asyncio.run(work())
    gc.collect()
    assert len(descriptors()) == before


def test_a_controller_works_in_a_second_loop(shared: RedisJobRepository) -> None:
    """A controller, the same or a new one, takes jobs in each event loop that it is entered in."""
    ran: list[str] = []
    same = Controller(shared)

    async def work(controller: Controller, job_id: str) -> None:
        async def build(job: ClaimedJob) -> None:
            ran.append(job.job.id)
            await job.write("built\n")
            controller.stop()

        await shared.create_job(Job(id=job_id, status="queued"))
        async with asyncio.timeout(30), controller:
            await controller.run(build)
        found = await shared.get_job(job_id)
        assert found is not None
        assert found.status == JobStatus.COMPLETED

    for number in range(3):
        asyncio.run(work(same, f"same-{number}"))
        asyncio.run(work(Controller(shared), f"new-{number}"))
    assert ran == ["same-0", "new-0", "same-1", "new-1", "same-2", "new-2"]


def test_what_was_made_in_another_loop_says_so(shared: RedisJobRepository) -> None:
    """A writer or a follower used in another loop than its own is an error at once, not a wait without end."""

    async def make() -> tuple[object, ...]:
        await shared.create_job(Job(id="job", status="running"))
        writer = shared.log_writer("job")
        writer.open()
        await writer.write("one\n")
        await writer.flush()
        follower = await shared.follow("job")
        return writer, follower

    async def use(writer: object, follower: object) -> None:
        async with asyncio.timeout(10):
            with pytest.raises(OtherEventLoopError, match="log writer"):
                await writer.write("two\n")  # type: ignore[attr-defined]
            with pytest.raises(OtherEventLoopError, match="log writer"):
                await writer.flush()  # type: ignore[attr-defined]
            with pytest.raises(OtherEventLoopError, match="the follower"):
                await follower.read()  # type: ignore[attr-defined]

    living = asyncio.new_event_loop()
    with asyncio.Runner(loop_factory=lambda: living) as runner:
        made = runner.run(make())
        in_thread(lambda: use(*made))
    asyncio.run(use(*made))


def test_writes_of_a_second_loop_come_after_those_of_the_first(shared: RedisJobRepository) -> None:
    """What a loop writes comes after what was acknowledged in the loop before: if that is lost, it is told."""

    async def write(data: str) -> None:
        await shared.add_event("job", JobEvent("log", data))

    async def first() -> list[tuple[str, int]]:
        await shared.create_job(Job(id="job", status="running"))
        await write("one\n")
        return shared.engine.jobs.flusher.ledger.last("job", 0.0)

    calls = asyncio.run(first())

    async def second() -> None:
        assert shared.engine.jobs.flusher.ledger.last("job", 0.0) == calls
        await write("two\n")
        assert [event.data for event in await shared.get_events_since("job", 0)] == ["one\n", "two\n"]

    asyncio.run(second())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_closed_hard", [False, True])
def test_what_a_dead_loop_may_still_write_cant_come_later(shared: RedisJobRepository, is_closed_hard: bool) -> None:
    """A write whose loop ended under it takes effect before the next loop's writes, or never."""

    async def first() -> asyncio.Task[None]:
        await shared.create_job(Job(id="job", status="running"))
        task = asyncio.create_task(shared.add_event("job", JobEvent("log", "one\n")))
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(first())
    if not is_closed_hard:
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}))
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()

    async def second() -> None:
        await shared.add_event("job", JobEvent("log", "two\n"))
        assert not shared.engine.jobs.flusher.is_busy("job")
        found = [event.data for event in await shared.get_events_since("job", 0)]
        assert found in (["one\n", "two\n"], ["two\n"])

    asyncio.run(second())
    # Or it would be said that nobody has awaited it.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()


def test_a_job_writer_works_in_every_loop(shared: RedisJobRepository) -> None:
    """What a handler is given to write with may be used in another thread's loop, and in a later one."""
    writer = shared.writer("job")

    async def write(text: str) -> None:
        await writer.append([JobEvent("log", text)])

    async def read() -> list[str | None]:
        return [event.data for event in await shared.get_events_since("job", 0)]

    asyncio.run(shared.create_job(Job(id="job", status="running")))
    asyncio.run(write("one\n"))
    in_thread(lambda: write("two\n"))
    asyncio.run(write("three\n"))
    assert asyncio.run(read()) == ["one\n", "two\n", "three\n"]


def test_closed_is_closed_in_all_loops(shared: RedisJobRepository) -> None:
    """Whoever closes a repository closes it everywhere; other loops that run close what is theirs."""
    opened, closed = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    async def other() -> None:
        await shared.list_jobs()
        opened.set()
        await asyncio.to_thread(closed.wait, 20)
        try:
            await shared.list_jobs()
        except NotInitializedError as error:
            errors.append(error)

    async def close() -> None:
        await shared.close()
        with pytest.raises(NotInitializedError):
            await shared.list_jobs()

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    opened.wait(20)
    asyncio.run(close())
    closed.set()
    thread.join()
    assert len(errors) == 1
    asyncio.run(shared.initialize())


async def test_opened_and_closed_by_many_at_once(valkey: RealServer) -> None:
    """However `initialize` and `close` cross each other, what is opened last can be used, and nothing is left."""
    repository = RedisJobRepository.from_url(valkey.url, prefix=f"crossing-{os.getpid()}")
    before = len(descriptors())
    for _ in range(5):
        await asyncio.gather(*(repository.initialize() for _ in range(5)))
        store = repository.engine
        await asyncio.gather(repository.close(), repository.initialize(), repository.close(), repository.initialize())
        assert store.nodes.is_closed
        await repository.initialize()
        await repository.list_jobs()
    await repository.close()
    await asyncio.sleep(0)
    assert len(descriptors()) == before


@pytest.mark.parametrize("is_same_loop", [False, True])
def test_a_forked_child_has_connections_of_its_own(shared: RedisJobRepository, is_same_loop: bool) -> None:
    """A process made by fork uses the repository in a new event loop, while its parent goes on; in the parent's not."""
    loop = asyncio.new_event_loop()

    async def prepare() -> None:
        await shared.create_job(Job(id="job", status="running"))

    async def write(who: str) -> None:
        for number in range(50):
            await shared.add_event("job", JobEvent("log", f"{who} {number}\n"))

    loop.run_until_complete(prepare())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if is_same_loop:
                try:
                    loop.run_until_complete(write("child"))
                except OtherEventLoopError:
                    code = 0
            else:
                asyncio.run(write("child"))
                code = 0
        except BaseException:
            logging.getLogger("tests").exception("the child failed")
        finally:
            os._exit(code)
    loop.run_until_complete(write("parent"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    async def found() -> list[str]:
        return [event.data or "" for event in await shared.get_events_since("job", 0)]

    lines = loop.run_until_complete(found())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    for who in ("parent",) if is_same_loop else ("parent", "child"):
        assert [line for line in lines if line.startswith(who)] == [f"{who} {number}\n" for number in range(50)]


def test_a_program_ends_while_the_store_stands_still(own: RealServer) -> None:
    """A loop that ends with a repository open waits for a server that takes nothing no longer than some seconds."""
    repository = RedisJobRepository.from_url(own.url)

    async def work() -> None:
        await repository.initialize()
        await repository.create_job(Job(id="job", status="running"))
        own.suspend()
        for _ in range(4):
            writing.add(asyncio.create_task(repository.add_event("job", JobEvent("log", "x" * 8_000_000))))
        await asyncio.sleep(0.1)

    writing: set[asyncio.Task[None]] = set()
    started = time.monotonic()
    try:
        asyncio.run(work())
    finally:
        own.resume()
    assert time.monotonic() - started < 30
    assert all(task.cancelled() for task in writing)


MODULE_FIXTURE = """
import pytest
import pytest_asyncio
from ci_common.models import Job, JobEvent
from ci_eventstore import RedisJobRepository

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def repository():
    async with RedisJobRepository.from_url({url!r}, prefix={prefix!r}) as opened:
        await opened.create_job(Job(id="job", status="running"))
        yield opened

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(3))
async def test_events(repository, number):
    await repository.add_event("job", JobEvent("log", f"{{number}}\\n"))
    async for event in repository.follow_events("job"):
        if event.id == number + 1:
            break

@pytest.mark.asyncio(loop_scope="module")
async def test_in_the_loop_of_the_module(repository):
    assert len(await repository.get_events_since("job", 0)) == 3
"""


@pytest.mark.slow  # It takes over a second of a CPU.
def test_a_fixture_of_a_module_serves_tests_with_loops_of_their_own(
    valkey: RealServer, pytester: pytest.Pytester
) -> None:
    """A repository that a fixture has opened for a module works in tests that have an event loop each."""
    pytester.makepyfile(MODULE_FIXTURE.format(url=valkey.url, prefix=f"fixture-{os.getpid()}"))
    options = ["-p", "no:valkey", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=4)
