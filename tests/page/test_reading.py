"""Reading a log: where it opens, groups, links to lines, times, search, copying, downloads."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.async_api import Page, Route, expect

from ci_common import JobEvent
from ci_common.models import utc_now
from ci_eventstore.repository import RedisJobRepository
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
    strip = page.locator(".strip canvas")
    await expect(strip).to_have_attribute("title", re.compile("in grey where the time went"))
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
    job_id = await account.job(*lines(12_000), *middle, *lines(12_000, first=12_004), "needle 2\n")
    await open_log(page, account, job_id)
    await page.keyboard.press("Control+f")
    box = page.get_by_role("textbox", name="Search the whole log")
    await box.fill("needle")
    count = page.locator(".search-count")
    await expect(count).to_have_text(re.compile("[12] of 2"))
    seen = set()
    for _ in range(2):
        await page.get_by_label("Next hit").click()
        await expect(row(page, 12_002).or_(row(page, 24_004))).to_be_visible()
        seen.add(await row(page, 12_002).count())
    assert seen == {0, 1}
    await account.write(job_id, "needle 3\n")
    await expect(count).to_have_text(re.compile("[123] of 3"))
    await page.get_by_label("Upper and lower case differ").click()
    await expect(count).to_have_text(re.compile("[12] of 2"))
    await box.fill("NEEDLE & <i>")
    await expect(count).to_have_text("1 of 1")
    await page.keyboard.press("Enter")
    await expect(row(page, 12_002)).to_be_visible()
    await box.fill("line")
    await expect(count).to_have_text(re.compile(r"[0-9,]+ of 20,000\+"))
    await expect(page.locator(".search-note")).to_contain_text("stopped at 20,000 lines, at line 20,003")
    await page.get_by_label("Regular expression").click()
    await box.fill("^line (77|999)[0-9]$")
    await expect(count).to_have_text(re.compile("[0-9]+ of 20"))
    await box.fill("(")
    await expect(box).to_have_attribute("aria-invalid", "true")
    await page.keyboard.press("Escape")
    await expect(box).to_have_count(0)


async def test_an_outline_waits_for_a_search(page: Page, account: Account) -> None:
    """Both have the server read all of the log: while somebody waits for a search, no more of the outline is asked."""
    job_id = await account.job(*lines(20), "a needle\n", end=True)
    asked, outlined, found, come = list[Route](), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def begin_again(route: Route) -> None:
        asked.append(route)
        response = await route.fetch()
        await route.fulfill(response=response, json={**await response.json(), "is_whole": found.is_set()})
        outlined.set()

    async def hold(route: Route) -> None:
        await come.wait()
        await route.continue_()

    await page.route("**/outline?*", begin_again)
    await page.route("**/search?*", hold)
    await open_log(page, account, job_id)
    await outlined.wait()
    async with page.expect_request("**/search?*"):
        await page.get_by_label("Search (/)").click()
        await page.get_by_role("textbox", name="Search the whole log").fill("needle")
    # One may be on its way.
    await page.wait_for_timeout(200)
    before = len(asked)
    await page.wait_for_timeout(300)
    assert len(asked) == before
    come.set()
    await expect(page.locator(".search-count")).to_have_text("1 of 1")
    outlined.clear()
    await outlined.wait()
    found.set()
    await page.wait_for_timeout(200)


async def test_a_log_that_is_too_long_says_what_it_lacks(page: Page, account: Account) -> None:
    """While the job runs its end doesn't show, and a search and the contents say what is in it; then it does."""
    await page.clock.install()
    job_id = await account.job()
    store = account.server.cli.environment
    url, prefix = store["CI_EVENTSTORE_URL"], store["CI_EVENTSTORE_PREFIX"]
    async with RedisJobRepository.from_url(url, prefix=prefix, max_head_bytes=8) as repository:
        for text in ("one\n", "two\n", "a needle\n", "::error::it broke\n"):
            await repository.add_event(job_id, JobEvent("log", text))
        await open_log(page, account, job_id)
        await expect(page.locator(".facts")).to_contain_text("too long: its end shows when the job has ended")
        await page.get_by_label("Search (/)").click()
        await page.get_by_role("textbox", name="Search the whole log").fill("needle")
        await expect(page.locator(".search-count")).to_have_text(re.compile("0 lines"))
        note = page.locator(".search-note")
        await expect(note).to_contain_text("1 line with hits in its end so far")
        await page.get_by_label("Contents (c)").click()
        contents = page.get_by_label("Contents", exact=True)
        await page.clock.fast_forward(4100)
        await expect(contents).to_contain_text("In the end, which shows when the job has ended 1 Error: it broke")
        await repository.complete_job(job_id, True, utc_now())
    await expect(page.locator(".search-count")).to_have_text(re.compile("1 of 1"))
    await expect(note).to_have_count(0)
    await expect(page.get_by_text("a needle")).to_be_visible()
    await expect(contents).to_contain_text("Errors and warnings 1 Error: it broke")
    await expect(page.locator(".facts")).to_contain_text("too long: its middle may be left out")


