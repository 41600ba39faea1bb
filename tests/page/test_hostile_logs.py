"""Logs that attack their readers: nothing runs, hangs or is hidden, and the policy has nothing to forbid."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.page.browsing import IN_CHROMIUM, Account, PageServer, let_in, open_log, row, watched_context

pytestmark = IN_CHROMIUM

ESC, BEL, END = "\x1b", "\x07", "\x1b\\"
MIB = 1024 * 1024


def linked(address: str, text: str) -> str:
    """Return a text that a terminal would make a link (OSC 8)."""
    return f"{ESC}]8;;{address}{END}{text}{ESC}]8;;{END}"


#: One line each; they stand in one log.
ATTACKS = {
    "first": "a quiet line",
    "markup": "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">&lt;b&gt;<b>bold</b>",
    "event": "\" onmouseover=\"document.title='run'\" x=\"' autofocus onfocus=document.title='run' {{7*7}} ${7*7}",
    "javascript": linked("javascript:document.title='run'", "javascript"),
    "script in case": linked(" JaVaScRiPt\t:document.title='run'", "in case"),
    "data": linked("data:text/html,<script>opener.document.title='run'</script>", "data"),
    "file": linked("file:///etc/passwd", "file"),
    "vbscript": linked("vbscript:run", "vbscript"),
    "own": linked("/jobs/j/cancel", "own address"),
    "bare": "javascript:document.title='run' data:text/html,run https://example.com/a?b=1), and http://example.org.",
    "good": linked("https://example.com/right", "the docs"),
    "deceiving": linked("https://evil.example/a", "https://good.example/a"),
    "title": f"{ESC}]0;run{BEL}{ESC}]2;run{END}after the title",
    "clipboard": f"{ESC}]52;c;cnVu{BEL}after the clipboard",
    "image": f"{ESC}Pq#0;2;0;0;0#0~~@@vv{END}{ESC}]1337;File=inline=1:AAAA{BEL}{ESC}_Ga=T;AAAA{END}after the image",
    "screen": f"{ESC}[2J{ESC}[H{ESC}[10A{ESC}[?1049h{ESC}c{ESC}(B{ESC}[6nafter the screen",
    "digits": f"{ESC}[{'1' * 10_000}mafter the digits",
    "numbers": f"{ESC}[{'1;' * 5000}mafter the numbers",
    "colours": "".join(f"{ESC}[{31 + number % 6}m{number % 10}" for number in range(2500)) + f"{ESC}[0m",
    "wrong way": "access = \u202etxt.exe\u202c; \u2066if\u2069 \u200f\u061c",
    "hebrew": "שלום עולם, مرحبا",
    "invisible": "a\u200bb\ufeffc\x00d\x85e",
    "zalgo": "Z" + "\u0301\u0323\u035c" * 300 + "algo",
    "concealed": f"{ESC}[8mconcealed{ESC}[0m",
    "black on black": f"{ESC}[30;40mblack on black{ESC}[0m",
    "white on white": f"{ESC}[38;2;255;255;255;48;2;254;255;255mwhite on white{ESC}[0m",
    "grey on nothing": f"{ESC}[38;2;252;252;252mwhite{ESC}[0m {ESC}[38;2;20;20;20mblack{ESC}[0m",
    "verdict": f"{ESC}[32mJob succeeded{ESC}[0m",
    "unfinished": f"{ESC}]0;{'x' * 20_000}",
    "after": "still here",
    "end": "the end",
}
LINES = {name: number for number, name in enumerate(ATTACKS, 1)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacked(chromium: Browser, page_server: PageServer) -> AsyncIterator[Page]:
    """A page that shows all of it, so high that no line is out of sight; it may do nothing that no page may do."""
    account = await page_server.create_account()
    job_id = await account.job("".join(f"{text}\n" for text in ATTACKS.values()), end=False)
    async with watched_context(chromium, viewport={"width": 1400, "height": 1600}) as (context, watch):
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        await let_in(context, account)
        page = await watch.page(context)
        await page.goto(account.server.url)
        await page.evaluate("navigator.clipboard.writeText('untouched')")
        await open_log(page, account, job_id)
        await expect(row(page, LINES["end"])).to_contain_text("the end")
        yield page


def shown(page: Page, name: str) -> Locator:
    """Return the text of an attack, as the page shows it."""
    return row(page, LINES[name]).locator(".log-content")


async def test_markup_is_text(attacked: Page) -> None:
    """Character for character, entities too; no element of the log's making is there, and nothing has run."""
    for name in ("markup", "event"):
        await expect(shown(attacked, name)).to_have_text(ATTACKS[name])
        assert await shown(attacked, name).locator("*").count() == 0
    assert await attacked.locator("main script, main img").count() == 0
    assert "run" not in (await attacked.title()).split()


