"""What a job shows by itself: its log's totals and, while it waits, its place in the queue."""

import httpx

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app
from tests.integration.web.serving import Account, Served, serve


async def test_the_totals_of_a_log(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Lines with an open last one, bytes, and how far they count: the same before the end and after it."""
    for job_id, (texts, lines, size, is_open) in enumerate(
        [([], 0, 0, False), (["a\n", "€"], 2, 5, True), (["a", "", ""], 1, 1, True), (["a\n", "\n"], 2, 3, False)]
    ):
        await repository.create_job(Job(id=str(job_id), user_id="ada", status="running"))
        await repository.add_events(str(job_id), [JobEvent("log", text) for text in texts])
        totals = {"lines": lines, "bytes": size, "is_open": is_open, "position": len(texts)}
        shown = (await client.get(f"/jobs/{job_id}")).json()
        assert (shown["totals"], shown["position"], shown["attempts"]) == (totals, len(texts), 0)
        await repository.complete_job(str(job_id), True, utc_now())
        ended = (await client.get(f"/jobs/{job_id}")).json()["totals"]
        assert ended == {**totals, "position": len(texts) + 1}


async def test_a_damaged_log_leaves_the_job_to_be_shown(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """Whether its last line is open isn't known then."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", "a\n"), JobEvent("log", "b")])
    nodes, stream = repository.engine.nodes, repository.engine.keys.job("j").stream
    await nodes.read("RENAME", stream, f"{stream}-away")
    shown = (await client.get("/jobs/j")).json()
    await nodes.read("RENAME", f"{stream}-away", stream)
    assert (shown["status"], shown["totals"]["is_open"], shown["totals"]["lines"]) == ("running", None, 1)


async def test_a_waiting_job_says_how_many_come_before_it(
    web: Served, client: httpx.AsyncClient, bob: Account, repository: RedisJobRepository
) -> None:
    """Of its user those that are older, and of other users as many turns; nothing when it doesn't wait any more."""
    for user, job_id in [("ada", "a1"), ("ada", "a2"), ("bob", "b1"), ("ada", "a3"), ("bob", "b2"), ("bob", "b3")]:
        await repository.create_job(Job(id=job_id, user_id=user, status="queued", command=["true"]))
    places = [(await client.get(f"/jobs/{job_id}")).json()["place"] for job_id in ("a1", "a2", "a3")]
    assert places == [0, 2, 4]
    async with web.client(bob) as other:
        assert [(await other.get(f"/jobs/{job_id}")).json()["place"] for job_id in ("b1", "b2")] == [1, 3]
    await repository.cancel_job("a1")
    assert "place" not in (await client.get("/jobs/a1")).json()


async def test_who_asks(web: Served, client: httpx.AsyncClient, ada: Account, repository: RedisJobRepository) -> None:
    """`/session` names the user, and the end of a browser's session; nobody is refused."""
    assert (await client.get("/session")).json() == {"user_id": "ada", "name": "ada", "expires": None, "sees": "own"}
    async with web.client() as browser:
        assert (await browser.get("/session")).status_code == 401
        await browser.post("/login", json={"key": ada.key})
        shown = (await browser.get("/session")).json()
        assert shown["user_id"] == "ada"
        assert shown["expires"].endswith("Z")
        assert shown["expires"] > utc_now().isoformat()
        await browser.post("/logout")
        assert (await browser.get("/session")).status_code == 401


async def test_who_asks_of_an_application_that_has_users_of_its_own(repository: RedisJobRepository) -> None:
    """They may have ids that the store's users can't have, and no name here."""

    async def authenticate(request: object) -> str:
        return "x\n"

    async with serve(create_app(repository, authenticate=authenticate)) as served, served.client() as client:
        assert (await client.get("/session")).json() == {
            "user_id": "x\n",
            "name": None,
            "expires": None,
            "sees": "own",
        }
