"""Pages of other sites: those that a setting names may ask with a key, and no others."""

import pytest

from ci_eventstore.web import WebSettings
from tests.integration.web.serving import Account, Served

SITE = "https://ci.example"


@pytest.fixture
def settings() -> WebSettings:
    return WebSettings(cors_origins=(SITE,))


async def test_a_site_that_is_named_may_ask_with_a_key(web: Served, ada: Account) -> None:
    """Before a request its browser asks, and it may see the headers that it needs, those of errors too."""
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization, content-type, idempotency-key, last-event-id, range"
    async with web.client() as client:
        allowed = await client.options("/jobs", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, SITE)
        assert "POST" in allowed.headers["access-control-allow-methods"]
    async with web.client(ada, headers={"Origin": SITE}) as client:
        for path, status in (("/jobs", 200), ("/jobs/none", 404), ("/nothing", 404)):
            response = await client.get(path)
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, SITE)
        created = await client.post("/jobs", json={"command": "a"})
        assert created.status_code == 201
        assert "Location" in created.headers["access-control-expose-headers"]


async def test_sessions_are_for_own_pages(web: Served, ada: Account) -> None:
    """No site is told that it may send cookies, or log in."""
    async with web.client(headers={"Origin": SITE}) as client:
        response = await client.post("/login", json={"key": ada.key})
    assert response.status_code == 403
    assert "access-control-allow-credentials" not in response.headers


async def test_another_site_may_not_ask(web: Served, ada: Account) -> None:
    """Its browser keeps the answer from it."""
    async with web.client(ada, headers={"Origin": "https://other.example"}) as client:
        assert "access-control-allow-origin" not in (await client.get("/jobs")).headers
