"""The page for people: `/` in a browser, and the files that it loads."""

import gzip
import re

import httpx
import pytest
from fastapi import FastAPI

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import create_app, create_router
from ci_eventstore.web.page_routes import FOLDER, POLICY, read_page
from tests.integration.web.raw import exchange
from tests.integration.web.serving import Served, serve

#: As Chromium and Firefox send it.
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PLAIN = {**BROWSER, "Accept-Encoding": "identity"}
#: What isn't there, and ways out of the folder that broke other servers.
NO_FILES = ["", ".", "index.html", "js", "js/", "js/main.js/", "JS/main.js", "js/main.js%00", "%00", "%ff"]
NO_FILES += ["js%5cmain.js", "../index.html", "%2e%2e/index.html", "..%2f..%2fapp.py", "/etc/passwd", "js/../icons.svg"]


def links(document: str) -> list[str]:
    """Return what a document loads."""
    return re.findall(r'(?:src|href)="([^"]*)"', document)


async def test_a_browser_gets_the_page_without_login(web: Served) -> None:
    """And a client that asks for no HTML gets the list of addresses there; caches are told of both."""
    async with web.client(headers=BROWSER) as client:
        page = await client.get("/")
        head = await client.head("/")
        text = await client.get("/", headers={"Accept": "*/*"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    assert (head.content, head.headers["content-length"]) == (b"", page.headers["content-length"])
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert all("Accept" in answer.headers["vary"].split(", ") for answer in (page, text))


async def test_whatever_the_page_loads_is_kept_for_ever(web: Served) -> None:
    """Its links are relative and have a version; the server's files come as they are on the disk, with their types."""
    async with web.client(headers=PLAIN) as client:
        loaded = links((await client.get("/")).text)
        assert len(loaded) >= 3
        assert all(link.startswith(f"assets/{read_page().version}/") for link in loaded)
        for link in [*loaded, *(f"assets/{read_page().version}/{name}" for name in read_page().files)]:
            answer = await client.get(link)
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
            assert answer.content == (FOLDER / link.split("/", 2)[2]).read_bytes()
        kinds = {name: file.media_type for name, file in read_page().files.items()}
    assert kinds["js/main.js"] == "text/javascript; charset=utf-8"
    assert kinds["icons.svg"] == "image/svg+xml"
    assert kinds["style.css"] == "text/css; charset=utf-8"


def test_all_modules_are_asked_for_at_once() -> None:
    """The document names them, so that none waits for the one that imports it; and no file that isn't imported."""
    document, files = read_page().document.body.decode(), read_page().files
    named = re.findall(r'<link rel="modulepreload" href="assets/[0-9a-f]+/([^"]*)">', document)
    assert {name for name in files if name.startswith("js/")} - set(named) == {"js/types.js"}
    assert {"vendor/lit-html/lit-html.js", "vendor/lit-html/directive.js"} <= set(named) < set(files)
    assert "vendor/lit-html/directives/ref.js" not in named


@pytest.mark.parametrize("path", ["/", "/assets/VERSION/js/main.js", "/assets/VERSION/icons.svg"])
async def test_nothing_foreign_runs_in_it(web: Served, path: str) -> None:
    """The policy comes with every file: a worker has that of its own, and a picture may be opened by itself."""
    async with web.client(headers=BROWSER) as client:
        headers = (await client.get(path.replace("VERSION", read_page().version))).headers
    assert headers["content-security-policy"] == POLICY
    assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(POLICY.split("; "))
    assert "unsafe" not in POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")


async def test_files_of_another_version_are_this_ones_and_not_kept(web: Served) -> None:
    """While a server is replaced, a browser with the other's page gets something that works, and asks again."""
    async with web.client() as client:
        answer = await client.get("/assets/0123456789abcdef/js/main.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


async def test_what_a_browser_has_isnt_sent_again(web: Served) -> None:
    """304 for its tag; packed and plain files have different ones, and the same text."""
    async with web.client(headers=BROWSER) as client:
        packed = await client.get("/", headers={"Accept-Encoding": "gzip"})
        plain = await client.get("/", headers={"Accept-Encoding": "identity"})
        again = await client.get("/", headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]})
        weak = f'"other", W/{plain.headers["etag"]}'
        plain_again = await client.get("/", headers={"Accept-Encoding": "identity", "If-None-Match": weak})
        other = await client.get("/", headers={"Accept-Encoding": "gzip", "If-None-Match": plain.headers["etag"]})
    assert (packed.headers["content-encoding"], packed.text) == ("gzip", plain.text)
    assert packed.headers["etag"] != plain.headers["etag"]
    assert [(answer.status_code, answer.content) for answer in (again, plain_again)] == [(304, b"")] * 2
    assert other.status_code == 200
    assert gzip.decompress(read_page().document.packed) == read_page().document.body


async def test_nothing_but_the_pages_files_can_be_asked_for(web: Served) -> None:
    """There is no way out of the folder, since no path is made of what a client sends."""
    for name in NO_FILES:
        status, _ = await exchange(web.url, "GET", f"/assets/{read_page().version}/{name}")
        assert (name, status) == (name, 404)


async def test_the_page_is_found_below_a_path(repository: RedisJobRepository) -> None:
    """Mounted, included under a prefix, or behind a proxy that removes one: its relative links lead to its files."""
    mounted, included = FastAPI(), FastAPI()
    mounted.mount("/ci", create_app(repository))
    included.include_router(create_router(repository, has_page=True), prefix="/ci")
    for app in (mounted, included):
        async with serve(app) as served, served.client(headers=BROWSER, follow_redirects=True) as client:
            page = await client.get("/ci")
            assert (page.status_code, page.url.path) == (200, "/ci/")
            some = links(page.text)[::10]
            assert {(await client.get(page.url.join(link))).status_code for link in some} == {200}
            assert "GET    /ci/jobs/{job_id} " in (await client.get("/ci/", headers={"Accept": "*/*"})).text


async def test_an_application_has_no_page_unless_it_asks(repository: RedisJobRepository) -> None:
    """Neither at `/` nor below `/assets`, also for browsers."""
    app = FastAPI()
    app.include_router(create_router(repository))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=BROWSER) as client:
        assert [(await client.get(path)).status_code for path in ("/", "/assets/0/js/main.js")] == [404, 404]