async def test_only_web_addresses_are_links(attacked: Page) -> None:
    """They open in a tab that knows nothing of the page; a text that names another host has the real one beside it."""
    for name in ("javascript", "script in case", "data", "file", "vbscript", "own"):
        assert await shown(attacked, name).locator("a").count() == 0, name
        assert await shown(attacked, name).inner_text() != ""
    links = shown(attacked, "bare").locator("a")
    found = [await link.evaluate("link => link.href") for link in await links.all()]
    assert found == ["https://example.com/a?b=1", "http://example.org/"]
    for name in ("good", "deceiving"):
        link = shown(attacked, name).locator("a")
        assert set(str(await link.get_attribute("rel")).split()) >= {"noopener", "noreferrer", "nofollow"}
        assert await link.get_attribute("target") == "_blank"
    seen = (
        await shown(attacked, "deceiving")
        .locator("a")
        .evaluate("link => link.textContent + getComputedStyle(link, '::after').content")
    )
    assert "evil.example" in seen


async def test_a_terminal_is_not_remote_controlled(attacked: Page) -> None:
    """Titles, clipboards, images and screens: the sequences go as a whole, the text after them stays."""
    for name in ("title", "clipboard", "image", "screen"):
        await expect(shown(attacked, name)).to_have_text(f"after the {name}")
    assert await attacked.evaluate("navigator.clipboard.readText()") == "untouched"
    assert "run" not in (await attacked.title()).split()
    await expect(shown(attacked, "after")).to_have_text("still here")


async def test_no_sequence_takes_long(attacked: Page) -> None:
    """Thousands of digits, numbers and colours in one line: the text is there, and few nodes are."""
    for name in ("digits", "numbers"):
        await expect(shown(attacked, name)).to_have_text(f"after the {name}")
    await expect(shown(attacked, "colours")).to_have_text("0123456789" * 250)
    assert await attacked.evaluate("document.querySelectorAll('*').length") < 5000


async def test_text_that_runs_backwards_is_shown_as_it_is(attacked: Page) -> None:
    """Marks of direction are seen, and turn nothing round; languages that run that way stay as they are."""
    await expect(shown(attacked, "wrong way").locator(".log-unseen")).to_have_count(6)
    plain = await shown(attacked, "wrong way").evaluate("e => e.textContent")
    assert not any(sign in plain for sign in "\u202e\u202c\u2066\u2069\u200f\u061c")
    await expect(shown(attacked, "hebrew")).to_have_text(ATTACKS["hebrew"])
    assert await shown(attacked, "hebrew").locator("*").count() == 0
    # Line by line: what one line says of directions ends with it.
    assert await shown(attacked, "hebrew").evaluate("e => getComputedStyle(e).unicodeBidi") in ("isolate", "plaintext")


async def test_copied_text_is_what_was_printed(attacked: Page) -> None:
    """Also where marks are shown in place of characters that have none."""
    first, last = (shown(attacked, name) for name in ("wrong way", "invisible"))
    await first.evaluate(
        """(from, to) => getSelection().setBaseAndExtent(from, 0, document.querySelector(to), 1)""",
        f'[data-line="{LINES["invisible"]}"] .log-content',
    )
    await attacked.keyboard.press("Control+C")
    copied = await attacked.evaluate("navigator.clipboard.readText()")
    await attacked.evaluate("getSelection().removeAllRanges(); navigator.clipboard.writeText('untouched')")
    assert ATTACKS["wrong way"] in copied
    assert ATTACKS["hebrew"] in copied
    assert await last.count() == 1


async def test_a_pile_of_marks_stays_in_its_line(attacked: Page) -> None:
    """The row is as high as any, and nothing is drawn outside of it."""
    boxes = [await row(attacked, LINES[name]).bounding_box() for name in ("first", "zalgo", "invisible")]
    assert len({box["height"] for box in boxes if box}) == 1
    overflows = "e => [e, ...e.querySelectorAll('*')].map(part => getComputedStyle(part).overflowY)"
    assert {"clip", "hidden"} & set(await row(attacked, LINES["zalgo"]).evaluate(overflows))


