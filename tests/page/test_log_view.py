"""The view of a log in Chromium, over logs that no server has: ten million lines, hostile ones, folded ones, live."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.page.browsing import IN_CHROMIUM, PageServer, wait_for

pytestmark = IN_CHROMIUM

FAKE = Path(__file__).with_name("fake_log.js").read_text()
TEN_MILLION = 10_000_000

Show = Callable[[int], Awaitable[Page]]


@pytest.fixture
def context_options() -> dict[str, object]:
    """What is copied can be read again."""
    return {"permissions": ["clipboard-read", "clipboard-write"]}


@pytest.fixture
def show(browser_page: Page, page_server: PageServer) -> Show:
    """Show a log of so many lines, under the page's own policy."""

    async def shown(total: int) -> Page:
        await browser_page.goto(page_server.url)
        # The page itself is done, and won't look for what is taken from it now.
        await browser_page.get_by_label("API key").wait_for()
        base = await browser_page.evaluate("new URL('..', document.querySelector('script[type=module]').src).href")
        function = FAKE[FAKE.index("async (") :].rstrip().rstrip(";")
        await browser_page.evaluate(f"([base, total]) => ({function})(base, total)", [base, total])
        await until(browser_page, "fake.textIn(1) === 'line 1'")
        return browser_page

    return shown


async def until(page: Page, condition: str) -> None:
    """Wait until an expression is true in the page."""
    await wait_for(lambda: page.evaluate(condition), condition)


async def go_to(page: Page, line: int) -> None:
    """Put a line at the top, and wait for its text."""
    await page.evaluate("line => fake.view.scrollToLine(line, {align: 'start'})", line)
    await until(page, f"fake.first() === {line} && fake.textIn({line}) !== ''")


async def test_every_one_of_ten_million_lines_is_reached(show: Show) -> None:
    """Keys reach both ends, dragging the middle, links any line, and steps are pixels everywhere."""
    page = await show(TEN_MILLION)
    await page.focus(".log-scroller")
    await page.keyboard.press("End")
    await until(page, f"fake.textIn({TEN_MILLION})?.endsWith('{TEN_MILLION}')")
    assert await page.evaluate(f"fake.row({TEN_MILLION}).getBoundingClientRect().bottom <= innerHeight")
    await page.keyboard.press("Home")
    await until(page, "fake.first() === 1")
    await page.evaluate("fake.box.scrollTop = fake.box.scrollHeight / 2")
    await until(page, f"Math.abs(fake.first() - {TEN_MILLION // 2}) < 2000")
    await go_to(page, 999_999)
    assert await page.evaluate("fake.box.scrollHeight") <= 8_000_000
    await page.evaluate("fake.box.scrollTop += 100")
    await until(page, "fake.first() === 1_000_004")
    assert await page.evaluate("document.querySelectorAll('*').length") < 1000
    assert await page.evaluate("fake.box.querySelector('[role=table]').ariaRowCount") == str(TEN_MILLION)
    assert await page.evaluate("fake.row(1_000_004).ariaRowIndex") == "1000004"


async def test_wrapped_lines_move_by_pixels(show: Show) -> None:
    """Whatever their heights turn out to be, what is on the screen moves as far as one scrolls, up and down."""
    page = await show(TEN_MILLION)
    await page.evaluate("fake.view.setOptions({wrap: true})")
    # In the middle of what is fetched at once: what comes later has other heights.
    await go_to(page, 5_000_250)
    for step in [-60, -60, -60, 40, -60, -200, 300, -500]:
        line = await page.evaluate("fake.first() + 3")
        before = await page.evaluate("line => fake.topOf(line)", line)
        await page.evaluate("step => { fake.box.scrollTop += step; }", step)
        place = f"fake.topOf({line})"
        await until(page, f"{place} === null || Math.abs({place} - {before} + {step}) < 1.5")
    await page.focus(".log-scroller")
    await page.keyboard.press("End")
    await until(page, f"Math.abs(fake.row({TEN_MILLION})?.getBoundingClientRect().bottom - 780) < 1.5")


async def test_a_step_in_the_moment_the_scroll_bar_comes_to_rest_counts(show: Show) -> None:
    """After a pause the bar is put where the place is; what was scrolled since the last frame isn't taken back."""
    page = await show(TEN_MILLION)
    await go_to(page, 5_000_000)
    for step in range(1, 6):
        # A timer as long as the view's, and set right before it, is done right before it.
        await page.evaluate("""
            () => {
              const again = () => setTimeout(() => { fake.box.scrollTop += 100; }, 150);
              fake.box.addEventListener("scroll", again, {capture: true, once: true});
              fake.box.scrollTop += 100;
            }
        """)
        await until(page, f"fake.first() === 5_000_000 + {step} * 10")


