"""Watching a job: its log grows, one follows or lets go, it ends, is cancelled, submitted again, replayed."""

import re
from datetime import timedelta

from playwright.async_api import Page, expect

from ci_common import JobEvent
from ci_common.models import utc_now
from tests.page.browsing import IN_CHROMIUM, Account, lines, open_log, row, wait_for

pytestmark = IN_CHROMIUM


async def test_following_lets_go_and_takes_up_again(page: Page, account: Account) -> None:
    """A running job is shown at its end; scrolling up stays there and counts what is new; one click leads back."""
    job_id = await account.job(*lines(500))
    await open_log(page, account, job_id)
    await expect(row(page, 500)).to_be_visible()
    await account.write(job_id, *lines(100, first=501))
    await expect(row(page, 600)).to_be_visible()
    await page.mouse.move(600, 500)
    await page.mouse.wheel(0, -2000)
    await expect(row(page, 600)).not_to_be_in_viewport()
    await account.write(job_id, "line 601\n", "line 602\n")
    new = page.get_by_role("button", name=re.compile("2 new lines"))
    await expect(new).to_be_visible()
    await expect(row(page, 602)).not_to_be_in_viewport()
    await new.click()
    await expect(row(page, 602)).to_be_in_viewport()
    await expect(new).to_have_count(0)
    await account.write(job_id, "half a ")
    await expect(row(page, 603)).to_have_text(re.compile("half a"))
    await account.write(job_id, "line\n")
    await expect(row(page, 603)).to_have_text(re.compile("half a line"))
    await account.end(job_id, True)
    await expect(page.locator(".status-large")).to_have_text("Passed")
    await expect(page).to_have_title(re.compile("Passed: unit tests"))
    await expect(row(page, 602)).to_be_in_viewport()


async def test_groups_that_end_well_fold_while_one_follows(page: Page, account: Account) -> None:
    """Those that end well, as soon as something follows; what failed, was opened by hand or ends unwatched stays."""
    await page.clock.install()
    job_id = await account.job("::group::first\na\n::endgroup::\n")

    async def print_on(text: str, last: int) -> None:
        await account.write(job_id, text)
        await expect(row(page, last)).to_be_visible()
        await page.clock.fast_forward(4100)

    await open_log(page, account, job_id)
    await expect(row(page, 2)).to_have_count(0)
    failed = "::group::third\n::error::c\n::endgroup::\n"
    await print_on(f"::group::second\nb\n::endgroup::\n{failed}::group::fourth\nd\n", 11)
    await expect(row(page, 5)).to_have_count(0)
    await expect(row(page, 8)).to_be_visible()
    await expect(row(page, 11)).to_be_visible()
    await row(page, 4).get_by_role("button", name="group second").click()
    await expect(row(page, 5)).to_be_visible()
    await print_on("::endgroup::\nbetween\n", 13)
    await expect(row(page, 11)).to_have_count(0)
    await expect(row(page, 5)).to_be_visible()
    await page.get_by_label("Follow the end (f)").click()
    await print_on("::group::fifth\ne\n::endgroup::\nthe end\n", 17)
    await expect(row(page, 14)).to_have_class(re.compile("is-group"))
    await page.get_by_label("Follow the end (f)").click()
    await print_on("more\n", 18)
    await expect(row(page, 15)).to_be_visible()


async def test_a_job_is_cancelled_when_one_means_it(page: Page, account: Account) -> None:
    """Not without a second click; its end shows by itself, and the log says why."""
    job_id = await account.job("working\n")
    await open_log(page, account, job_id)
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    await expect(page.locator(".status-large")).to_have_text("Running")
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    await expect(page.locator(".status-large")).to_have_text("Cancelled")
    await expect(page.get_by_text("[cancelled")).to_be_visible()


async def test_a_job_is_submitted_again(page: Page, account: Account) -> None:
    """It is another job, with the same command, and its page opens; a job's head says what it is."""
    job_id = await account.job("once\n", end=False, command=["make", "check"], queue="default")
    await open_log(page, account, job_id)
    for fact in ("make check", "queue default", "created "):
        await expect(page.locator(".facts")).to_contain_text(fact)
    await page.get_by_role("button", name="Submit again").click()
    await expect(page.locator(".status-large")).to_have_text("Waiting")
    new_id = page.url.rpartition("/")[2]
    new = await account.server.repository.get_job_summary(new_id)
    assert new is not None
    assert new_id != job_id
    assert (new.command, new.queue, new.user_id) == (["make", "check"], "default", account.user_id)
    await expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_text("once")).to_be_visible()


