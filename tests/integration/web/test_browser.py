"""A browser's `EventSource` on live streams: logged in, cut off everywhere, through restarts of the server."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_router
from ci_eventstore.web.app import JobsRouter
from ci_eventstore.web.server import WebServer, listen, server_config
from ci_eventstore.web.streams import sse
from tests.integration.web.serving import Account, create_ended_job
from tests.needs import find_chromium
from tests.separators import SEPARATORS, text_with
from tests.servers import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: Follows every address that it is given, as `EventSource` does it, and reports what came, when the server says that
#: there is no more.
PAGE = """<!doctype html><meta charset="utf-8"><title>tail</title><pre></pre><script>
const asked = new URLSearchParams(location.search);
function follow(address) {
  return new Promise(resolve => {
    const seen = [], named = [], source = new EventSource(address);
    source.onmessage = message => {
      seen.push([message.lastEventId, JSON.parse(message.data)]);
      document.querySelector("pre").textContent += JSON.parse(message.data).data ?? "(the end)\\n";
    };
    for (const name of ["state", "reset", "gap", "started"])
      source.addEventListener(name, message => named.push(name));
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve({address, seen, named}); };
  });
}
async function main() {
  const login = await fetch("/login", {method: "POST", headers: {"content-type": "application/json"},
                                       body: JSON.stringify({key: asked.get("key")})});
  const found = login.ok ? await Promise.all(asked.getAll("follow").map(follow)) : "not logged in";
  await fetch("/report", {method: "POST", body: JSON.stringify(found)});
}
main();
</script>"""


class Cutter:
    """Cuts off the first answer to each stream with `cut=N`: behind N events, in the middle of what follows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._done: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        [cut] = parse_qs(scope.get("query_string", b"").decode()).get("cut", [""])
        if not cut or cut in self._done:
            await self._app(scope, receive, send)
            return
        self._done.add(cut)
        left = int(cut)

        async def send_some(message: Message) -> None:
            nonlocal left
            body = message.get("body", b"")
            frames = body.split(b"\n\n")
            for place, frame in enumerate(frames):
                if frame.startswith(b"id: "):
                    left -= 1
                    if left < 0:
                        whole = b"".join(known + b"\n\n" for known in frames[:place])
                        await send({**message, "body": whole + frame[:15]})
                        raise ConnectionResetError
            await send(message)

        try:
            await self._app(scope, receive, send_some)
        except ConnectionResetError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class CutterOfEach:
    """Cuts off each answer to a stream with `each=…` after its first event, those that begin with a state after that.

    `states` counts the latter, by which a test knows that a browser is there, and knows nothing but where the job is.
    """

    states = 0

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._known: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode()
        if "each=" not in query:
            await self._app(scope, receive, send)
            return

        async def send_one(message: Message) -> None:
            frames = message.get("body", b"").split(b"\n\n")
            for place, frame in enumerate(frames):
                is_first_state = b"event: state" in frame and query not in self._known
                if is_first_state or frame.startswith(b"id: "):
                    self._known.add(query)
                    CutterOfEach.states += is_first_state
                    whole = b"".join(known + b"\n\n" for known in frames[: place + 1])
                    # The next event is cut off in its middle.
                    await send({**message, "body": whole + b"".join(frames[place + 1 : place + 2])[:15]})
                    raise ConnectionResetError
            await send(message)

        try:
            await self._app(scope, receive, send_one)
        except ConnectionResetError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