async def test_the_scroll_bar_is_put_right_by_steps(show: Show) -> None:
    """At rest, and while lines come: for a place that is set, Firefox forgets what somebody scrolls in that moment."""
    page = await show(1000)
    await page.evaluate("""
        () => {
          window.places = [];
          const { get, set } = Object.getOwnPropertyDescriptor(Element.prototype, "scrollTop");
          const noted = function (top) { places.push(top); set.call(this, top); };
          Object.defineProperty(fake.box, "scrollTop", { get, set: noted });
          fake.view.follow(true);
          for (let n = 0; n < 1000; n += 1) fake.write(`live ${n}\\n`);
        }
    """)
    await until(page, "fake.textIn(2000) === 'live 999'")
    await page.evaluate("fake.write('and more\\n'.repeat(999_000))")
    await until(page, "fake.box.scrollHeight === 8_000_000")
    await page.mouse.move(600, 400)
    await page.mouse.wheel(0, -1000)
    await until(page, "!fake.view.isFollowing")
    top = await page.evaluate("fake.view.scrollToLine(500_000); places.length = 0; fake.box.scrollTop")
    await page.mouse.wheel(0, 1000)
    await until(page, f"Math.abs(fake.box.scrollTop - {top} - 400) < 20")
    assert await page.evaluate("places") == []


async def test_a_view_follows_while_its_end_is_seen(show: Show) -> None:
    """Scrolling up lets go, nothing moves then, new lines are counted, and the end follows again."""
    page = await show(1000)
    await page.evaluate("fake.view.follow(true)")
    await page.evaluate("() => { for (let n = 0; n < 5000; n += 1) fake.write(`live ${n}\\n`); }")
    await until(page, "fake.textIn(6000) === 'live 4999'")
    end = await page.evaluate("fake.first()")
    await page.evaluate("fake.box.scrollTop -= 300")
    await until(page, f"fake.first() === {end} - 15")
    await until(page, "fake.heard.some(([name, {isFollowing}]) => name === 'followchange' && isFollowing === false)")
    await page.evaluate("() => { for (let n = 0; n < 700; n += 1) fake.write(`more ${n}\\n`); }")
    await until(page, "fake.heard.some(([name, {count}]) => name === 'newlines' && count === 700)")
    assert await page.evaluate("fake.first()") == end - 15
    await page.focus(".log-scroller")
    await page.keyboard.press("End")
    await until(page, "fake.textIn(6700) === 'more 699' && fake.view.isFollowing")


async def test_a_selection_is_copied_over_any_distance(show: Show) -> None:
    """It is the lines' text, whatever has left the page, with every character that is shown as a mark."""
    page = await show(5000)
    await page.evaluate("fake.special.set(1102, 'a \\u202eb\\u001b[31mc\\u001b[0m')")
    await go_to(page, 1100)
    await until(page, "fake.textIn(1101) === 'line 1101'")
    x, y = await page.evaluate("fake.startOf(1101)")
    await page.mouse.click(x + 1, y + 8)
    await go_to(page, 3100)
    await until(page, "fake.textIn(1101) === null && fake.textIn(3104) === 'line 3104'")
    x, y = await page.evaluate("fake.startOf(3104)")
    await page.keyboard.down("Shift")
    await page.mouse.click(x + 500, y + 8)
    await page.keyboard.up("Shift")
    await page.keyboard.press("Control+c")
    await until(page, "fake.heard.some(([name, {lines}]) => name === 'copied' && lines === 2004)")
    copied = (await page.evaluate("navigator.clipboard.readText()")).split("\n")
    assert copied[:3] == ["line 1101", "a \u202ebc", "line 1103"]
    assert copied[-1] == "line 3104"
    assert len(copied) == 2004


async def test_hostile_lines_are_text_and_little_of_it(show: Show) -> None:
    """Markup stays text, scripts aren't links, directions are marks, ten megabytes are sixteen kilobytes and a link."""
    page = await show(1000)
    hostile = {
        2: "<img src=x onerror=alert(1)><script>alert(1)</script>&lt;",
        3: "\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07 \x1b]8;;https://evil.example/\x07https://good.example\x1b]8;;\x07",
        4: "\u202eevil\u202c\u200b \x1b[8mhidden\x1b[0m \x1b[31;41msame\x1b[0m",
        6: "z" + "\u0301" * 16_000,
        7: "".join(f"\x1b[3{n % 8}m{n % 10}" for n in range(2700)),
    }
    for line, text in hostile.items():
        await page.evaluate("([line, text]) => fake.special.set(line, text)", [line, text])
    await page.evaluate("() => { fake.special.set(5, 'x'.repeat(10_000_000)); }")
    await page.evaluate(
        "() => { fake.store.reset(); fake.store.setTotals({lines: 1000, isOpen: false, position: 2}); }"
    )
    await until(page, "fake.textIn(7)?.length === 2700")
    assert await page.evaluate("fake.textIn(2)") == hostile[2]
    assert await page.evaluate("[...fake.row(3).querySelectorAll('.log-content a')].map(a => [a.href, a.rel])") == [
        ["https://evil.example/", "noopener noreferrer nofollow"]
    ]
    assert await page.evaluate("fake.row(3).querySelector('.log-content a').dataset.host") == "evil.example"
    marks = "[...fake.row(4).querySelectorAll('.log-unseen')].map(mark => mark.dataset.code)"
    assert await page.evaluate(marks) == ["U+202E", "U+202C", "U+200B"]
    assert "hidden" in await page.evaluate("fake.textIn(4)")
    assert await page.evaluate("fake.textIn(5).length") == 16384
    assert await page.evaluate("fake.row(5).querySelector('.log-more').href.endsWith('#text-5')")
    assert await page.evaluate("Math.round(fake.row(6).getBoundingClientRect().height)") == 20
    assert await page.evaluate("fake.row(7).querySelectorAll('.log-content span').length") <= 2000
    assert await page.evaluate("document.querySelectorAll('*').length") < 5000