async def test_a_log_is_replayed_in_time(page: Page, account: Account) -> None:
    """Line by line, faster if one wants, from any time, which shows before one goes there; pauses are short."""
    start = utc_now() - timedelta(hours=3)
    job_id = await account.job(start_time=start)
    events = [JobEvent("log", f"line {n}\n", timestamp=start + timedelta(minutes=n)) for n in range(1, 11)]
    await account.server.repository.add_events(job_id, events)
    await account.end(job_id, True)
    await open_log(page, account, job_id)
    await page.get_by_label("Copy, download, replay").click()
    await page.get_by_role("button", name="Replay in time").click()
    bar = page.get_by_role("group", name="Replay")
    await expect(bar).to_be_visible()
    await expect(row(page, 10)).to_have_count(0)
    await bar.get_by_label("Speed").select_option("100")
    await expect(row(page, 10)).to_be_visible()
    await expect(bar).to_contain_text("10 min 00 s of 10 min 00 s Line 10 of 10")
    scrubber = bar.get_by_role("slider", name="Time")
    await scrubber.hover()
    preview = re.compile(r"^(4 min 5\d|5 min 0\d) s · \d\d:\d\d:\d\d$")
    await expect(bar.locator(".replay-preview")).to_have_text(preview)
    await scrubber.fill("330000")
    await expect(bar).to_contain_text("5 min 30 s of 10 min 00 s Line 5 of 10")
    await expect(row(page, 5)).to_be_visible()
    await expect(row(page, 6)).to_have_count(0)
    await scrubber.press("PageUp")
    await expect(bar).to_contain_text("6 min 30 s of 10 min 00 s Line 6 of 10")
    await bar.get_by_role("button", name="Play", exact=True).click()
    await expect(row(page, 10)).to_be_visible()
    await expect(page.get_by_label("Follow the end (f)")).to_have_attribute("aria-pressed", "true")
    await bar.get_by_role("button", name="End the replay").click()
    await expect(bar).to_have_count(0)
    await expect(row(page, 10)).to_be_visible()
    # Where somebody was is what is shown then.
    await expect(page.get_by_label("Follow the end (f)")).to_have_attribute("aria-pressed", "false")


async def test_what_is_no_log_says_what_it_is(page: Page, account: Account) -> None:
    """Empty, waiting, deleted, without its log, somebody else's, and none at all."""
    repository, url = account.server.repository, account.server.url
    other = await account.server.create_account()
    queue = f"queue-{account.user_id}"
    waiting = [await account.job(status="queued", start_time=None, queue=queue, command=["a"]) for _ in range(3)]
    deleted, without = [await account.job("a line\n", end=True) for _ in range(2)]
    await repository.delete_job(deleted)
    await repository.delete_log(without)
    states = {
        await account.job(): "No output yet",
        await account.job(end=True): "The log is empty",
        waiting[0]: "Waiting: next in line",
        waiting[2]: "Waiting: 2 jobs wait before it",
        deleted: "This job was deleted",
        without: "The log was deleted",
        await other.job("a secret\n", end=True): "No such job, or not yours",
        "none": "No such job, or not yours",
    }
    for job_id, title in states.items():
        await page.goto(f"{url}/#/jobs/{job_id}")
        await expect(page.get_by_role("heading", name=title)).to_be_visible()
    assert "a secret" not in await page.content()


async def test_a_job_that_is_deleted_while_one_looks(page: Page, account: Account) -> None:
    """The page says so."""
    job_id = await account.job("a line\n", end=True)
    await open_log(page, account, job_id)
    await account.server.repository.delete_job(job_id)
    await page.reload()
    await expect(page.get_by_role("heading", name="This job was deleted")).to_be_visible()


async def test_a_session_that_ends_while_one_looks(page: Page, account: Account) -> None:
    """The login is asked for, and nothing of the job stays on the screen."""
    job_id = await account.job("a line\n")
    await open_log(page, account, job_id)
    origin = {"Origin": account.server.url}
    await page.context.request.post(f"{account.server.url}/logout", headers=origin)
    await page.goto(f"{account.server.url}/#/")
    await wait_for(page.get_by_label("API key").count, "the login")
    await expect(page.get_by_text("a line")).to_have_count(0)
