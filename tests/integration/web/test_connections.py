"""Connections: of old clients, idle ones, those that break off, and those that clients leave."""

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from itertools import permutations, product

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.lines import pieces
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app, server
from ci_eventstore.web.server import Service, server_config
from tests.examples import slow
from tests.integration.store.conftest import find_server, own
from tests.integration.web.serving import Account, Served, create_account, serve, serve_as_cli
from tests.servers import RealServer
from tests.waiting import wait_until

__all__ = ["find_server", "own"]

LINES = 60
Add = Callable[[FastAPI], None]


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Do nothing, as the simplest middleware does."""
    return await call_next(request)


def with_base(app: FastAPI) -> None:
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)


def with_gzip(app: FastAPI) -> None:
    app.add_middleware(GZipMiddleware, minimum_size=1)


def with_cors(app: FastAPI) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=["*"])


MIDDLEWARE = (with_base, with_gzip, with_cors)
#: None, each alone, and two in each order; all but the first are tried when there is time.
STACKS: list[tuple[Add, ...]] = [(), *((one,) for one in MIDDLEWARE), *permutations(MIDDLEWARE, 2)]
SLOW_STACKS = [slow(stack) for stack in STACKS]


def name_of(stack: object) -> str:
    return "-".join(one.__name__ for one in stack) if isinstance(stack, tuple) else str(stack)


def wrapped(app: FastAPI, stack: tuple[Add, ...]) -> FastAPI:
    """Add middleware to an application."""
    for add in stack:
        add(app)
    return app


@pytest.fixture
async def own_repository(own: RealServer) -> AsyncIterator[RedisJobRepository]:
    """A store that a test may damage."""
    async with RedisJobRepository.from_url(own.url) as opened:
        yield opened


@pytest.fixture
async def damaged(own_repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The key to a job whose log can be read for some pieces only."""
    monkeypatch.setattr(pieces, "PIECE_EVENTS", 10)
    account = await create_account(own_repository, "ada")
    await own_repository.create_job(Job(id="j", user_id="ada", status="running"))
    for job_id, lost in (("j", LINES - 20), ("k", 5)):
        if job_id == "k":
            await own_repository.create_job(Job(id="k", user_id="ada", status="running"))
        await own_repository.add_events(job_id, [JobEvent("log", f"line {number}\n") for number in range(LINES)])
        await own_repository.engine.nodes.read("XDEL", own_repository.engine.keys.job(job_id).stream, f"{lost}-0")
    return account


async def talk(served: Served, account: Account, request: str, *headers: str) -> bytes:
    """Send a request, and return all that comes until the connection ends; ConnectionResetError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
    lines = [request, "Host: localhost", f"Authorization: Bearer {account.key}", *headers]
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def is_whole(answer: bytes) -> bool:
    """Tell whether a client takes a response for whole that ended with its connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if fields.get(b"transfer-encoding") == b"chunked":
        return body.endswith(b"0\r\n\r\n")
    if b"content-length" in fields:
        return len(body) == int(fields[b"content-length"])
    return fields.get(b"content-encoding") != b"gzip" or zlib_ends(body)


def zlib_ends(body: bytes) -> bool:
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    decompressor.decompress(body)
    return decompressor.eof


@pytest.mark.parametrize("stack", [STACKS[0], STACKS[1], *SLOW_STACKS[2:]], ids=name_of)
@pytest.mark.parametrize("is_own", [True, False])
async def test_a_log_that_breaks_off_isnt_taken_for_whole(
    own_repository: RedisJobRepository, damaged: Account, is_own: bool, stack: tuple[Add, ...]
) -> None:
    """Whatever stands between: no end that a client takes for one, neither over HTTP/1.1 nor, of ours, over 1.0."""
    forms = product(("1.1", "1.0") if is_own else ("1.1",), ("", "?tail=50", "?timestamps=1"), ("identity", "gzip"))
    async with (serve_as_cli if is_own else serve)(wrapped(create_app(own_repository), stack)) as served:
        for version, query, encoding in forms:
            headers = ("Connection: close", f"Accept-Encoding: {encoding}")
            try:
                answer = await talk(served, damaged, f"GET /jobs/j/log{query} HTTP/{version}", *headers)
            except ConnectionResetError:
                continue
            assert (answer[:12], version) == (b"HTTP/1.1 200", "1.1")
            assert not is_whole(answer), (query, encoding, answer[-40:])


async def test_a_log_that_cant_be_begun_is_an_error(own_repository: RedisJobRepository, damaged: Account) -> None:
    """Nothing is promised before the first piece is there."""
    for stack in STACKS[:2]:
        async with (
            serve_as_cli(wrapped(create_app(own_repository), stack)) as served,
            served.client(damaged) as client,
        ):
            response = await client.get("/jobs/k/log")
            assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")


