"""A store, users with keys, and the web server as clients reach it: over a socket."""

from collections.abc import AsyncIterator

import httpx
import pytest

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, create_app
from tests.integration.store.conftest import impatient, repository, server, valkey
from tests.integration.web.serving import Account, Served, create_account, serve

__all__ = ["impatient", "repository", "server", "valkey"]


@pytest.fixture
async def ada(repository: RedisJobRepository) -> Account:
    return await create_account(repository, "ada")


@pytest.fixture
async def bob(repository: RedisJobRepository) -> Account:
    return await create_account(repository, "bob")


@pytest.fixture
def settings() -> WebSettings:
    """What the web server is started with; a module that wants others has a fixture of this name."""
    return WebSettings()


@pytest.fixture
async def web(repository: RedisJobRepository, settings: WebSettings) -> AsyncIterator[Served]:
    async with serve(create_app(repository, settings=settings)) as served:
        yield served


@pytest.fixture
async def client(web: Served, ada: Account) -> AsyncIterator[httpx.AsyncClient]:
    """A client with Ada's key."""
    async with web.client(ada) as opened:
        yield opened
