"""Reading a log: where it opens, groups, links to lines, times, search, copying, downloads."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.async_api import Page, expect

from ci_common import JobEvent
from tests.page.browsing import IN_CHROMIUM, Account, box_of, lines, open_log, row, wait_for

pytestmark = IN_CHROMIUM

#: A build with groups in groups; the tests fail, in line 17.
BUILD = """\
preparing
::group::fetch
::group::first mirror
connecting
::endgroup::
1 package
::endgroup::
::group::compile
a.c
b.c
::endgroup::
::group::tests
::group::unit
test_a ok
test_b ok
::endgroup::
::error file=test_c.py,line=3::test_c: 1 != 2
::endgroup::
done
"""


async def test_a_failed_job_opens_at_its_error(page: Page, account: Account) -> None:
    """Groups are folded but for the one that failed; they open by a click, all together, and by links into them."""
    job_id = await account.job(BUILD, end=False)
    await open_log(page, account, job_id)
    await expect(row(page, 17)).to_be_visible()
    await expect(row(page, 9)).to_have_count(0)
    await expect(page.get_by_role("button", name="1 error")).to_be_visible()
    await row(page, 2).get_by_role("button", name="group fetch").click()
    await expect(row(page, 3)).to_be_visible()
    await expect(row(page, 4)).to_have_count(0)
    await page.goto(f"{account.server.url}/#/jobs/{job_id}?line=4")
    await expect(row(page, 4)).to_be_visible()
    await row(page, 2).get_by_role("button", name="group fetch").click()
    await expect(row(page, 3)).to_have_count(0)
    await page.get_by_label("Fold or open all groups (z)").click()
    await page.get_by_label("Fold or open all groups (z)").click()
    for line in (4, 9, 14):
        await expect(row(page, line)).to_be_visible()
    await page.get_by_label("Contents (c)").click()
    contents = page.get_by_label("Contents", exact=True)
    await expect(contents.get_by_role("button", name="compile")).to_be_visible()
    await expect(contents.get_by_role("button", name="test_c: 1 != 2")).to_be_visible()
    await contents.get_by_role("button", name="Close the contents").click()
    await expect(contents).to_be_hidden()


async def test_lines_are_linked(page: Page, account: Account) -> None:
    """A click on a number, and with Shift a range, stand in the address, which leads there; output moves nothing."""
    job_id = await account.job(*lines(5000))
    await open_log(page, account, job_id, line=2500)
    await row(page, 2501).get_by_role("link", name="line 2501").click()
    await row(page, 2504).get_by_role("link", name="line 2504").click(modifiers=["Shift"])
    assert page.url.endswith("?line=2501-2504")
    place = await box_of(row(page, 2500))
    await account.write(job_id, *lines(3000, first=5001))
    await expect(page.get_by_role("button", name=re.compile(r"3,000 new lines"))).to_be_visible()
    assert await box_of(row(page, 2500)) == place
    await page.reload()
    await expect(row(page, 2502)).to_have_class(re.compile("is-selected"))
    # What stands before it is seen as well.
    await expect(row(page, 2498)).to_be_visible()
    await page.get_by_role("button", name="Forget the selected lines").click()
    assert "line=" not in page.url
    await page.locator(".log-view").click(position={"x": 500, "y": 100})
    await page.keyboard.press("g")
    await page.get_by_role("textbox").fill("7999")
    await page.keyboard.press("Enter")
    await expect(row(page, 7999)).to_be_visible()


async def test_times_are_switched_in_place(page: Page, account: Account) -> None:
    """None, local time, UTC, since the start; the line that one reads stays."""
    start = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    job_id = await account.job(start_time=start)
    for number in range(3):
        event = JobEvent("log", f"line {number}\n", timestamp=start + timedelta(seconds=90 * number))
        await account.server.repository.add_event(job_id, event)
    await open_log(page, account, job_id)
    time = row(page, 2).locator(".log-time")
    await expect(time).to_have_count(0)
    seen = []
    for choice in ("Local time", "UTC", "Since the start"):
        await page.get_by_label("Times of lines (t)").click()
        await page.get_by_role("radio", name=choice).click()
        await page.keyboard.press("Escape")
        await expect(time).to_have_count(1)
        seen.append(await time.get_attribute("data-time"))
    assert len(set(seen)) >= 2, seen
    assert "03:05:35" in str(seen[1])
    assert re.search(r"1.?m|1:30|90", str(seen[2])), seen
    await page.reload()
    await expect(time).to_have_count(1)


async def test_a_search_finds_all_of_a_log(page: Page, account: Account) -> None:
    """Far beyond the screen, in folded groups, by pattern and case, round the end; counted while the job runs."""
    middle = ["::group::folded\n", "a NEEDLE & <i>\n", "::endgroup::\n"]
    job_id = await account.job(*lines(30_000), *middle, *lines(30_000, first=30_004), "needle 2\n")
    await open_log(page, account, job_id)
    await page.keyboard.press("Control+f")
    box = page.get_by_role("textbox", name="Search the whole log")
    await box.fill("needle")
    count = page.locator(".search-count")
    await expect(count).to_have_text(re.compile("[12] of 2"))
    seen = set()
    for _ in range(2):
        await page.get_by_label("Next hit").click()
        await expect(row(page, 30_002).or_(row(page, 60_004))).to_be_visible()
        seen.add(await row(page, 30_002).count())
    assert seen == {0, 1}
    await account.write(job_id, "needle 3\n")
    await expect(count).to_have_text(re.compile("[123] of 3"))
    await page.get_by_label("Upper and lower case differ").click()
    await expect(count).to_have_text(re.compile("[12] of 2"))
    await box.fill("NEEDLE & <i>")
    await expect(count).to_have_text("1 of 1")
    await page.keyboard.press("Enter")
    await expect(row(page, 30_002)).to_be_visible()
    await page.get_by_label("Regular expression").click()
    await box.fill("^line (77|999)[0-9]$")
    await expect(count).to_have_text(re.compile("[0-9]+ of 20"))
    await box.fill("(")
    await expect(box).to_have_attribute("aria-invalid", "true")
    await page.keyboard.press("Escape")
    await expect(box).to_have_count(0)


async def test_text_is_copied_over_any_distance(page: Page, account: Account, tmp_path: Path) -> None:
    """From one line to another thousands below, without numbers, times or colours; and all of it is downloaded."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    printed = "".join(f"\x1b[32mline\x1b[0m {number}\n" for number in range(1, 6001))
    job_id = await account.job(printed, end=True)
    await open_log(page, account, job_id, line=10)
    begin = await box_of(row(page, 10).locator(".log-content"))
    await page.mouse.move(begin["x"] + 1, begin["y"] + 8)
    await page.mouse.down()
    await page.mouse.move(begin["x"] + 30, begin["y"] + 30)
    await page.mouse.up()
    await page.keyboard.press("End")
    await expect(row(page, 6000)).to_contain_text("line 6000")
    end = await box_of(row(page, 6000).locator(".log-content"))
    await page.keyboard.down("Shift")
    await page.mouse.click(end["x"] + end["width"] - 1, end["y"] + 8)
    await page.keyboard.up("Shift")
    await page.evaluate("navigator.clipboard.writeText('')")
    await page.keyboard.press("Control+c")
    copied = await wait_for(lambda: page.evaluate("navigator.clipboard.readText()"), "the copied text")
    assert copied.splitlines() == [f"line {number}" for number in range(10, 6001)]
    await page.get_by_label("Copy, download, replay").click()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download, as it was printed").click()
    path = tmp_path / "log"
    await (await download.value).save_as(path)
    assert path.read_text() == printed
    await page.get_by_label("Copy, download, replay").click()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download as plain text").click()
    await (await download.value).save_as(path)
    assert path.read_text() == printed.replace("\x1b[32m", "").replace("\x1b[0m", "")
