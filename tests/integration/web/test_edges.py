"""What all routes have in common: bounded bodies, `HEAD`, errors in one shape, and an answer to whatever is sent."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.routing import APIRoute

from ci_common.models import Job, JobEvent
from ci_eventstore.keys import account_key
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, create_app, create_router
from ci_eventstore.web.document import COOKIE
from tests.integration.web.raw import exchange, send_chunks
from tests.integration.web.serving import Account, Served, create_ended_job, serve

MEBIBYTE = 1024 * 1024
#: All that the server has, by its method and path.
ROUTES = [
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("GET", "/jobs/{job_id}"),
    ("DELETE", "/jobs/{job_id}"),
    ("POST", "/jobs/{job_id}/cancel"),
    ("POST", "/jobs/{job_id}/again"),
    ("GET", "/jobs/{job_id}/stream"),
    ("GET", "/jobs/{job_id}/events"),
    ("GET", "/jobs/{job_id}/log"),
    ("DELETE", "/jobs/{job_id}/log"),
    ("GET", "/jobs/{job_id}/export"),
    ("GET", "/jobs/{job_id}/lines"),
    ("GET", "/jobs/{job_id}/lines/{n}"),
    ("GET", "/jobs/{job_id}/search"),
    ("GET", "/jobs/{job_id}/outline"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/changes"),
    ("GET", "/webhooks"),
    ("POST", "/webhooks"),
    ("GET", "/webhooks/{webhook_id}"),
    ("DELETE", "/webhooks/{webhook_id}"),
    ("POST", "/webhooks/{webhook_id}/enable"),
    ("POST", "/webhooks/{webhook_id}/rotate"),
    ("POST", "/webhooks/{webhook_id}/test"),
    ("GET", "/session"),
    ("POST", "/login"),
    ("POST", "/logout"),
]
READS = [path for method, path in ROUTES if method == "GET"]
#: What is no login, with the type that it says it has.
LOGINS = [
    (rb'{"key": "\ud800"}', "application/json"),
    (rb'{"key": "\udcff"}', "application/json"),
    (b"[" * 4000, "application/json"),
    (b'{"a":' * 800, "application/json"),
    (b'{"key": 1}', "application/json"),
    (b'{"key": "' + bytes([0xED, 0xA0, 0x80]) + b'"}', "application/json"),
    (b"\xff", "application/json"),
    (b"", "application/json"),
    (b"key=%ED%A0%80&key=a", "application/x-www-form-urlencoded"),
    (b"\xff=\xff", "application/x-www-form-urlencoded"),
    (b"&" * 4000, "application/x-www-form-urlencoded"),
    (b"key=a", "text/plain"),
]
#: What takes no body, whatever is sent.
UNREAD = ["/logout", *(f"/webhooks/{{webhook_id}}/{action}" for action in ("enable", "rotate", "test"))]
LARGEST_BODIES = {"/jobs": 2 * MEBIBYTE, "/login": 4096}


@pytest.fixture
def settings() -> WebSettings:
    return WebSettings(max_project_bytes=MEBIBYTE)


@pytest.fixture
async def running(repository: RedisJobRepository, ada: Account) -> None:
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_event("j", JobEvent("log", "a line\n"))
    hook = replace(await repository.engine.webhooks.add("https://a.example/", user_id="ada"), id="w")
    await repository.engine.nodes.read("HSET", account_key(repository.engine.keys, "webhooks"), "w", hook.to_text())


def filled(path: str) -> str:
    path = path.replace("{webhook_id}", "w").replace("{n}", "1")
    needed = {"export": "?format=text", "search": "?q=a"}.get(path.rpartition("/")[2], "")
    return path.replace("{job_id}", "j") + needed


def as_headers(account: Account, kind: str = "application/json") -> list[tuple[str, bytes]]:
    return [("Authorization", f"Bearer {account.key}".encode()), ("Content-Type", kind.encode())]


def declared(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield all that an application's document tells of, by method and path."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path


async def test_no_route_is_left_out_here(repository: RedisJobRepository) -> None:
    """The table has all there are, so that a new one is tested, too."""
    router = create_router(repository)
    found = {
        (method, route.path) for route in router.routes if isinstance(route, APIRoute) for method in route.methods or ()
    }
    assert found == {*ROUTES, *(("HEAD", path) for path in READS)}
    assert set(declared(create_app(repository))) == set(ROUTES)


@pytest.mark.usefixtures("running")
async def test_a_body_that_says_it_is_too_long(web: Served, ada: Account) -> None:
    """It is refused before it is read, whatever the route would do with it."""
    for length in (b"%d" % (300 * MEBIBYTE), b"9" * 18):
        for method, path in ROUTES:
            status, _ = await exchange(web.url, method, filled(path), [*as_headers(ada), ("Content-Length", length)])
            assert status == 413, (method, path)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b", "text/plain"])
async def test_a_body_of_unknown_length_is_counted(web: Served, ada: Account, kind: str) -> None:
    """No route waits for more of it than it allows, beside what the sockets hold."""
    for method, path in ROUTES:
        status, sent = await send_chunks(web.url, method, filled(path), as_headers(ada, kind), 64 * MEBIBYTE)
        assert sent < LARGEST_BODIES.get(path, 64 * 1024) + 24 * MEBIBYTE, (method, path)
        is_read = path not in UNREAD and not path.endswith("/again")
        reads_it = method == "POST" and is_read and (kind, path) != ("text/plain", "/jobs")
        # A running job can't be deleted, nor one without a command be done again.
        is_refused = (method == "DELETE" and "/jobs" in path) or path.endswith("/again")
        unread = {409} if is_refused else {200, 204, 404, 415}
        assert status in ({400, 413} if reads_it else unread), (method, path)


@pytest.mark.usefixtures("running")
async def test_head_is_get_without_a_body(client: httpx.AsyncClient) -> None:
    """Its status and headers are those of `GET`, and it ends at once, for a live stream too."""
    for path in map(filled, READS):
        head = await client.head(path)
        async with client.stream("GET", path) as got:
            changing = {"date", "transfer-encoding", *(["content-length"] if path == "/metrics" else [])}
            shown = {name: value for name, value in got.headers.items() if name not in changing}
        assert (got.status_code, head.status_code, head.content) == (200, 200, b""), path
        assert shown.items() <= head.headers.items(), path


async def test_head_has_no_ranges(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """RFC 9110 defines them for `GET` alone."""
    await create_ended_job(repository, "j", 3)
    headers = {"Range": "bytes=0-1", "Accept-Encoding": "identity"}
    got, head = await client.get("/jobs/j/log", headers=headers), await client.head("/jobs/j/log", headers=headers)
    assert (got.status_code, got.headers["content-length"]) == (206, "2")
    assert (head.status_code, head.headers["content-length"], "content-range" in head.headers) == (200, "21", False)


async def test_a_method_that_a_path_has_not(client: httpx.AsyncClient) -> None:
    """405, with all that it has in `Allow`, in the one shape of errors."""
    for path in sorted({path for _, path in ROUTES}):
        allowed = {method for method, at in ROUTES if at == path}
        for method in {"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - allowed:
            response = await client.request(method, filled(path))
            assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
            assert set(response.headers["allow"].split(", ")) == allowed | ({"HEAD"} if "GET" in allowed else set())


async def test_a_path_that_is_not_there(client: httpx.AsyncClient) -> None:
    """404 in the same shape."""
    for path in ("/nothing", "/jobs/a/b/c", "/jobs/a/b", "/docs"):
        response = await client.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("is_included", [True, False])
async def test_a_mistake_of_ours(
    repository: RedisJobRepository, ada: Account, monkeypatch: pytest.MonkeyPatch, is_included: bool
) -> None:
    """500 in the same shape, which tells nothing, in an application that includes the routes, too; it is counted."""

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    app = create_app(repository)
    if is_included:
        app = FastAPI()
        app.include_router(create_router(repository), prefix="")
    monkeypatch.setattr(repository.engine.listings, "page", fail)
    async with serve(app) as served, served.client(ada) as client:
        response = await client.get("/jobs")
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in response.text
        assert 'ci_eventstore_errors_total{part="web"} 1.0' in (await client.get("/metrics")).text


async def test_what_an_application_raises_itself_is_its_own(repository: RedisJobRepository) -> None:
    """An error of `authenticate` is answered by the application, as it answers any."""

    class NotLoggedInError(Exception):
        pass

    async def authenticate(request: Request) -> str:
        raise NotLoggedInError

    async def answer(request: Request, error: Exception) -> Any:
        return Response(status_code=418)

    app = FastAPI()
    app.include_router(create_router(repository, authenticate=authenticate), prefix="/ci")
    app.add_exception_handler(NotLoggedInError, answer)
    async with serve(app, "/ci") as served, served.client() as client:
        assert (await client.get("/jobs")).status_code == 418


async def test_a_login_with_anything_at_all(web: Served) -> None:
    """It is refused, and nothing breaks."""
    for body, kind in LOGINS:
        async with web.client() as client:
            response = await client.post("/login", content=body, headers={"Content-Type": kind})
        assert response.status_code in {400, 401}, (body[:20], response.text)


async def test_an_origin_that_is_none(web: Served, ada: Account) -> None:
    """It is another page's."""
    async with web.client() as client:
        assert (await client.post("/login", json={"key": ada.key})).status_code == 204
        for origin in ("http://[::1", "http://[", "http://]", "//", "http://a:b", "[", "http://a:99999"):
            for path in ("/login", "/logout", "/jobs"):
                body = {"key": ada.key, "command": "a"}
                response = await client.post(path, json=body, headers={"Origin": origin})
                assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign_origin")


