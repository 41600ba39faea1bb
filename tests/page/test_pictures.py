"""The pictures of the page in the documents: made of what `ci-eventstore demo` shows, by `make pictures`.

Everywhere else they are made as well, and thrown away.
"""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.acceptance.conftest import make_command_line
from tests.page.browsing import IN_CHROMIUM, row, wait_for, watched_context

pytestmark = IN_CHROMIUM
NAMES = {"list", "running", "failed", "search", "dark", "phone", "phone_dark"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo(embedded_url: str) -> AsyncIterator[tuple[str, str]]:
    """The demo's address and key, when all of its jobs but one have ended."""
    cli = make_command_line(embedded_url)
    try:
        running = cli.start("demo", "--port", "0")
        running.wait_for_output(b"Ctrl-C")
        found = re.search(r"page +(\S+)/\nAPI key +(\S+)\n", running.shown.decode())
        assert found
        yield found[1], found[2]
    finally:
        cli.kill_all()


async def log_in(page: Page, address: str, key: str) -> None:
    """Log in, and wait until the demo has done its work."""
    await page.goto(address)
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("Passed", exact=True)).to_have_count(4, timeout=120_000)


async def open_job(page: Page, name: str) -> None:
    """Open the page of a job."""
    await page.get_by_role("link", name=re.compile(name)).click()
    await expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    await expect(page.locator(".log-row:not(.is-missing)").first).to_be_visible()
    await page.mouse.move(0, 0)


async def test_pictures_can_be_made(chromium: Browser, demo: tuple[str, str], tmp_path: Path) -> None:
    """The list, a running log, a failed job, a search, a phone, and the dark theme; nothing goes wrong meanwhile."""
    folder = Path(os.environ.get("CI_EVENTSTORE_PICTURES", tmp_path))

    taken = set()

    async def take(page: Page, name: str) -> None:
        await expect(page.locator(".log-row.is-missing")).to_have_count(0)
        taken.add(name)
        await page.screenshot(path=folder / f"{name}.png", animations="disabled", caret="hide")

    async with watched_context(chromium, viewport={"width": 1100, "height": 640}) as (context, watch):
        page = await watch.page(context)
        await log_in(page, *demo)
        await page.mouse.move(0, 0)
        await take(page, "list")
        await open_job(page, "load of this machine")
        await wait_for(page.locator(".log-row").count, "lines")
        await take(page, "running")
        await page.go_back()
        await open_job(page, "unit tests")
        await expect(page.get_by_role("button", name="1 error")).to_be_visible()
        await take(page, "failed")
        await page.go_back()
        await open_job(page, "200,000 lines")
        await page.keyboard.press("Control+f")
        await page.get_by_role("textbox", name="Search the whole log").fill("raise KeyError")
        await expect(page.locator(".search-count")).to_have_text(re.compile(r"\d of \d+"))
        await page.get_by_label("Next hit").click()
        await expect(page.locator(".search-count")).to_have_text(re.compile(r"2 of \d+\s*$"))
        await take(page, "search")
        await page.emulate_media(color_scheme="dark")
        await page.goto(f"{demo[0]}/#/")
        await open_job(page, "compile")
        await page.get_by_label("Contents (c)").click()
        await page.get_by_label("Fold or open all groups (z)").click()
        await expect(row(page, 4)).to_be_visible()
        await take(page, "dark")
    phone = {
        "viewport": {"width": 390, "height": 720},
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 1.5,
    }
    async with watched_context(chromium, **phone) as (context, watch):
        page = await watch.page(context)
        await log_in(page, *demo)
        await open_job(page, "unit tests")
        await take(page, "phone")
        await page.emulate_media(color_scheme="dark")
        await take(page, "phone_dark")
    assert taken == NAMES
