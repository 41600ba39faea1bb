"""Controllers that have nothing to do: they are given new jobs at once, never more than they may have."""

import asyncio
import random
from contextlib import suppress

import pytest
from fakeredis import FakeAsyncRedis

from ci_common.models import Job
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.controllers.controller import SMALL_WAVE
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.claimer import Claimer, Heard
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.examples import slow
from tests.waiting import wait_until

OFFERS = "{ci:0}:offers:default"
#: Nothing is found by looking: whoever isn't told of a job has it after an hour.
PATIENT = ControllerSettings(poll_seconds=3600.0, grace_seconds=0.2)
#: It looks all the time.
RESTLESS = ControllerSettings(poll_seconds=0.01, grace_seconds=0.2)


async def wait_for_offers(server: Nodes, count: int) -> None:
    async with asyncio.timeout(30):
        while await server.read("ZCARD", OFFERS) != count:  # noqa: ASYNC110 - it is the server's
            await asyncio.sleep(0.005)


async def attempts_of(server: Nodes, count: int) -> set[bytes]:
    return {await server.read("HGET", f"{{ci:0}}:job:{number}", "attempts") for number in range(count)}


async def test_a_job_begins_without_a_question(repository: RedisJobRepository, server: Nodes) -> None:
    """One job after the other, each at once, and there is an offer again when it has ended."""
    begun: list[str] = []

    async def handler(job: ClaimedJob) -> None:
        begun.append(job.job.id)

    async with asyncio.timeout(60), Controller(repository, settings=PATIENT) as controller:
        running = asyncio.create_task(controller.run(handler))
        for number in range(20):
            await wait_for_offers(server, 1)
            await repository.create_job(Job(id=f"{number}", status="queued"))
            # It is the controller's before the creation has returned.
            assert await server.read("HGET", f"{{ci:0}}:job:{number}", "attempts") == b"1"
            await wait_until(lambda count=number: len(begun) == count + 1)  # type: ignore[misc]
        await wait_for_offers(server, 1)
        controller.stop()
        await running
        # Those that run may have a long time of grace left.
        assert await server.read("EXISTS", OFFERS) == 0
    assert begun == [f"{number}" for number in range(20)]
    assert await server.read("EXISTS", OFFERS, "{ci:0}:offered:default") == 0