@contextmanager
def page(url: str, folder: Path, *options: str) -> Iterator[None]:
    """Open a page in a browser, until this is left."""
    command = [find_chromium(), *FLAGS, f"--user-data-dir={folder}", *options, url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


class Site:
    """The page, the routes it follows, and where it reports to; it may be stopped and served again."""

    def __init__(self, repository: RedisJobRepository) -> None:
        self.report: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.port = free_port()
        self._repository = repository
        self._router: JobsRouter | None = None

    @property
    def open_streams(self) -> int:
        """How many live streams there are."""
        return 0 if self._router is None else len(self._router._web.streams)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve the site as `ci-eventstore serve` does."""
        app = FastAPI()
        app.state.router = self._router = create_router(self._repository)
        app.include_router(self._router)
        app.add_api_route("/page", self._page, response_class=HTMLResponse)
        app.add_api_route("/report", self._take_report, methods=["POST"])
        app.add_middleware(Cutter)
        app.add_middleware(CutterOfEach)
        server = WebServer(app, server_config(app))
        serving = asyncio.create_task(server._serve([listen("127.0.0.1", self.port)]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    def address(self, account: Account, streams: list[str]) -> str:
        """Return the address of the page that logs in with an account's key and follows streams."""
        follow = "".join(f"&follow={quote(stream)}" for stream in streams)
        return f"http://127.0.0.1:{self.port}/page?key={account.key}{follow}"

    async def found(self) -> Any:
        """Return what the page reports."""
        async with asyncio.timeout(90):
            return await self.report

    async def _page(self) -> str:
        return PAGE

    async def _take_report(self, request: Request) -> None:
        self.report.set_result(await request.json())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Browsers come back soon."""
    monkeypatch.setattr(sse, "RETRY", b"retry: 50\n")


@pytest.fixture
async def site(repository: RedisJobRepository) -> Site:
    return Site(repository)


def cuts(job_id: str, count: int) -> list[str]:
    """Return streams of a job that are cut off behind each of so many events."""
    return [f"/jobs/{job_id}/stream?from_beginning=true&cut={number}" for number in range(count)]


async def write(repository: RedisJobRepository, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await repository.add_event("j", JobEvent("log", f"<b>line</b> {number} é\n"))
        await asyncio.sleep(0.005)


def ids(stream: Any) -> list[int]:
    return [int(event_id) for event_id, _ in stream["seen"]]


async def test_a_finished_job_cut_off_everywhere(
    repository: RedisJobRepository, site: Site, ada: Account, tmp_path: Path
) -> None:
    """Whichever event the connection is cut at, the browser has every event once, in order, and stops at 204."""
    events = await create_ended_job(repository, "j", 11)
    async with site.served():
        with page(site.address(ada, cuts("j", 12)), tmp_path):
            found = await site.found()
    expected = [[str(number), event] for number, event in enumerate(events, 1)]
    assert [stream["seen"] for stream in found] == [expected] * 12
    assert all(set(stream["named"]) == {"state"} for stream in found)


async def test_a_running_job_cut_off_everywhere(
    repository: RedisJobRepository, site: Site, ada: Account, tmp_path: Path
) -> None:
    """The same while lines come in."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    async with site.served():
        with page(site.address(ada, cuts("j", 5)), tmp_path):
            await wait_until(lambda: site.open_streams > 0)
            await write(repository, 1, 100)
            await repository.complete_job("j", True, utc_now())
            found = await site.found()
    assert [ids(stream) for stream in found] == [list(range(1, 102))] * 5


async def test_restarts_of_the_web_server(
    repository: RedisJobRepository, site: Site, ada: Account, tmp_path: Path
) -> None:
    """The browser comes back by itself and goes on where it was, told of no reset; no line is lost or doubled."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    with ExitStack() as stack:
        for start in range(1, 61, 20):
            async with site.served():
                if start == 1:
                    streams = ["/jobs/j/stream?from_beginning=true", "/jobs/j/stream"]
                    stack.enter_context(page(site.address(ada, streams), tmp_path))
                await wait_until(lambda: site.open_streams == 2)
                await write(repository, start, start + 9)
            await write(repository, start + 10, start + 19)
        async with site.served():
            await wait_until(lambda: site.open_streams == 2)
            await repository.complete_job("j", True, utc_now())
            found = await site.found()
    assert [ids(stream) for stream in found] == [list(range(1, 62))] * 2
    assert all(set(stream["named"]) == {"state"} for stream in found)


async def test_every_separator_cut_off_at_each_event(
    repository: RedisJobRepository, site: Site, ada: Account, tmp_path: Path
) -> None:
    """The browser has each event once, as it was printed, from the beginning as well as from now on.

    The streams from now on are cut off when they have seen nothing but the state, and all are away whenever something
    comes.
    """
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", "old") for _ in range(3)])
    CutterOfEach.states = 0
    streams = ["/jobs/j/stream?each=1", "/jobs/j/stream?from_beginning=true&each=2"]
    async with site.served():
        with page(site.address(ada, streams), tmp_path):
            await wait_until(lambda: CutterOfEach.states == 2)
            for separator in SEPARATORS:
                await repository.add_event("j", JobEvent("log", text_with(separator)))
                await asyncio.sleep(0.02)
            await repository.complete_job("j", True, utc_now())
            found = await site.found()
    texts = ["old"] * 3 + [sse.readable(text_with(separator)) for separator in SEPARATORS]
    events = [{"type": "log", "data": text} for text in texts] + [{"type": "complete", "success": True}]
    expected = [[str(number), event] for number, event in enumerate(events, 1)]
    assert [stream["seen"] for stream in found] == [expected[3:], expected]