async def test_a_log_that_breaks_off_leaves_one_line(
    own_repository: RedisJobRepository,
    damaged: Account,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says which job it was, and what was the matter; once a minute, however often somebody asks."""
    monkeypatch.setattr(server, "_OUTAGES", Outages())
    async with serve_as_cli(create_app(own_repository)) as served:
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                await talk(served, damaged, "GET /jobs/j/log HTTP/1.0")
        # The client may know of it before the log does.
        await wait_until(lambda: any(record.levelno >= logging.WARNING for record in caplog.records))
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "a log was cut off" in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize(
    ("path", "packed"),
    [
        ("/jobs/j", False),
        ("/jobs/j/log", False),
        ("/jobs/j/log", True),
        ("/jobs/j/log?tail=2", False),
        ("/jobs/j/log?timestamps=1", True),
        ("/jobs/j/events", False),
        ("/jobs/j/stream", False),
        ("/jobs/j/stream?from_beginning=true", False),
        ("/jobs/j/stream?last_event_id=4", False),
        ("/jobs/none", False),
    ],
)
async def test_old_clients_get_no_chunks(repository: RedisJobRepository, ada: Account, path: str, packed: bool) -> None:
    """HTTP/1.0 knows none: what has no length ends with the connection, and is what others get."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", f"line {number}\n") for number in range(3)])
    await repository.complete_job("j", True, utc_now())
    encoding = f"Accept-Encoding: {'gzip' if packed else 'identity'}"
    async with serve_as_cli(create_app(repository)) as served, served.client(ada) as client:
        expected = await client.get(path, headers={"Accept-Encoding": "identity"})
        for connection in ("close", "keep-alive"):
            answer = await talk(served, ada, f"GET {path} HTTP/1.0", encoding, f"Connection: {connection}")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head.lower()
            assert b"connection: close" in head.lower()
            assert (gzip.decompress(body) if packed else body) == expected.content


async def test_an_old_client_follows_a_job(repository: RedisJobRepository, ada: Account) -> None:
    """Each event comes when it is there, and the connection ends with the job."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    async with serve_as_cli(create_app(repository)) as served:
        reading = asyncio.create_task(talk(served, ada, "GET /jobs/j/stream HTTP/1.0"))
        await wait_until(lambda: served.open_streams == 1)
        await repository.add_event("j", JobEvent("log", "a"))
        await repository.complete_job("j", True, utc_now())
        _, _, body = (await reading).partition(b"\r\n\r\n")
    assert [line for line in body.splitlines() if line.startswith(b"id")] == [b"id: 0", b"id: 1", b"id: 2"]


@pytest.mark.parametrize(
    "request_line", ["POST /jobs", "POST /jobs/j/cancel", "POST /login"], ids=lambda text: text.split()[1]
)
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
async def test_a_client_that_leaves_while_it_sends_leaves_no_traceback(
    repository: RedisJobRepository, ada: Account, request_line: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its request is dropped; nobody is there to be told."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    async with serve_as_cli(create_app(repository)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
        lines = [f"{request_line} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {ada.key}"]
        lines += [
            f"Content-Type: {kind}",
            "Content-Length: 1000",
            "",
            '--x\r\nContent-Disposition: form-data; name="a"',
        ]
        writer.write("\r\n".join(lines).encode())
        await asyncio.sleep(0.2)
        writer.close()
        await reader.read()
        await asyncio.sleep(0.2)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("stack", [STACKS[0], STACKS[1], *SLOW_STACKS[2:]], ids=name_of)
async def test_a_client_that_leaves_a_stream_ends_it(
    repository: RedisJobRepository, ada: Account, stack: tuple[Add, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Its tasks too, whatever stands between, and nothing is logged."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    counts = []
    async with serve_as_cli(wrapped(create_app(repository), stack)) as served:
        for number in range(1, 4):
            async with served.client(ada) as client, client.stream("GET", "/jobs/j/stream") as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "retry: 2000"
                await repository.add_event("j", JobEvent("log", "a"))
                while await anext(lines) != f"id: {number}":
                    pass
                assert served.open_streams == 1
            await wait_until(lambda: served.open_streams == 0 and repository.following_stats().followers == 0, 10)
            counts.append(await settled_task_count())
    assert counts[0] == counts[1] == counts[2]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def settled_task_count() -> int:
    """Return how many tasks there are when none has ended for a moment."""
    count, before = len(asyncio.all_tasks()), -1
    while count != before:
        await asyncio.sleep(0.1)
        count, before = len(asyncio.all_tasks()), count
    return count


def test_idle_connections_outlast_those_of_proxies() -> None:
    """Nginx keeps its connections for 60 seconds, as does AWS's balancer: the server mustn't be first to close one."""
    app = FastAPI()
    assert server_config(app).timeout_keep_alive > 60
    assert server_config(app, Service(keep_alive_seconds=620)).timeout_keep_alive == 620
