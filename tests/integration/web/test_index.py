"""The text that `/` shows to those who ask for no page, as curl does."""

import httpx
from fastapi import FastAPI

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app, create_router
from tests.integration.web.serving import Served, serve


async def test_the_address_of_the_server_shows_what_is_there(web: Served) -> None:
    """Each endpoint of the document of the interface stands on the page, which needs no key."""
    async with web.client() as client:
        page = await client.get("/")
        document = (await client.get("/openapi.json")).json()
        assert (await client.head("/")).headers["content-length"] == page.headers["content-length"]
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    lines = [line.split()[:2] for line in page.text.splitlines()]
    for path, methods in document["paths"].items():
        for method in methods:
            assert [method.upper(), path] in lines
    assert "/" not in document["paths"]


async def test_addresses_are_those_behind_a_proxy(repository: RedisJobRepository) -> None:
    """Below a path, the page shows whole paths."""
    outer = FastAPI()
    outer.mount("/ci", create_app(repository))
    async with serve(outer) as served, served.client() as client:
        assert "GET    /ci/jobs/{job_id} " in (await client.get("/ci/")).text


async def test_an_application_keeps_its_own_page(repository: RedisJobRepository) -> None:
    """The routes that an application includes bring no page along."""
    app = FastAPI()
    app.include_router(create_router(repository))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/")).status_code == 404
