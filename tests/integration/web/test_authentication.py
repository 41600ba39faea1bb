"""Who may ask, and whose jobs are seen."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest
from fastapi import Request

from ci_common.errors import JobNotFoundError, LeaseLostError
from ci_common.models import APIKey, Job, generate_api_key, hash_api_key, utc_now
from ci_eventstore.history.erasing import Eraser, Receipt
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, authentication, create_app, this_machine_sees_everything
from tests.claims import claim
from tests.integration.web.serving import Account, Served, create_ended_job, serve
from tests.waiting import wait_until

PATHS = ["/jobs/j", "/jobs/j/stream", "/jobs/j/events", "/jobs/j/log"]


@pytest.fixture
def settings() -> WebSettings:
    return WebSettings(max_streams_per_user=2, heartbeat_seconds=0.2)


@pytest.fixture(autouse=True)
def distrustful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is looked up for each request."""
    monkeypatch.setattr(authentication, "TRUST_SECONDS", 0.0)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ci_wrong", "Basic YTpi", "ci_wrong", "Bearer \xff", "bearer x y"]
)
async def test_without_a_good_key_there_is_nothing(
    web: Served, repository: RedisJobRepository, ada: Account, header: str | None
) -> None:
    """401, and the way to do better; whether the job is there or not."""
    await create_ended_job(repository, "j", 1)
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    async with web.client() as client:
        for path in ("/jobs", *PATHS):
            response = await client.get(path, headers=headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer"), path
            assert response.json()["error"]["code"] == "unauthorized"


async def test_a_revoked_key_and_an_inactive_user_are_refused(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """An inactive user comes back; a revoked key doesn't."""
    assert (await client.get("/jobs")).status_code == 200
    await repository.update_user_active("ada", False)
    assert (await client.get("/jobs")).status_code == 401
    await repository.update_user_active("ada", True)
    assert (await client.get("/jobs")).status_code == 200
    await repository.revoke_api_key("key-ada")
    assert (await client.get("/jobs")).status_code == 401


@pytest.mark.parametrize("path", PATHS)
async def test_another_users_job_is_as_a_missing_one(
    web: Served, repository: RedisJobRepository, ada: Account, bob: Account, path: str
) -> None:
    """The same 404 for a job of another user's, for one of nobody's, and for none."""
    names = ("hers", "nobodys", "none")
    await create_ended_job(repository, "hers", 1, "ada")
    await repository.create_job(Job(id="nobodys", status="queued"))
    async with web.client(bob) as client:
        answers = [await client.get(path.replace("/jobs/j", f"/jobs/{name}")) for name in names]
        cancels = [await client.post(f"/jobs/{name}/cancel") for name in names]
        assert (await client.get("/jobs")).json() == []
        assert (await client.get("/jobs", params={"before": "hers"})).status_code == 404
    assert [answer.status_code for answer in answers + cancels] == [404] * 6
    texts = {answer.text.replace(name, "x") for answer, name in zip(answers, names, strict=True)}
    assert texts == {'{"error":{"code":"not_found","message":"there is no job \'x\'"}}'}


async def test_a_stream_ends_with_its_key(
    client: httpx.AsyncClient, repository: RedisJobRepository, web: Served
) -> None:
    """Whoever loses the right to see a job doesn't go on seeing it."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    async with client.stream("GET", "/jobs/j/stream") as response:
        pieces = response.aiter_text()
        await anext(pieces)
        await repository.revoke_api_key("key-ada")
        assert "complete" not in "".join([piece async for piece in pieces])
    assert (await client.get("/jobs/j/stream")).status_code == 401


async def test_streams_per_user_are_limited(
    web: Served, repository: RedisJobRepository, ada: Account, bob: Account
) -> None:
    """One too many is told so; other users have theirs, and one that ends makes room."""
    for job_id, user_id in (("a", "ada"), ("b", "bob")):
        await repository.create_job(Job(id=job_id, user_id=user_id, status="running"))
    async with (
        web.client(ada) as client,
        web.client(bob) as other,
        client.stream("GET", "/jobs/a/stream") as first,
        other.stream("GET", "/jobs/b/stream") as foreign,
    ):
        async with client.stream("GET", "/jobs/a/stream") as second:
            await wait_until(lambda: web.open_streams == 3)
            refused = await client.get("/jobs/a/stream")
        assert [response.status_code for response in (first, second, foreign, refused)] == [200, 200, 200, 429]
        assert refused.json()["error"]["code"] == "too_many_streams"
        assert "2 streams" in refused.json()["error"]["message"]
        await wait_until(lambda: web.open_streams == 2)
        async with client.stream("GET", "/jobs/a/stream") as again:
            assert again.status_code == 200


async def test_a_use_is_noted_once_a_minute(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """The first request is noted; those that follow write nothing."""
    await client.get("/jobs")

    async def last_use() -> APIKey:
        [key] = await repository.list_api_keys("ada")
        return key

    async with asyncio.timeout(10):
        while (await last_use()).last_used_at is None:  # noqa: ASYNC110 - it is in another place
            await asyncio.sleep(0.01)
    noted = await last_use()
    for _ in range(5):
        await client.get("/jobs")
    assert await last_use() == noted


async def login(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/login", json={"key": key})


async def test_a_browser_logs_in_and_out(web: Served, ada: Account, repository: RedisJobRepository) -> None:
    """The cookie holds nothing of the key, can't be read by scripts, and is worth nothing after logging out."""
    async with web.client() as browser:
        response = await login(browser, ada.key)
        cookie = response.headers["set-cookie"]
        assert response.status_code == 204
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=604800"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert ada.key not in cookie
        assert hash_api_key(ada.key) not in cookie
        assert (await browser.get("/jobs")).status_code == 200
        kept = dict(browser.cookies)
        assert (await browser.post("/logout")).status_code == 204
        assert (await browser.get("/jobs")).status_code == 401
    async with web.client(cookies=kept) as thief:
        assert (await thief.get("/jobs")).status_code == 401


async def test_a_session_ends_with_its_key(web: Served, ada: Account, repository: RedisJobRepository) -> None:
    """Also when the user has another one."""
    other = generate_api_key()
    await repository.create_api_key(APIKey(id="other", user_id="ada", key_hash=hash_api_key(other)))
    async with web.client() as browser:
        await login(browser, ada.key)
        await repository.revoke_api_key("key-ada")
        assert (await browser.get("/jobs")).status_code == 401
        assert (await login(browser, ada.key)).status_code == 401
        assert (await browser.post("/login", data={"key": other})).status_code == 204
        assert (await browser.get("/jobs")).status_code == 200


async def test_behind_tls_the_cookie_is_secure(web: Served, ada: Account) -> None:
    """A proxy on this machine says so."""
    async with web.client(headers={"X-Forwarded-Proto": "https"}) as browser:
        assert "; Secure" in (await login(browser, ada.key)).headers["set-cookie"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), (None, 403), ("null", 403), ("http://127.0.0.1", 403), ("own", 201)],
)
async def test_a_foreign_page_can_not_use_a_session(web: Served, ada: Account, origin: str | None, status: int) -> None:
    """What changes something is taken from pages of this server's alone."""
    headers = {} if origin is None else {"Origin": web.url if origin == "own" else origin}
    async with web.client() as browser:
        await login(browser, ada.key)
        response = await browser.post("/jobs", json={"command": ["true"]}, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b'{"key": 1}', b"\xff", b"x" * 5000])
