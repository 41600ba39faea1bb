"""Webhooks over HTTP: users have their own, and see a secret once."""

from collections.abc import AsyncIterator

import httpx
import pytest

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app, this_machine_sees_everything
from ci_eventstore.webhooks.store import MAX_OF_A_USER
from ci_eventstore.webhooks.webhook import DEFAULT_EVENTS
from tests.integration.web.serving import Account, Served, serve

URL = "https://a.example/hook"


@pytest.fixture
async def other(web: Served, bob: Account) -> AsyncIterator[httpx.AsyncClient]:
    async with web.client(bob) as opened:
        yield opened


async def test_a_webhook_is_the_users_own(client: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
    """Nobody else sees or changes it, and its secret is shown when it is made, and when it gets another one."""
    created = await client.post("/webhooks", json={"url": URL})
    shown = created.json()
    assert (created.status_code, created.headers["location"]) == (201, f"/webhooks/{shown['id']}")
    secret = shown.pop("secret")
    assert secret.startswith("whsec_")
    assert (shown["url"], shown["user_id"], shown["events"]) == (URL, "ada", list(DEFAULT_EVENTS))
    path = f"/webhooks/{shown['id']}"
    assert (await client.get(path)).json() == shown
    assert (await client.get("/webhooks")).json() == [shown]
    assert (await other.get("/webhooks")).json() == []
    refused = [await other.get(path), await other.delete(path)]
    refused += [await other.post(f"{path}/{action}") for action in ("enable", "rotate", "test")]
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in refused} == {(404, "not_found")}
    rotated = (await client.post(f"{path}/rotate")).json()
    assert rotated.pop("secret") not in ("", secret)
    assert rotated == shown
    for action in ("enable", "test"):
        answer = await client.post(f"{path}/{action}")
        assert (answer.status_code, answer.json()) == (200, shown)
    assert (await client.delete(path)).status_code == 204
    assert [(await client.delete(path)).status_code, (await client.get(path)).status_code] == [404, 404]


async def test_what_is_no_webhook(client: httpx.AsyncClient) -> None:
    """400, and nothing is stored; nobody makes one for another user; 409 says how many a user may have."""
    sent: list[object] = [{}, {"url": "ftp://a.example/"}, {"url": 7}, [URL], {"url": URL, "user_id": "bob"}]
    sent += [{"url": URL, "events": "job.ended"}, {"url": URL, "events": ["job.finished"]}]
    sent += [
        {"url": url} for url in ("http://127.1/", "https://[::1]/", "https://[::ffff:7f00:1]/", "https://10.2.0.1/")
    ]
    for body in (*sent, {"url": "https://ada:secret@a.example/"}):
        answer = await client.post("/webhooks", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid"), body
        assert "secret" not in answer.text
    assert (await client.get("/webhooks")).json() == []
    for _ in range(MAX_OF_A_USER):
        assert (await client.post("/webhooks", json={"url": URL, "events": ["job.ended"]})).status_code == 201
    refused = await client.post("/webhooks", json={"url": URL})
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        409,
        f"a user may have {MAX_OF_A_USER} webhooks",
    )


async def test_whoever_sees_everything_has_webhooks_for_all_jobs(repository: RedisJobRepository) -> None:
    """On one person's own machine; users' own are there, too."""
    hers = await repository.engine.webhooks.add(URL, user_id="ada")
    app = create_app(repository, authenticate=this_machine_sees_everything)
    async with serve(app) as served, httpx.AsyncClient(base_url=served.url) as client:
        created = (await client.post("/webhooks", json={"url": URL})).json()
        assert created["user_id"] is None
        assert [found["id"] for found in (await client.get("/webhooks")).json()] == [hers.id, created["id"]]
        assert (await client.delete(f"/webhooks/{hers.id}")).status_code == 204