async def test_a_proxys_credentials_beside_a_session(web: Served, ada: Account) -> None:
    """What isn't a bearer token is none of ours: the cookie counts."""
    for scheme in ("Basic YTpi", "Digest username=a", "Negotiate", "bear er", "Basic"):
        async with web.client() as browser:
            await browser.post("/login", json={"key": ada.key})
            assert (await browser.get("/jobs", headers={"Authorization": scheme})).status_code == 200
            browser.cookies.clear()
            assert (await browser.get("/jobs", headers={"Authorization": scheme})).status_code == 401


async def test_a_bad_key_beside_a_session(web: Served, ada: Account) -> None:
    """Whoever sends a key means it."""
    async with web.client() as browser:
        await browser.post("/login", json={"key": ada.key})
        assert COOKIE in browser.cookies
        assert (await browser.get("/jobs", headers={"Authorization": "Bearer none"})).status_code == 401


async def test_a_client_that_leaves_while_it_sends(web: Served, ada: Account, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is told, and nothing is logged."""
    for path in ("/jobs", "/login", "/jobs/j/cancel"):
        for kind in ("application/json", "multipart/form-data; boundary=b"):
            _, writer = await asyncio.open_connection("127.0.0.1", int(web.url.rsplit(":", 1)[1]))
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ada.key}\r\nContent-Type: {kind}\r\n"
            writer.write(f"{head}Content-Length: 1000\r\n\r\n--b\r\n".encode())
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()
    async with web.client(ada) as client:
        assert (await client.get("/jobs")).json() == []
        metrics = (await client.get("/metrics")).text
    assert 'ci_eventstore_errors_total{part="web"} 0.0' in metrics
    assert [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}] == []


async def test_forms_that_can_not_be_read(client: httpx.AsyncClient) -> None:
    """They are refused, however they are broken; a charset that nobody knows breaks nothing."""
    part = b'--b\r\nContent-Disposition: form-data; name="command"\r\n\r\na\r\n--b--\r\n'
    unknown = "multipart/form-data; boundary=b; charset=odd"
    assert (await client.post("/jobs", content=part, headers={"Content-Type": unknown})).status_code == 201
    for body in [
        b"--b\r\n\x00: x\r\n\r\na\r\n--b--\r\n",
        b"--bad" + part,
        part.replace(b'; name="command"', b""),
        part.replace(b"Content-Disposition", b"Content Disposition"),
    ]:
        response = await client.post("/jobs", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid"), body


async def test_parts_of_a_log_under_an_applications_gzip(repository: RedisJobRepository, ada: Account) -> None:
    """They are the log's bytes, whatever the application around does with whole answers."""
    app = create_app(repository)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    await create_ended_job(repository, "j", 300)
    async with serve(app) as served, served.client(ada) as client:
        headers = {"Range": "bytes=0-1999", "Accept-Encoding": "gzip"}
        part = await client.get("/jobs/j/log", headers=headers)
    assert (part.status_code, "content-encoding" in part.headers, len(part.content)) == (206, False, 2000)


async def test_errors_have_their_documented_shape(web: Served) -> None:
    """A code and a message, as JSON."""
    status, head = await exchange(web.url, "GET", "/jobs")
    assert status == 401
    assert b"application/json" in head
    async with web.client() as client:
        assert set(json.loads((await client.get("/jobs")).content)["error"]) == {"code", "message"}