async def test_a_login_without_a_key(web: Served, body: bytes) -> None:
    """It is refused with what is asked for."""
    async with web.client() as browser:
        for kind in ("application/json", "application/x-www-form-urlencoded"):
            response = await browser.post("/login", content=body, headers={"Content-Type": kind})
            assert response.status_code == (413 if len(body) > 4096 else 400)


async def test_an_application_may_authenticate_itself(repository: RedisJobRepository) -> None:
    """It says who the user is; there is no login then."""

    async def authenticate(request: Request) -> str | None:
        return request.headers.get("x-user")

    await repository.create_job(Job(id="j", user_id="eve", status="running"))
    async with serve(create_app(repository, authenticate=authenticate)) as served, served.client() as client:
        assert (await client.get("/jobs")).status_code == 401
        assert (await client.get("/jobs/j", headers={"X-User": "eve"})).status_code == 200
        assert (await client.get("/jobs/j", headers={"X-User": "ada"})).status_code == 404
        assert (await client.post("/login")).status_code == 404


async def test_everyone_may_see_everything(repository: RedisJobRepository) -> None:
    """On one's own machine no key is needed, and jobs without a user are seen, too."""
    await repository.create_job(Job(id="j", status="running", created_at=utc_now()))
    app = create_app(repository, authenticate=this_machine_sees_everything)
    async with serve(app) as served, served.client() as client:
        assert [job["job_id"] for job in (await client.get("/jobs")).json()] == ["j"]
        created = await client.post("/jobs", json={"command": "true"})
        stored = await repository.get_job_summary(created.json()["job_id"])
        assert stored is not None
        assert stored == replace(stored, user_id=None, command=["sh", "-c", "true"])


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "localhost:1"}, 200),
        ("GET", {"Host": "[::1]"}, 200),
        ("GET", {"Host": "evil.example"}, 403),
        ("GET", {"Host": "127.0.0.1.evil.example"}, 403),
        ("GET", {"Host": "[::1"}, 403),
        ("POST", {"Host": "localhost", "Origin": "http://localhost"}, 201),
        ("POST", {"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ("POST", {"Host": "localhost", "Origin": "null"}, 403),
        ("POST", {"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ],
)
async def test_without_keys_other_sites_pages_do_nothing(
    repository: RedisJobRepository, method: str, headers: dict[str, str], status: int
) -> None:
    """Neither by sending a form to this machine, nor by a name of theirs that leads to it."""
    app = create_app(repository, authenticate=this_machine_sees_everything)
    async with serve(app) as served, served.client() as client:
        json = {"command": "true"} if method == "POST" else None
        assert (await client.request(method, "/jobs", headers=headers, json=json)).status_code == status


@pytest.mark.slow  # It waits as long as a key may be trusted.
async def test_a_user_who_submits_while_being_erased(
    web: Served, repository: RedisJobRepository, ada: Account, bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is refused soon; what requests have made until then is gone, also what a controller has."""
    monkeypatch.setattr(authentication, "TRUST_SECONDS", 0.5)
    made, refused = list[str](), asyncio.Event()

    async def submit(account: Account) -> None:
        async with web.client(account) as client:
            for _ in range(10_000):
                answer = await client.post("/jobs", json={"command": ["true"]})
                if answer.status_code == 401:
                    refused.set()
                else:
                    made.append(answer.json()["job_id"])
                if answer.status_code == 401 or (account is bob and refused.is_set()):
                    return

    async def control() -> None:
        while not refused.is_set():
            for found in await claim(repository, "default", "controller", 5, 30):
                with suppress(LeaseLostError, JobNotFoundError):
                    await repository.writer(found.job.id, found.claim, found).complete(True, utc_now())
            await asyncio.sleep(0.01)

    async def erase() -> Receipt:
        await wait_until(lambda: len(made) > 20)
        return await Eraser(repository, "ada", cancels=True, settle_seconds=1.0).erase()

    erasing = asyncio.create_task(erase())
    await asyncio.gather(control(), *(submit(account) for account in (ada, ada, ada, bob)))
    erased = await erasing
    # Some of the twenty that it waited for are Bob's.
    assert erased.jobs > 0
    assert await repository.list_jobs("ada") == []
    left = await repository.list_jobs()
    assert {job.user_id for job in left} == {"bob"}
    assert erased.jobs + len(left) == len(made)
    assert await repository.verify() == []