async def test_buttons_copy_lines_and_their_link(page: Page, account: Account) -> None:
    """The chosen lines as text, the address that leads to them, and the whole log; each says what it did."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    job_id = await account.job("".join(f"\x1b[32mline\x1b[0m {number}\n" for number in range(1, 1201)), end=True)
    await open_log(page, account, job_id, line=3)
    await row(page, 5).get_by_role("link", name="line 5").click(modifiers=["Shift"])
    chosen = page.get_by_role("group", name="Selected lines")
    await expect(chosen).to_contain_text("Lines 3\u20135")
    # Also the one under the pointer.
    backs = [await row(page, line).evaluate("e => getComputedStyle(e).backgroundColor") for line in (4, 5, 6)]
    assert backs[0] == backs[1] != backs[2]
    notice = page.locator(".notice")
    await chosen.get_by_role("button", name="Copy text").click()
    await expect(notice).to_have_text("Copied 3 lines.")
    assert await page.evaluate("navigator.clipboard.readText()") == "line 3\nline 4\nline 5"
    await chosen.get_by_role("button", name="Copy link").click()
    await expect(notice).to_have_text("Copied the link.")
    address = await page.evaluate("navigator.clipboard.readText()")
    assert address == f"{account.server.url}/#/jobs/{job_id}?line=3-5"
    await page.get_by_label("Copy, download, replay").click()
    await page.get_by_role("button", name="Copy the log").click()
    await expect(notice).to_have_text("Copied 1,200 lines.")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines() == [f"line {number}" for number in range(1, 1201)]
    await page.evaluate("() => { navigator.clipboard.write = () => Promise.reject(new Error('not now')); }")
    await page.locator(".log-scroller").focus()
    await page.keyboard.press("Control+a")
    await page.keyboard.press("Control+c")
    await expect(notice).to_have_text("The browser let nothing into the clipboard.")
    other = await page.context.new_page()
    await other.goto(address)
    await expect(other.locator(".log-row.is-selected")).to_have_count(3)


#: Where the strip has a colour: shares of its height from the top, at some pixels from its left.
SHARES = """([name, x]) => {
  const canvas = document.querySelector(".strip canvas");
  const [r, g, b] = getComputedStyle(canvas).getPropertyValue(name).match(/\\d+/g).map(Number);
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(x, 0, 1, canvas.height);
  return [...Array(canvas.height).keys()]
    .filter(y => Math.abs(data[4 * y] - r) + Math.abs(data[4 * y + 1] - g) + Math.abs(data[4 * y + 2] - b) < 6)
    .map(y => y / canvas.height);
}"""


async def test_the_strip_shows_errors_hits_and_time(page: Page, account: Account) -> None:
    """Each where it stands in the log, and where the job's time went; a click on the strip leads there."""
    start = datetime(2030, 1, 2, tzinfo=UTC)
    marks = {1500: "::warning::careful", 3000: "::error::broken", 4500: "a needle"}
    times = [start + timedelta(milliseconds=n if n <= 4500 else 1000 * n) for n in range(1, 6001)]
    events = [JobEvent("log", f"{marks.get(n, n)}\n", timestamp=at) for n, at in enumerate(times, 1)]
    job_id = await account.job(start_time=start)
    await account.server.repository.add_events(job_id, events)
    await account.end(job_id, True)
    await open_log(page, account, job_id)

    async def shares(name: str, x: int) -> list[float]:
        return list(await wait_for(lambda: page.evaluate(SHARES, [f"--strip-{name}", x]), f"{name} on the strip"))

    await page.get_by_label("Search (/)").click()
    await page.get_by_role("textbox", name="Search the whole log").fill("needle")
    await expect(row(page, 4500)).to_be_visible()
    for name, share in {"warning": 0.25, "error": 0.5, "current": 0.75}.items():
        assert all(abs(one - share) < 0.02 for one in await shares(name, 10)), name
    slow = await shares("time", 5)
    assert min(slow) > 0.6, slow
    await page.emulate_media(color_scheme="dark")
    assert await shares("error", 10)
    strip = await box_of(page.locator(".strip canvas"))
    await page.mouse.click(strip["x"] + 7, strip["y"] + strip["height"] / 2)
    await expect(row(page, 3000)).to_be_visible()


async def test_progress_that_is_drawn_anew_is_grey_but_for_the_last(page: Page, account: Account) -> None:
    """Its lines stay, with numbers; a terminal would show the last drawing of them alone."""
    frames = [f"{up}\x1b[2K\x1b[32mlayer a {n} %\x1b[0m\n\x1b[2Klayer b {n} %\n" for n, up in ((1, ""), (9, "\x1b[2A"))]
    job_id = await account.job("pulling\n", *frames, "done\n", end=True)
    await open_log(page, account, job_id)
    await expect(page.locator(".log-row.is-overwritten")).to_have_count(2)
    strip = page.locator(".strip canvas")
    await expect(strip).to_have_attribute("title", re.compile("Where the time went isn't known"))
    for line, text in {2: "layer a 1 %", 3: "layer b 1 %"}.items():
        await expect(row(page, line)).to_have_class(re.compile("is-overwritten"))
        await expect(row(page, line)).to_contain_text(text)
    await expect(row(page, 4)).to_contain_text("layer a 9 %")


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