async def test_a_job_that_is_given_begins_before_anybody_asks(
    repository: RedisJobRepository, server: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message begins it, though whoever asks for jobs sleeps on."""
    began = asyncio.Event()

    async def handler(job: ClaimedJob) -> None:
        began.set()

    async with Controller(repository, settings=PATIENT) as controller:
        running = asyncio.create_task(controller.run(handler))
        await wait_for_offers(server, 1)
        await wait_until(lambda: controller._is_waiting)
        with monkeypatch.context() as patched:
            patched.setattr(controller._woken, "set", lambda: None)
            await repository.create_job(Job(id="a", status="queued"))
            async with asyncio.timeout(30):
                await began.wait()
        controller.stop()
        await running
    assert await server.read("HGET", "{ci:0}:job:a", "status") == b"completed"


async def test_a_job_that_is_given_while_others_are_asked_for_waits(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun at once, it would come on top of what the answer brings."""
    asked, answered, begun = asyncio.Event(), asyncio.Event(), list[str]()

    async def handler(job: ClaimedJob) -> None:
        begun.append(job.job.id)

    async def claim(self: Claimer, *arguments: object, **options: object) -> list[Claimed]:
        asked.set()
        await answered.wait()
        return []

    monkeypatch.setattr(Claimer, "claim", claim)
    async with Controller(repository, settings=PATIENT) as controller:
        running = asyncio.create_task(controller.run(handler))
        await asked.wait()
        [claimed] = await claim_one(repository)
        controller._hear(Heard(given=claimed))
        for _ in range(10):
            await asyncio.sleep(0)
        assert begun == []
        answered.set()
        await wait_until(lambda: begun == ["b"])
        controller.stop()
        await running


async def test_what_is_given_while_a_cancelled_run_ends_is_given_back(
    repository: RedisJobRepository, server: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """No handler is begun any more, since nobody would interrupt it."""
    ended, begun = asyncio.Event(), list[str]()

    async def handler(job: ClaimedJob) -> None:
        begun.append(job.job.id)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await ended.wait()

    async with Controller(repository, settings=PATIENT) as controller:
        running = asyncio.create_task(controller.run(handler))
        await wait_for_offers(server, 1)
        await repository.create_job(Job(id="a", status="queued"))
        await wait_until(lambda: begun == ["a"])
        running.cancel()
        await asyncio.sleep(0)
        [claimed] = await claim_one(repository)
        controller._hear(Heard(given=claimed))
        ended.set()
        await asyncio.wait({running})
    assert begun == ["a"]
    assert [await server.read("HGET", f"{{ci:0}}:job:{job}", "status") for job in "ab"] == [b"completed", b"queued"]
    assert "couldn't be given back" not in caplog.text


async def claim_one(repository: RedisJobRepository) -> list[Claimed]:
    await repository.create_job(Job(id="b", status="queued"))
    return await claims.claim(repository, "default", "c1", 1, 30.0)


@pytest.mark.parametrize("settings", [PATIENT, slow(RESTLESS)], ids=["patient", "restless"])
@pytest.mark.parametrize("queues", [["default"], ["default", "other"]], ids=len)
async def test_nobody_has_more_than_one_may(
    repository: RedisJobRepository, server: Nodes, settings: ControllerSettings, queues: list[str]
) -> None:
    """Three controllers of one job each, while jobs come one by one and many at once: every job runs once."""
    count, chance = 150, random.Random(4)
    running: dict[str, str] = {}
    begun: list[str] = []

    async def control(controller: Controller) -> None:
        async def handler(job: ClaimedJob) -> None:
            assert running.setdefault(controller.name, job.job.id) == job.job.id
            begun.append(job.job.id)
            await asyncio.sleep(chance.choice([0, 0, 0.005]))
            del running[controller.name]

        await controller.run(handler)

    controllers = [Controller(repository, queues=queues, name=f"c{number}", settings=settings) for number in range(3)]
    async with asyncio.timeout(60), controllers[0], controllers[1], controllers[2]:
        tasks = [asyncio.create_task(control(controller)) for controller in controllers]
        for number in range(count):
            await repository.create_job(Job(id=f"{number}", status="queued", queue=chance.choice(queues)))
            await asyncio.sleep(chance.choice([0, 0, 0, 0.005, 0.02]))
        await wait_until(lambda: len(begun) == count)
        for controller in controllers:
            controller.stop()
        await asyncio.gather(*tasks)
    assert sorted(begun, key=int) == [f"{number}" for number in range(count)]
    assert await attempts_of(server, count) == {b"1"}
    jobs = await repository.list_jobs()
    assert {str(job.status) for job in jobs} == {"completed"}


async def test_an_offer_that_cant_be_taken_back_brings_nothing_on_top(
    repository: RedisJobRepository, server: Nodes
) -> None:
    """Its partition can't be asked, so another one gives a job; what the offer brings then goes back into its queue."""
    ended, running, begun = asyncio.Event(), set[str](), list[str]()

    async def handler(job: ClaimedJob) -> None:
        assert not running
        running.add(job.job.id)
        begun.append(job.job.id)
        await ended.wait()
        running.clear()

    async with asyncio.timeout(30), Controller(repository, queues=["a", "b"], settings=PATIENT) as controller:
        working = asyncio.create_task(controller.run(handler))
        await wait_until(lambda: controller._is_waiting and controller._open_intake()._claimer._offer.place is not None)
        place = controller._open_intake()._claimer._offer.place
        assert place is not None
        await server.read("SET", place.dispatch, "damage")
        await repository.create_job(Job(id="1", status="queued", queue="ab".replace(place.name, "")))
        await wait_until(lambda: running == {"1"} and controller._is_waiting)
        await server.read("DEL", place.dispatch)
        await repository.create_job(Job(id="2", status="queued", queue=place.name))
        assert await server.read("HGET", "{ci:0}:job:2", "epoch") == b"1"
        while await server.read("HGET", "{ci:0}:job:2", "status") != b"queued":
            assert begun == ["1"]
            await asyncio.sleep(0.005)
        ended.set()
        await wait_until(lambda: begun == ["1", "2"])
        controller.stop()
        await working
    assert await server.read("HGET", "{ci:0}:job:2", "attempts") == b"1"
    assert {str(job.status) for job in await repository.list_jobs()} == {"completed"}


async def test_who_runs_a_job_offers_nothing(repository: RedisJobRepository, server: Nodes) -> None:
    """A handler may block its event loop: another controller, which has nothing to do, begins the next job."""
    both = asyncio.Barrier(2)
    settings = ControllerSettings(concurrency=2, poll_seconds=3600.0, grace_seconds=0.2)
    names: list[str] = []

    async def control(controller: Controller) -> None:
        async def handler(job: ClaimedJob) -> None:
            names.append(controller.name)
            await both.wait()

        await controller.run(handler)

    controllers = [Controller(repository, name=f"c{number}", settings=settings) for number in range(2)]
    async with asyncio.timeout(30), controllers[0], controllers[1]:
        tasks = [asyncio.create_task(control(controller)) for controller in controllers]
        await wait_for_offers(server, 2)
        await repository.create_job(Job(id="a", status="queued"))
        await wait_until(lambda: len(names) == 1)
        # Time to ask, if it asks.
        await asyncio.sleep(0.1)
        assert await server.read("ZCARD", OFFERS) == 1
        await repository.create_job(Job(id="b", status="queued"))
        await wait_until(lambda: len(names) == 2)
        for controller in controllers:
            controller.stop()
        await asyncio.gather(*tasks)
    assert sorted(names) == ["c0", "c1"]


async def test_a_question_that_was_asked_ahead_isnt_an_idle_ones(repository: RedisJobRepository, server: Nodes) -> None:
    """It makes no offer; a controller whose jobs have ended by the time that it is answered asks again, and offers."""
    settings = ControllerSettings(concurrency=SMALL_WAVE + 1, poll_seconds=3600.0, grace_seconds=0.2)
    for number in range(SMALL_WAVE):
        await repository.create_job(Job(id=f"{number}", status="queued"))
    async with asyncio.timeout(60), Controller(repository, settings=settings) as controller:

        async def run_inline() -> None:
            async for job in controller.claims():
                async with job:
                    pass

        running = asyncio.create_task(run_inline())
        await wait_for_offers(server, 1)
        controller.stop()
        await running
    assert {str(job.status) for job in await repository.list_jobs()} == {"completed"}


async def test_what_is_given_to_one_that_stops_is_given_back(repository: RedisJobRepository, server: Nodes) -> None:
    """At once: nobody has to wait for a lease, nor for the jobs that it still runs."""
    async with asyncio.timeout(30), Controller(repository, settings=PATIENT) as controller:
        waiting = asyncio.create_task(anext(controller.claims()))
        await wait_for_offers(server, 1)
        claimer = controller._open_intake()._claimer
        await wait_until(lambda: not claimer._outlook._unheard)
        hear = claimer._hear

        def stop_and_hear(heard: Heard) -> None:
            if heard.given is not None:
                controller.stop()
            hear(heard)

        claimer._hear = stop_and_hear
        await repository.create_job(Job(id="j", status="queued"))
        with pytest.raises(StopAsyncIteration):
            await waiting
        job = await repository.get_job_summary("j")
        assert job is not None
        assert job.status == "queued"
    [claimed] = await claims.claim(repository, "default", "next", 1, 30.0)
    assert (claimed.attempts, claimed.claim.epoch, claimed.lost_by) == (1, 2, None)


async def test_jobs_taken_one_by_one(repository: RedisJobRepository, server: Nodes) -> None:
    """Whoever takes jobs from the iterator is given the next one only when it asks for it."""
    async with asyncio.timeout(30), Controller(repository, settings=PATIENT) as controller:
        claims = controller.claims()
        for number in range(3):
            asking = asyncio.create_task(anext(claims))
            await wait_for_offers(server, 1)
            await repository.create_job(Job(id=f"{number}", status="queued"))
            async with await asking as job:
                assert job.job.id == f"{number}"
                assert await server.read("ZCARD", OFFERS) == 0
        await claims.aclose()


async def test_controllers_run_on_fakeredis() -> None:
    """Jobs that wait already are claimed, new ones are given; for tests of programs that use the store."""
    begun: list[str] = []

    async def handler(job: ClaimedJob) -> None:
        await job.write("hello\n")
        begun.append(job.job.id)

    async with RedisJobRepository(FakeAsyncRedis()) as repository, asyncio.timeout(30):
        await repository.create_job(Job(id="early", status="queued"))
        async with Controller(repository, settings=RESTLESS) as controller:
            running = asyncio.create_task(controller.run(handler))
            for job_id in ("1", "2"):
                await repository.create_job(Job(id=job_id, status="queued"))
                await wait_until(lambda name=job_id: name in begun)  # type: ignore[misc]
            controller.stop()
            await running
        assert sorted(begun) == ["1", "2", "early"]
        assert {(str(job.status), job.success) for job in await repository.list_jobs()} == {("completed", True)}
        assert await repository.verify() == []
