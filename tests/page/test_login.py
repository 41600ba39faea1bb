"""Who may look: by a key, without one on one's own machine, and below a path."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.acceptance.command_line import start_serving
from tests.acceptance.conftest import make_command_line
from tests.needs import find_nginx
from tests.page.browsing import (
    IN_CHROMIUM,
    Account,
    PageServer,
    log_in,
    watched_context,
)
from tests.servers import free_port, wait_until

pytestmark = IN_CHROMIUM

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/log;
events {{ }}
http {{
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{port};
        location /ci/ {{
            proxy_pass {url}/;
            proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
            proxy_buffering off;
        }}
    }}
}}
"""


async def test_a_key_lets_its_user_in_and_out(browser_page: Page, account: Account) -> None:
    """A wrong key is refused in words; a good one lasts over a reload, until one logs out, in all tabs."""
    page, context = browser_page, browser_page.context
    await account.job("line\n", name="my own job")
    await page.goto(account.server.url)
    await page.get_by_label("API key").fill("ci_wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("isn't valid")
    await log_in(page, account)
    await expect(page.get_by_text("my own job")).to_be_visible()
    await expect(page.get_by_text("Ada Lovelace")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("my own job")).to_be_visible()
    [cookie] = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert account.key not in await page.content()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    await expect(page.get_by_text("my own job")).to_have_count(0)
    assert await context.cookies() == []


async def test_a_session_that_is_gone_leads_to_the_login(page: Page, account: Account) -> None:
    """Instead of trying for ever; the address stays, and is shown after the next login."""
    job_id = await account.job("a line\n")
    await page.goto(f"{account.server.url}/#/jobs/{job_id}")
    await expect(page.get_by_role("heading", name="unit tests")).to_be_visible()
    await page.context.clear_cookies()
    await page.reload()
    await expect(page.get_by_label("API key")).to_be_visible()
    await page.get_by_label("API key").fill(account.key)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="unit tests")).to_be_visible()
    assert page.url.endswith(f"#/jobs/{job_id}")


async def test_ones_own_machine_needs_no_login(browser_page: Page, embedded_url: str) -> None:
    """`serve --no-auth` opens with all jobs, nobody's among them, and has nobody to log out."""
    cli = make_command_line(embedded_url)
    try:
        _, url = start_serving(cli, "--no-auth")
        assert cli("run", "--name", "of nobody", "--", "echo", "hello").code == 0
        await browser_page.goto(url)
        await expect(browser_page.get_by_text("of nobody")).to_be_visible()
        await expect(browser_page.get_by_role("button", name="Log out")).to_have_count(0)
        await expect(browser_page.get_by_label("API key")).to_have_count(0)
    finally:
        cli.kill_all()


@contextmanager
def nginx_before(url: str, folder: Path) -> Iterator[str]:
    """Run nginx that removes /ci, and yield the address below it."""
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, url=url, temporary=temporary))
    with subprocess.Popen([find_nginx(), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]) as process:
        try:
            wait_until((folder / "pid").exists, "nginx")
            yield f"http://127.0.0.1:{port}/ci/"
        finally:
            process.terminate()


@pytest.mark.needs("nginx")
async def test_the_page_works_below_a_path(chromium: Browser, page_server: PageServer, tmp_path: Path) -> None:
    """After a proxy that removes a prefix, with `--root-path`: files, login, list and log are found below it."""
    account = await page_server.create_account()
    job_id = await account.job("line one\n", end=True)
    _, url = start_serving(page_server.cli, "--root-path", "/ci")
    address = re.sub(r"/ci$", "", url)
    with nginx_before(address, tmp_path) as below:
        async with watched_context(chromium) as (context, watch):
            page = await watch.page(context)
            await page.goto(below)
            await page.get_by_label("API key").fill(account.key)
            await page.get_by_role("button", name="Log in").click()
            await page.get_by_role("link", name="unit tests").click()
            await expect(page.get_by_text("line one")).to_be_visible()
            assert page.url == f"{below}#/jobs/{job_id}"
            assert [cookie["path"] for cookie in await context.cookies()] == ["/ci"]
