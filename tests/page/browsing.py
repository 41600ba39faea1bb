"""Chromium on the page of a real server, and jobs for it to show.

All tests in Chromium share one event loop, since the browser does: `pytestmark = IN_CHROMIUM`.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    FloatRect,
    Locator,
    Page,
    Playwright,
    Response,
    expect,
)

from ci_common.models import APIKey, Job, JobEvent, User, generate_api_key, hash_api_key, utc_now
from ci_eventstore.repository import RedisJobRepository
from tests.acceptance.command_line import CommandLine, Running
from tests.needs import find_chromium

IN_CHROMIUM: Final = [
    pytest.mark.slow,
    pytest.mark.needs("chromium"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]
#: On a busy machine.
PATIENCE_MS: Final = 30_000
expect.set_options(timeout=PATIENCE_MS)
#: What the browser itself says of an answer that is no success, or of a server that is away: the page may expect both.
_NETWORK = re.compile(r"Failed to load resource|net::ERR_")
#: Notes violations of the policy also where the browser's console doesn't show them.
_WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", event => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
  console.error(`violation of ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


@dataclass
class PageServer:
    """A running `ci-eventstore serve`, and its store."""

    url: str
    cli: CommandLine
    repository: RedisJobRepository
    process: Running

    async def create_account(self) -> "Account":
        """Create a user of whom no other test knows, with a key."""
        name = f"ada-{secrets.token_hex(4)}"
        user = User(id=name, name="Ada Lovelace", email=f"{name}@example.com", created_at=utc_now())
        await self.repository.create_user(user)
        key = generate_api_key()
        await self.repository.create_api_key(APIKey(id=f"key-{name}", user_id=name, key_hash=hash_api_key(key)))
        return Account(name, key, self)


@dataclass(frozen=True)
class Account:
    """A user with a key, and what that user's jobs do."""

    user_id: str
    key: str
    server: PageServer

    async def job(self, *texts: str | bytes, name: str = "unit tests", end: bool | None = None, **fields: Any) -> str:
        """Create a job that runs and has printed these texts; with an `end`, it has succeeded or failed."""
        job_id = f"j{secrets.token_hex(5)}"
        job = Job(
            id=job_id, user_id=self.user_id, name=name, **{"status": "running", "start_time": utc_now(), **fields}
        )
        await self.server.repository.create_job(job)
        await self.write(job_id, *texts)
        if end is not None:
            await self.end(job_id, end)
        return job_id

    async def write(self, job_id: str, *texts: str | bytes) -> None:
        """Let a job print these texts, each as one event."""
        read = (text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text for text in texts)
        if events := [JobEvent("log", text) for text in read]:
            await self.server.repository.add_events(job_id, events)

    async def end(self, job_id: str, is_success: bool) -> None:
        """Let a job end."""
        await self.server.repository.complete_job(job_id, is_success, utc_now())


@dataclass
class Watch:
    """What went wrong in a browser's pages."""

    faults: list[str] = field(default_factory=list)

    async def page(self, context: BrowserContext) -> Page:
        """Open a page, of which everything is noted that no page may do."""
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note_message)
        page.on("pageerror", self._note_error)
        page.on("response", self._note_response)
        page.on("dialog", self._note_dialog)
        return page

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _NETWORK.search(message.text):
            self.faults.append(f"{message.type}: {message.text}")

    def _note_error(self, error: Error) -> None:
        self.faults.append(f"{error.name}: {error.message}\n{error.stack}")

    async def _note_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"{dialog.type}: {dialog.message}")
        await dialog.dismiss()

    def _note_response(self, response: Response) -> None:
        if response.status >= 500 or (response.status >= 400 and "/assets/" in response.url):
            self.faults.append(f"{response.status} for {response.url}")


@asynccontextmanager
async def started_browser(playwright: Playwright, *flags: str) -> AsyncIterator[Browser]:
    """Start Debian's Chromium until this is left; LookupError if there is none."""
    options = ["--disable-gpu", "--disable-background-networking", "--no-proxy-server", *flags]
    browser = await playwright.chromium.launch(executable_path=find_chromium(), args=options, timeout=60_000)
    try:
        yield browser
    finally:
        await browser.close()


@asynccontextmanager
async def watched_context(browser: Browser, **options: Any) -> AsyncIterator[tuple[BrowserContext, Watch]]:
    """Make a browser as a person's who has never been here; AssertionError at the end if something went wrong in it."""
    options = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
    context = await browser.new_context(**options)
    watch = Watch()
    try:
        await context.add_init_script(_WATCH)
        yield context, watch
    finally:
        await context.close()
    assert not watch.faults, "\n".join(watch.faults)


async def log_in(page: Page, account: Account) -> None:
    """Log in as a person does, and wait for the list of jobs."""
    await page.goto(account.server.url)
    await page.get_by_label("API key").fill(account.key)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def let_in(context: BrowserContext, account: Account) -> None:
    """Log in without the form, for tests that are about something else."""
    origin = {"Origin": account.server.url}
    answer = await context.request.post(f"{account.server.url}/login", data={"key": account.key}, headers=origin)
    assert answer.status == 204, await answer.text()


async def wait_for(find: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0) -> Any:
    """Ask again and again until the answer is true, and return it; TimeoutError says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := await find()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        await asyncio.sleep(0.02)
    return found


def lines(count: int, first: int = 1) -> Sequence[str]:
    """Return numbered lines as few large texts, as a `LogWriter` writes them."""
    whole = [f"line {number}\n" for number in range(first, first + count)]
    return ["".join(whole[place : place + 1000]) for place in range(0, count, 1000)]


async def open_log(page: Page, account: Account, job_id: str, line: int | None = None) -> None:
    """Open a job's page at a line, or where it opens by itself, and wait until it shows lines."""
    at = "" if line is None else f"?line={line}"
    await page.goto(f"{account.server.url}/#/jobs/{job_id}{at}")
    await expect(page.locator(".log-row:not(.is-missing)").first).to_be_visible()


async def box_of(element: Locator) -> FloatRect:
    """Return where an element is, when it has come to rest there."""
    boxes: list[FloatRect | None] = [None]

    async def is_at_rest() -> bool:
        await element.page.evaluate("new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve, 20)))")
        boxes.append(await element.bounding_box())
        return boxes[-1] is not None and boxes[-1] == boxes[-2]

    await wait_for(is_at_rest, "an element at rest")
    assert boxes[-1] is not None
    return boxes[-1]


def row(page: Page, line: int) -> Locator:
    """Return the row of a line, which is there while it can be seen."""
    return page.locator(f'.log-row[data-line="{line}"]')
