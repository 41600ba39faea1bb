"""The list of jobs: live, filtered, and what it shows of each job."""

from datetime import timedelta

from playwright.async_api import Page, expect

from ci_common.models import utc_now
from tests import claims
from tests.page.browsing import IN_CHROMIUM, Account

pytestmark = IN_CHROMIUM

#: A name that would be more than a text if it weren't taken for one.
HOSTILE_NAME = '<img src=x onerror="document.title=1">&lt;b&gt; \u202egnp.exe'


async def test_the_list_is_live(page: Page, account: Account) -> None:
    """A job that is created, runs and ends while one looks shows each of that by itself, others' jobs not at all."""
    await page.goto(account.server.url)
    await expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    other = await account.server.create_account()
    await other.job(name="of somebody else")
    waiting = await account.job(name="a new one", status="queued", start_time=None, queue="default", command=["make"])
    row = page.get_by_role("listitem").filter(has_text="a new one")
    await expect(row).to_contain_text("Waiting")
    running = await account.job(name="a running one", start_time=utc_now() - timedelta(minutes=2))
    row = page.get_by_role("listitem").filter(has_text="a running one")
    await expect(row).to_contain_text("Running")
    await expect(row).to_contain_text("2 min ")
    shown = await row.locator(".job-duration").inner_text()
    await expect(row.locator(".job-duration")).not_to_have_text(shown)
    await account.end(running, False)
    await expect(row).to_contain_text("Failed")
    await account.server.repository.cancel_job(waiting)
    await expect(page.get_by_role("listitem").filter(has_text="a new one")).to_contain_text("Cancelled")
    await account.server.repository.delete_job(running)
    await expect(row).to_have_count(0)
    await expect(page.get_by_text("of somebody else")).to_have_count(0)
    await page.get_by_role("link", name="a new one").click()
    await expect(page.get_by_role("heading", name="a new one")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_the_list_is_filtered(page: Page, account: Account) -> None:
    """By status, queue and text, all at once; the filter stands in the address, and goes in one click."""
    await account.job(name="passes", end=True, queue="fast")
    await account.job(name="fails in fast", end=False, queue="fast")
    await account.job(name="fails in slow", end=False, queue="slow")
    await account.job(name="runs", queue="slow", command=["make", "check"])
    await page.goto(account.server.url)
    rows = page.locator("ul.jobs > li")
    await expect(rows).to_have_count(4)
    await page.get_by_role("button", name="Failed").click()
    await expect(rows).to_have_count(2)
    await page.get_by_role("combobox", name="Queue").select_option("slow")
    await expect(rows).to_have_count(1)
    await page.reload()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("fails in slow")
    await page.get_by_placeholder("Name, command, id").fill("fast")
    await page.get_by_role("button", name="Show all jobs").click()
    await expect(rows).to_have_count(4)
    await page.get_by_placeholder("Name, command, id").fill("CHECK make")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("runs")
    assert "q=CHECK+make" in page.url


async def test_a_job_leads_back_to_the_list_as_it_was(page: Page, account: Account) -> None:
    """By its arrow, also after a reload, and by the browser's key: with the filter, as far down, and at that job."""
    for number in range(60):
        await account.job(name=f"fails {number}", end=False)
    await account.job(name="passes", end=True)
    await page.goto(f"{account.server.url}/#/?status=failed&q=fails")
    rows = page.locator("ul.jobs > li")
    await expect(rows).to_have_count(60)
    await page.get_by_role("link", name="fails 7 ").click()
    await expect(page.get_by_role("heading", name="fails 7", exact=True)).to_be_visible()
    await page.reload()
    await page.get_by_label("Back to the jobs").click()
    await expect(rows).to_have_count(60)
    assert page.url.endswith("#/?status=failed&q=fails")
    link = page.get_by_role("link", name="fails 9 ")
    await link.click()
    await expect(page.get_by_role("heading", name="fails 9", exact=True)).to_be_visible()
    await page.go_back()
    await expect(link).to_be_focused()
    await expect(link).to_be_in_viewport()


async def test_the_list_shows_attempts(page: Page, account: Account) -> None:
    """Of jobs that took several, as soon as the list opens."""
    repository, queue = account.server.repository, account.user_id
    job_id = await account.job(status="queued", start_time=None, queue=queue, command=["make"])
    assert await claims.claim(repository, queue, "lost", 1, 1.0)
    clock = repository.engine.keys.job(job_id).queue(queue).clock
    await repository.engine.nodes.read("HINCRBY", clock, "now", 10_000)
    assert await claims.claim(repository, queue, "next", 1, 30.0)
    await page.goto(account.server.url)
    await expect(page.locator("ul.jobs > li")).to_contain_text("attempt 2")


async def test_names_are_texts(page: Page, account: Account) -> None:
    """Whatever a job is called, and whatever its command is, nothing of it becomes a part of the page."""
    command = ["sh", "-c", "echo </code><script>document.title=2</script>"]
    await account.job(name=HOSTILE_NAME, command=command, queue="default", end=False)
    await page.goto(account.server.url)
    row = page.locator("ul.jobs > li")
    await expect(row).to_contain_text('<img src=x onerror="document.title=1">&lt;b&gt;')
    await expect(row).to_contain_text("</code><script>")
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
    assert await page.locator("main img, main script").count() == 0
    assert "<img" in await page.title()