async def test_folds_hits_and_chosen_lines_are_shown(show: Show) -> None:
    """Groups' lines are indented, not copied so, and hidden until gone to; hits are highlighted, numbers picked."""
    page = await show(1000)
    group = {"depth": 0, "is_open": False, "t": None, "seconds": 1.5}
    groups = [{"line": 3, "end": 12, "title": "<b>Build\u202e</b>", **group}]
    groups += [{"line": 5, "end": 7, "title": "in it", **group, "depth": 1}]
    answer = {"groups": groups, "marks": [], "index": [], "total": 1000, "position": 1}
    await page.evaluate("answer => fake.outline.update(answer)", answer)
    await until(page, "fake.textIn(3) === '<b>Build◇</b>'")
    lefts = [(await page.evaluate("n => fake.startOf(n)", line))[0] for line in (2, 4, 6, 8, 13)]
    outside, inside = lefts[0], lefts[1]
    assert lefts == pytest.approx([outside, inside, 2 * inside - outside, inside, outside], abs=0.1)
    assert inside > outside + 10
    await page.focus(".log-scroller")
    await page.keyboard.press("Control+a")
    await page.keyboard.press("Control+c")
    await until(page, "fake.heard.some(([name, {lines}]) => name === 'copied' && lines === 1000)")
    copied = (await page.evaluate("navigator.clipboard.readText()")).split("\n")
    assert copied[:8] == [f"line {n}" for n in range(1, 9)]
    await page.evaluate("getSelection().empty()")
    await page.click('[data-line="3"] .log-fold')
    await until(page, "fake.row(4) === null && fake.row(13) !== null")
    await page.evaluate(
        "fake.view.setHits({hits: new Map([[9, [[0, 4]]], [15, [[0, 4]]]]), current: {line: 9, index: 0}})"
    )
    await page.evaluate("fake.view.scrollToLine(9)")
    await until(page, "fake.row(9) !== null")
    await until(page, "CSS.highlights.get('log-hit').size === 1 && CSS.highlights.get('log-hit-current').size === 1")
    current = "[...CSS.highlights.get('log-hit-current')].map(String)"
    assert await page.evaluate(current) == ["line"]
    toggles = await page.evaluate("fake.heard.filter(([name]) => name === 'foldtoggle').map(([, one]) => one.isFolded)")
    assert toggles == [True, False]
    await page.click('[data-line="5"] .log-number', modifiers=["Shift"])
    assert await page.evaluate("fake.heard.at(-1)") == ["linepick", {"line": 5, "isRange": True}]
    await page.evaluate("fake.view.setSelection({from: 5, to: 7})")
    await until(page, "fake.row(7).classList.contains('is-selected') && !fake.row(8).classList.contains('is-selected')")


async def test_browsers_without_highlights_get_elements(browser_page: Page, show: Show) -> None:
    """Hits are marked over several colours, the current one apart, and leave no trace when the search ends."""
    await browser_page.add_init_script("delete window.Highlight")
    page = await show(100)
    await page.evaluate(
        "fake.view.setHits({hits: new Map([[10, [[0, 4], [5, 5000]]]]), current: {line: 10, index: 1}})"
    )
    marks = "[...fake.row(10).querySelectorAll('mark')].map(mark => [mark.className, mark.textContent])"
    await until(page, "fake.row(10).querySelectorAll('mark').length === 3")
    first, *others = await page.evaluate(marks)
    assert first == ["log-hit", "word"]
    assert {name for name, _ in others} == {"log-hit is-current"}
    whole = await page.evaluate("fake.textIn(10)")
    assert "".join(text for _, text in others) == whole[5:]
    await page.evaluate("fake.view.setHits(null)")
    await until(page, "document.querySelectorAll('mark').length === 0")
    assert await page.evaluate("fake.textIn(10)") == whole


async def test_a_screen_reader_gets_plain_lines(show: Show) -> None:
    """Five hundred at a time, none of them live; the next ones come by a button, and reading goes on there."""
    page = await show(1200)
    await page.evaluate("fake.view.setOptions({isScreenReader: true})")
    await until(page, "document.querySelectorAll('.log-plain-line').length === 500")
    assert await page.evaluate("document.querySelectorAll('.log-plain [aria-live], .log-plain [role=log]').length") == 0
    await page.get_by_role("button", name="500 lines after").click()
    await until(page, "document.activeElement.textContent === '501: line 501'")
    await page.evaluate("fake.view.scrollToLine(1111, {flash: true})")
    await until(page, "document.activeElement.textContent === '1111: line 1111'")
