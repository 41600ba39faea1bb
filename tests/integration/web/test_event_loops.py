"""One application in several event loops and lifespans: as tests of an application use it, and as Django would."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from asgiref.sync import async_to_sync
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ci_common.models import Job, JobEvent
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app, create_router
from tests.integration.web.serving import Account, create_account
from tests.servers import RealServer

_numbers = itertools.count()


@pytest.fixture
def shared(valkey: RealServer) -> RedisJobRepository:
    return RedisJobRepository.from_url(valkey.url, prefix=f"web-loops-{os.getpid()}-{next(_numbers)}")


@pytest.fixture
def account(shared: RedisJobRepository) -> Iterator[Account]:
    """An account, and a job of two events that runs, made in an event loop that is over."""

    async def prepare() -> Account:
        await shared.initialize()
        account = await create_account(shared, "ada")
        await shared.create_job(Job(id="job", status="running", user_id="ada"))
        await shared.add_events("job", [JobEvent("log", "one\n"), JobEvent("log", "two\n")])
        return account

    yield asyncio.run(prepare())
    asyncio.run(shared.close())


def own_app(repository: RedisJobRepository) -> FastAPI:
    return create_app(repository)


def included(repository: RedisJobRepository) -> FastAPI:
    """An application of somebody's, which opens the repository and closes it."""
    router = create_router(repository)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with repository:
            yield
            router.stop()

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    return app


def read_stream(client: TestClient, account: Account) -> str:
    """Return a job's stream to the end of the job, which somebody brings about as soon as it is read."""
    # The test's client hands out a response when it is over.
    response = client.get("/jobs/job/stream?last_event_id=0", headers=account.headers)
    assert response.status_code == 200
    return str(response.text)


APPS = [pytest.param(own_app, id="own"), pytest.param(included, id="included")]


@pytest.mark.parametrize("make", APPS)
def test_a_client_without_a_lifespan_has_a_loop_per_request(
    shared: RedisJobRepository, account: Account, make: Callable[[RedisJobRepository], FastAPI]
) -> None:
    """Every route works when each request has an event loop of its own, also those that share a lock."""
    client = TestClient(make(shared), headers=account.headers)
    for _ in range(2):
        for path in ("/health", "/ready", "/metrics", "/jobs", "/jobs/job", "/jobs/job/events", "/jobs/job/log"):
            assert client.get(path).status_code == 200, path
    assert client.post("/jobs/job/cancel").status_code == 200
    for _ in range(2):
        assert "two" in read_stream(client, account)


@pytest.mark.parametrize("make", APPS)
def test_an_application_streams_in_each_lifespan(
    shared: RedisJobRepository, account: Account, make: Callable[[RedisJobRepository], FastAPI]
) -> None:
    """An application that is started again streams again, and after that without a lifespan, too."""
    app = make(shared)
    asyncio.run(_complete(shared))
    for _ in range(3):
        with TestClient(app) as client:
            text = read_stream(client, account)
            assert "one" in text
            assert "event: complete" in text or '"complete"' in text
    assert "two" in read_stream(TestClient(app), account)


@pytest.mark.parametrize("make", APPS)
def test_lifespans_one_after_the_other_in_one_loop(
    shared: RedisJobRepository, account: Account, make: Callable[[RedisJobRepository], FastAPI]
) -> None:
    """What a stop has ended goes on with the next start, also in the same event loop."""
    app = make(shared)

    async def live_twice() -> None:
        await _complete(shared)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            for _ in range(2):
                async with app.router.lifespan_context(app):
                    response = await client.get("/jobs/job/stream?last_event_id=0", headers=account.headers)
                    assert "two" in response.text

    asyncio.run(live_twice())


def test_locks_that_are_waited_for_in_several_loops(shared: RedisJobRepository, account: Account) -> None:
    """Requests that wait for each other do so in every loop."""
    app = create_app(shared)

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            paths = ["/ready", "/metrics"] * 5
            return [response.status_code for response in await asyncio.gather(*map(client.get, paths))]

    for _ in range(3):
        assert asyncio.run(ask()) == [200] * 10


def test_django_style_views(shared: RedisJobRepository, account: Account) -> None:
    """A function that isn't asynchronous calls the repository by `async_to_sync`, again and again."""
    for number in range(3):
        async_to_sync(shared.add_event)("job", JobEvent("log", f"{number}\n"))
    events = async_to_sync(shared.get_events_since)("job", 2)
    assert [event.data for event in events] == ["0\n", "1\n", "2\n"]


async def _complete(repository: RedisJobRepository) -> None:
    await repository.add_event("job", JobEvent("complete", success=True))
