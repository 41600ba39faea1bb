"""The page for everybody: keys, a screen reader, a phone, and what axe finds in both themes."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.page.browsing import IN_CHROMIUM, Account, lines, open_log, row
from tests.page.test_reading import BUILD

pytestmark = IN_CHROMIUM
ROOT = Path(__file__).parents[2]


async def axe(page: Page) -> list[str]:
    """Return what axe finds serious or critical on the page as it is."""
    await page.evaluate((ROOT / "node_modules/axe-core/axe.min.js").read_text())
    found: dict[str, Any] = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']} {[node['html'][:200] for node in violation['nodes'][:5]]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.needs("axe-core")
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(page: Page, account: Account, theme: str) -> None:
    """On the login, the list, a log with colours and groups, its search and contents, and a dialog."""
    colours = "".join(
        f"\x1b[{code}mcolour {code}\x1b[0m\n" for code in [*range(30, 38), *range(90, 98), *range(40, 48)]
    )
    job_id = await account.job(BUILD, colours, end=False, command=["make"])
    for end in (True, False, None):
        await account.job("a\n", end=end, command=["make", "test"])
    await account.job(status="queued", start_time=None, command=["make"])
    await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    found = {}
    await page.goto(account.server.url)
    await expect(page.locator("ul.jobs > li")).to_have_count(5)
    found["list"] = await axe(page)
    await open_log(page, account, job_id)
    await page.get_by_label("Fold or open all groups (z)").click()
    found["log"] = await axe(page)
    await page.get_by_label("Contents (c)").click()
    await page.get_by_label("Search (/)").click()
    await page.get_by_role("textbox", name="Search the whole log").fill("colour")
    await expect(page.locator(".search-count")).to_contain_text("24")
    found["search"] = await axe(page)
    await page.get_by_label("Keys and accessibility").click()
    await page.get_by_text("Screen reader mode").click()
    found["screen reader"] = await axe(page)
    await page.get_by_text("List of keys").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    found["dialog"] = await axe(page)
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    found["login"] = await axe(page)
    assert {where: what for where, what in found.items() if what} == {}


async def fold_by_keys(page: Page) -> None:
    """Fold groups from inside of them, outwards, and open them; the reader is at the error, and all is folded then."""
    tests, log_row = row(page, 12).locator(".log-fold"), row(page, 13)
    await page.keyboard.press("x")
    await expect(tests).to_have_attribute("aria-expanded", "false")
    await expect(page.get_by_role("status")).to_contain_text("Folded: group tests")
    await expect(log_row).to_have_count(0)
    await page.keyboard.press("Enter")
    await expect(tests).to_have_attribute("aria-expanded", "true")
    await expect(log_row).to_be_visible()
    await page.keyboard.press("z")
    await page.keyboard.press("z")
    await page.keyboard.press("g")
    await page.get_by_role("textbox").fill("14")
    await page.keyboard.press("Enter")
    await expect(row(page, 14)).to_have_class(re.compile("is-selected"))
    await page.keyboard.press("x")
    await expect(log_row.locator(".log-fold")).to_have_attribute("aria-expanded", "false")
    await page.keyboard.press("x")
    await expect(tests).to_have_attribute("aria-expanded", "false")
    await page.keyboard.press("x")
    await expect(page.locator(".notice")).to_have_text("There is no group around this line.")
    # A button that was clicked keeps the keyboard, though its row is drawn anew.
    await tests.click()
    await expect(tests).to_have_attribute("aria-expanded", "true")
    await expect(tests).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("z")
    await expect(tests).to_have_attribute("aria-expanded", "false")
    await page.locator(".log-scroller").focus()


async def test_a_keyboard_is_enough(page: Page, account: Account) -> None:
    """Tab leads from the list to a log; letters act there, and nowhere else; they can be turned off."""
    await account.job(BUILD, *lines(300), end=False, name="by keys")
    await page.goto(account.server.url)
    link = page.get_by_role("link", name=re.compile("by keys"))
    await expect(link).to_be_visible()
    for _ in range(20):
        await page.keyboard.press("Tab")
        if await link.evaluate("e => e === document.activeElement"):
            break
    await page.keyboard.press("Enter")
    await expect(row(page, 17)).to_be_visible()
    log = page.locator(".log-host [tabindex='0']").first
    for _ in range(30):
        await page.keyboard.press("Tab")
        if await log.evaluate("e => e === document.activeElement"):
            break
    else:
        pytest.fail("no Tab leads to the log")
    await page.keyboard.press("End")
    await expect(row(page, 319)).to_be_in_viewport()
    await page.keyboard.press("Home")
    await expect(row(page, 1)).to_be_in_viewport()
    await page.keyboard.press("e")
    await expect(page.get_by_role("status")).to_contain_text("error, line 17")
    await fold_by_keys(page)
    await page.keyboard.press("c")
    contents = page.get_by_label("Contents", exact=True)
    await expect(contents.get_by_role("button", name="test_c: 1 != 2")).to_be_focused()
    await expect(row(page, 3)).to_have_count(0)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(row(page, 3)).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(contents).to_be_hidden()
    await expect(log).to_be_focused()
    await page.keyboard.press("w")
    await expect(page.get_by_label("Wrap long lines (w)")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("/")
    box = page.get_by_role("textbox", name="Search the whole log")
    await expect(box).to_be_focused()
    await page.keyboard.type("new")
    await expect(box).to_have_value("new")
    await expect(page.get_by_label("Wrap long lines (w)")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("Next error or warning")
    await page.keyboard.press("Escape")
    await page.get_by_label("Keys and accessibility").click()
    await page.get_by_text("Keys of single letters").click()
    await page.keyboard.press("Escape")
    await log.focus()
    await page.keyboard.press("w")
    await expect(page.get_by_label("Wrap long lines (w)")).to_have_attribute("aria-pressed", "true")


async def test_a_screen_reader_reads_lines(page: Page, account: Account) -> None:
    """In its mode lines are plain text with numbers, and stay where they are; that there are new ones is told."""
    job_id = await account.job(*lines(1200))
    await open_log(page, account, job_id)
    await page.get_by_label("Keys and accessibility").click()
    await page.get_by_text("Screen reader mode").click()
    await page.keyboard.press("Escape")
    plain = page.get_by_label("Log, as plain lines")
    await expect(plain).to_contain_text("line 1200")
    await plain.get_by_role("button", name="lines before").click()
    await expect(plain).to_contain_text("line 600")
    snapshot = await plain.aria_snapshot()
    assert "line 600" in snapshot
    assert await plain.locator("[aria-live], [role=log]").count() == 0
    await account.write(job_id, "line 1201\n")
    await expect(page.get_by_role("status")).to_contain_text("new line")
    await expect(plain).to_contain_text("line 600")
    await account.end(job_id, False)
    await expect(page.get_by_role("status")).to_contain_text("Failed")


class TestOnAPhone:
    """A screen as wide as a hand."""

    @pytest.fixture
    def context_options(self) -> dict[str, object]:
        return {"viewport": {"width": 390, "height": 664}, "has_touch": True, "is_mobile": True}

    async def test_list_and_log_fit(self, page: Page, account: Account) -> None:
        """Nothing but the log's own lines goes over the edge; fingers open, search and follow."""
        long = "a long line that goes on and on " * 20
        job_id = await account.job(f"{long}\n", BUILD, *lines(300), name="a job with quite a long name, as they are")
        await page.goto(account.server.url)
        await page.get_by_role("link", name=re.compile("quite a long name")).tap()
        await expect(row(page, 320)).to_be_visible()
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert await page.evaluate(fits)
        await page.get_by_label("Keys and accessibility").tap()
        await page.get_by_text("List of keys").tap()
        await expect(page.get_by_role("dialog").get_by_role("heading", name="Keys")).to_be_in_viewport(ratio=1)
        await page.get_by_role("dialog").get_by_role("button", name="Close").tap()
        await page.get_by_label("Search (/)").tap()
        await page.get_by_role("textbox", name="Search the whole log").fill("test_b")
        await page.get_by_label("Next hit").tap()
        await expect(row(page, 16)).to_be_visible()
        assert await page.evaluate(fits)
        await page.get_by_label("Follow the end (f)").tap()
        await account.write(job_id, "the newest\n")
        await expect(page.get_by_text("the newest")).to_be_in_viewport()
        for button in await page.locator("button:visible, summary:visible").all():
            box = await button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 24, await button.evaluate("e => e.outerHTML")
