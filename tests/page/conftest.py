"""One server and one browser for all tests of the page; a browser's context of its own, and its own user, for each."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.acceptance.command_line import start_serving
from tests.acceptance.conftest import embedded_url, make_command_line
from tests.page.browsing import Account, PageServer, let_in, started_browser, watched_context

__all__ = ["embedded_url"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def page_server(embedded_url: str) -> AsyncIterator[PageServer]:
    """A server with keys; what tests did to its store must agree with the streams."""
    cli = make_command_line(embedded_url)
    try:
        async with cli.repository() as repository:
            process, url = start_serving(cli)
            yield PageServer(url, cli, repository, process)
            assert await repository.verify() == []
    finally:
        cli.kill_all()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    async with async_playwright() as playwright, started_browser(playwright) as browser:
        yield browser


@pytest.fixture
def context_options() -> dict[str, object]:
    """How the person's browser is; a module or a class that wants another has a fixture of this name."""
    return {}


@pytest_asyncio.fixture(loop_scope="session")
async def account(page_server: PageServer) -> Account:
    """A user of the test's own."""
    return await page_server.create_account()


@pytest_asyncio.fixture(loop_scope="session")
async def browser_page(chromium: Browser, context_options: dict[str, object]) -> AsyncIterator[Page]:
    """A page without login; the test fails if anything goes wrong in it."""
    async with watched_context(chromium, **context_options) as (context, watch):
        yield await watch.page(context)


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser_page: Page, account: Account) -> Page:
    """A page of the user, logged in and not open yet."""
    await let_in(browser_page.context, account)
    return browser_page


@pytest.fixture
def context(browser_page: Page) -> BrowserContext:
    """The browser of the page, for more tabs and for its cookies."""
    return browser_page.context