CONTRAST = """element => {
  const channels = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4,
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let ground = element;
  while (ground && (channels(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
  const back = ground ? channels(getComputedStyle(ground).backgroundColor) : [255, 255, 255];
  const [a, b] = [channels(getComputedStyle(element).color), back].map(luminance).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


async def test_no_text_is_hidden_by_its_colours(attacked: Page) -> None:
    """Concealed text, and text in the colour of its ground, can be read in both themes."""
    for theme in ("light", "dark"):
        await attacked.emulate_media(color_scheme=theme)
        for name in ("concealed", "black on black", "white on white", "grey on nothing"):
            await expect(shown(attacked, name)).to_be_visible()
            for part in await shown(attacked, name).locator("span").all():
                assert await part.evaluate(CONTRAST) >= 2, (theme, name)
    await attacked.emulate_media(color_scheme="light")


async def test_a_log_can_not_pass_for_the_page(attacked: Page) -> None:
    """What it says of the job's end stands within the log; how the job stands is shown above it."""
    await expect(attacked.get_by_text("Job succeeded")).to_have_count(1)
    log = attacked.locator(".log-view")
    await expect(log.get_by_text("Job succeeded")).to_have_count(1)
    status = attacked.locator(".status-large")
    await expect(status).to_have_text("Failed")
    assert await log.locator(".status-large").count() == 0


async def test_invisible_characters_are_seen(attacked: Page) -> None:
    """Each has a mark with its name; the text around it is as it was."""
    marks = await shown(attacked, "invisible").locator(".log-unseen").all()
    assert [await mark.get_attribute("data-code") for mark in marks][:2] == ["U+200B", "U+FEFF"]
    assert re.fullmatch("a.b.c.*d.*e", await shown(attacked, "invisible").evaluate("e => e.textContent"))


async def until_it_answers(page: Page) -> None:
    """Return when the page has drawn a frame; TimeoutError if it hangs."""
    async with asyncio.timeout(60):
        await page.evaluate("new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))")


async def test_a_line_of_ten_mebibytes(page: Page, account: Account) -> None:
    """Its beginning is drawn, how much more there is stands after it, and the rest is a click away."""
    job_id = await account.job("before\n", *["x" * MIB] * 10, "\nafter\n", end=True)
    await open_log(page, account, job_id)
    await expect(row(page, 3)).to_contain_text("after")
    await until_it_answers(page)
    assert await row(page, 2).evaluate("e => e.textContent.length") < 20_000
    more = row(page, 2).locator(".log-more")
    await expect(more).to_contain_text("more")
    await page.get_by_label("Wrap long lines (w)").click()
    await until_it_answers(page)
    assert await page.evaluate("document.querySelectorAll('*').length") < 5000


@pytest.mark.parametrize("line", ["\n", "x\n"], ids=["empty", "one byte"])
async def test_a_million_lines_of_nothing(page: Page, account: Account, line: str) -> None:
    """Beginning, end and any line between are there at once."""
    job_id = await account.job(*[line * 100_000] * 10, end=True)
    await open_log(page, account, job_id, line=999_999)
    await expect(row(page, 999_999)).to_be_visible()
    await until_it_answers(page)
    await page.goto(f"{account.server.url}/#/jobs/{job_id}?line=500000")
    await expect(row(page, 500_000)).to_be_visible()
    assert await page.evaluate("document.querySelectorAll('*').length") < 5000


async def test_a_flood(page: Page, account: Account) -> None:
    """A job that prints a hundred thousand lines while one follows it: the page answers, and shows the last one."""
    job_id = await account.job("first\n")
    await open_log(page, account, job_id)
    await expect(row(page, 1)).to_be_visible()
    for number in range(10):
        texts = [f"{number} {place}\n" * 1000 for place in range(10)]
        await account.write(job_id, *texts)
        await until_it_answers(page)
    await account.write(job_id, "the last one\n")
    await expect(row(page, 100_002)).to_contain_text("the last one")
    assert await page.evaluate("document.querySelectorAll('*').length") < 5000


async def test_groups_are_texts(page: Page, account: Account) -> None:
    """Whatever a group is called; and one that ends what never began, or never ends, hides nothing."""
    lines = ["::endgroup::", "::group::<b onclick=alert(1)>bold</b>", "inside", "::group::" + "g" * 5000, "deep"]
    lines += ["section_end:1:none\r\x1b[0K", "::error::<img src=x>", "open to the end"]
    job_id = await account.job("".join(f"{line}\n" for line in lines), end=False)
    await open_log(page, account, job_id, line=8)
    await expect(row(page, 8)).to_contain_text("open to the end")
    await expect(page.get_by_text("<b onclick=alert(1)>bold</b>").first).to_be_visible()
    assert await page.locator("main b, main img").count() == 0
