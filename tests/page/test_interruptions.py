"""Somebody watches a job while what lies below goes away and comes back: nothing is lost or doubled on the page."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from playwright.async_api import Browser, Page, Route, expect

from ci_eventstore.history.seal import Sealed
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import start_serving
from tests.acceptance.conftest import make_command_line
from tests.integration.store.sealing import archive_sealed, seal_job
from tests.page.browsing import (
    IN_CHROMIUM,
    Account,
    PageServer,
    Watch,
    let_in,
    lines,
    wait_for,
    watched_context,
)
from tests.servers import RealServer, find_valkey, free_port

pytestmark = IN_CHROMIUM

SCREEN = "document.querySelector('.log-scroller').clientHeight"
ROWS = """() => [...document.querySelectorAll('.log-row:not(.is-missing)')].map(
  row => [Number(row.dataset.line), row.querySelector('.log-content').textContent]
)"""
#: A tab that isn't looked at; Chromium without a window shows all its tabs at once.
HIDING = """
window.hidden = false;
Object.defineProperty(Document.prototype, "visibilityState", {get: () => (window.hidden ? "hidden" : "visible")});
window.hide = isHidden => {
  window.hidden = isHidden;
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
TABS = 7


async def read_log(page: Page) -> list[tuple[int, str]]:
    """Return all lines with their numbers, as somebody reads them from the first to the last, screen by screen."""
    found: dict[int, str] = {}
    await page.locator(".log-scroller").focus()
    await page.keyboard.press("Control+Home")
    await expect(page.locator(".log-row[data-line='1']:not(.is-missing)")).to_be_visible()
    while True:
        before = len(found)
        for number, text in await page.evaluate(ROWS):
            assert found.setdefault(number, text) == text, f"line {number} is two texts"
        place = await page.evaluate("document.querySelector('.log-scroller').scrollTop")
        await page.mouse.wheel(0, await page.evaluate(SCREEN) / 2)
        await page.evaluate("new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve, 30)))")
        is_at_end = await page.evaluate("document.querySelector('.log-scroller').scrollTop") == place
        if is_at_end and len(found) == before:
            return sorted(found.items())


async def expect_lines(page: Page, count: int) -> None:
    """Wait for the last line, then read all of them: each is there once, under its own number."""
    await expect(page.get_by_text(f"{count} lines", exact=True)).to_be_visible()
    await page.mouse.move(600, 500)
    assert await read_log(page) == [(number, f"line {number}") for number in range(1, count + 1)]


def open_job(page: Page, account: Account, job_id: str) -> str:
    """Return the address of a job's page."""
    return f"{account.server.url}/#/jobs/{job_id}"


@asynccontextmanager
async def server_of_its_own(account: Account) -> AsyncIterator[Account]:
    """Serve the same store at an address where the server may be killed."""
    process, url = start_serving(account.server.cli, "--port", str(free_port()))
    try:
        yield replace(account, server=replace(account.server, url=url, process=process))
    finally:
        process.process.kill()
        process.process.wait()


async def test_the_server_is_restarted(browser_page: Page, account: Account) -> None:
    """The page says that it lost the connection, then that it is back, and has what was printed meanwhile, once."""
    page = browser_page
    async with server_of_its_own(account) as own:
        await let_in(page.context, own)
        job_id = await own.job(*lines(100))
        await page.goto(open_job(page, own, job_id))
        await expect(page.get_by_text("line 100", exact=True)).to_be_visible()
        own.server.process.process.kill()
        own.server.process.process.wait()
        await own.write(job_id, *lines(100, 101))
        await expect(page.locator(".connection-lost")).to_be_visible()
        again, _ = start_serving(own.server.cli, "--port", own.server.url.rpartition(":")[2])
        try:
            await expect(page.locator(".connection-back")).to_be_visible()
            await expect(page.get_by_text("line 200", exact=True)).to_be_visible()
            await own.write(job_id, *lines(50, 201))
            await own.end(job_id, True)
            await expect_lines(page, 250)
        finally:
            again.process.kill()
            again.process.wait()


@asynccontextmanager
async def store_of_its_own(
    chromium: Browser,
) -> AsyncIterator[tuple[RealServer, RedisJobRepository, Account, Watch, Page]]:
    """Serve a store that may be killed, or that has an archive; somebody has logged in to its page."""
    with RealServer(find_valkey(), "appendfsync always") as store:
        cli = make_command_line(store.url)
        try:
            async with cli.repository() as repository, watched_context(chromium) as (context, watch):
                process, url = start_serving(cli)
                account = await PageServer(url, cli, repository, process).create_account()
                await let_in(context, account)
                yield store, repository, account, watch, await watch.page(context)
        finally:
            cli.kill_all()


async def test_the_store_is_restarted(chromium: Browser) -> None:
    """Killed and started again under the page, with lines before, and after; all of them show, once."""
    async with store_of_its_own(chromium) as (store, repository, account, _, page):
        job_id = await account.job(*lines(100))
        await page.goto(open_job(page, account, job_id))
        await expect(page.get_by_text("line 100", exact=True)).to_be_visible()
        store.kill()
        store.start()
        await account.write(job_id, *lines(100, 101))
        await expect(page.get_by_text("line 200", exact=True)).to_be_visible()
        await account.end(job_id, True)
        await expect_lines(page, 200)
        assert await repository.verify() == []


async def test_the_archive_is_away(chromium: Browser, tmp_path: Path) -> None:
    """The list and the job's head are there, its log isn't; it shows when the archive is back, at once if one asks."""
    async with store_of_its_own(chromium) as (_, repository, account, watch, page):
        (tmp_path / "archive").mkdir()
        jobs = [await account.job(*lines(60), end=True, name=f"build {number}") for number in (1, 2)]
        for job_id in jobs:
            assert await seal_job(repository, job_id) is Sealed.SEALED
            await archive_sealed(repository, tmp_path / "archive", job_id)
        (tmp_path / "archive").rename(tmp_path / "aside")
        away = page.get_by_role("heading", name="The archive is away")
        await page.goto(account.server.url)
        await page.get_by_role("link", name="build 1").click()
        await expect(away).to_be_visible()
        await expect(page.locator(".status-large")).to_have_text("Passed")
        await expect(page.get_by_text("60 lines")).to_be_visible()
        await expect(page.get_by_text("archived", exact=True)).to_be_visible()
        (tmp_path / "aside").rename(tmp_path / "archive")
        # It asks by itself.
        await expect(page.get_by_text("line 1", exact=True)).to_be_visible()
        await expect(away).to_have_count(0)
        (tmp_path / "archive").rename(tmp_path / "aside")
        await page.goto(open_job(page, account, jobs[1]))
        again = page.get_by_role("button", name="Try again now")
        await again.click()
        await expect(away).to_be_visible()
        (tmp_path / "aside").rename(tmp_path / "archive")
        come = asyncio.Event()
        await page.route("**/lines?*", lambda route: _after(come, route))
        await again.click()
        await expect(page.get_by_role("heading", name="Fetching the log from the archive")).to_be_visible()
        come.set()
        await expect(page.get_by_text("line 1", exact=True)).to_be_visible()
        watch.faults[:] = [fault for fault in watch.faults if not fault.startswith("503 for")]


async def _after(come: asyncio.Event, route: Route) -> None:
    await come.wait()
    await route.continue_()


async def test_a_tab_is_hidden_for_an_hour(page: Page, account: Account) -> None:
    """It lets go of its stream, and when somebody looks again it shows what was printed meanwhile, and goes on."""
    await page.add_init_script(HIDING)
    await page.clock.install()
    job_id = await account.job(*lines(100))
    left = []
    page.on("requestfailed", lambda request: left.append(request.url))
    await page.goto(open_job(page, account, job_id))
    await expect(page.get_by_text("line 100", exact=True)).to_be_visible()
    await page.evaluate("hide(true)")
    await page.clock.fast_forward("01:00:00")
    await wait_for(lambda: _is_left(left), "the stream is let go")
    await account.write(job_id, *lines(2000, 101))
    await page.evaluate("hide(false)")
    await expect(page.get_by_text("line 2100", exact=True)).to_be_visible()
    await expect(page.locator(".connection-lost")).to_have_count(0)
    await account.write(job_id, *lines(1, 2101))
    await expect(page.get_by_text("line 2101", exact=True)).to_be_visible()
    await expect(page.get_by_text(re.compile("1 h 0"))).to_be_visible()


async def _is_left(left: list[str]) -> bool:
    return any("/stream?" in url for url in left)


async def test_seven_tabs(page: Page, account: Account) -> None:
    """A browser has six connections to a server; seven tabs on running jobs show each new line all the same."""
    jobs = [await account.job(f"first of {number}\n") for number in range(TABS)]
    tabs = [page, *[await page.context.new_page() for _ in range(TABS - 1)]]
    for number, (tab, job_id) in enumerate(zip(tabs, jobs, strict=True)):
        await tab.goto(open_job(tab, account, job_id))
        await expect(tab.get_by_text(f"first of {number}")).to_be_visible()
    for word in (secrets.token_hex(4), secrets.token_hex(4)):
        for job_id in jobs:
            await account.write(job_id, f"{word} came\n")
        for tab in reversed(tabs):
            await expect(tab.get_by_text(f"{word} came")).to_be_visible()
            await expect(tab.locator(".connection-lost")).to_have_count(0)
