"""The page's own files are loaded in Chromium, and what no page may do fails a test."""

from playwright.async_api import Browser, Page

from tests.page.browsing import IN_CHROMIUM, PageServer, Watch, wait_for, watched_context

pytestmark = IN_CHROMIUM

#: What a page may not do, and what is then noted of it.
FORBIDDEN = {
    "console.error('oh')": "error: oh",
    "setTimeout(() => { throw new RangeError('far') })": "RangeError: far",
    "document.body.innerHTML = '<b>b</b>'": "require-trusted-types-for",
    "document.createElement('script').text = 'a'": "require-trusted-types-for",
    "trustedTypes.createPolicy('loose', {})": "trusted-types",
    "document.body.setAttribute('style', 'color: red')": "style-src",
    "document.body.append(Object.assign(document.createElement('img'), {src: 'http://localhost:1/a'}))": "img-src",
    "fetch('http://localhost:1/').catch(() => 0)": "connect-src",
    "import(new URL('assets/0/js/none.js', document.baseURI)).catch(() => 0)": "404 for",
}


async def test_the_page_opens(browser_page: Page, page_server: PageServer) -> None:
    """Everything is there that it loads, and its policy lets it."""
    answer = await browser_page.goto(page_server.url)
    assert answer is not None
    assert answer.status == 200
    assert await browser_page.title() != ""
    assert await browser_page.evaluate("document.querySelector('script[type=module]').src") != ""


async def test_what_no_page_may_do_is_noticed(chromium: Browser, page_server: PageServer) -> None:
    """Errors, and whatever the policy forbids."""
    async with watched_context(chromium) as (context, _):
        for script, said in FORBIDDEN.items():
            watch = Watch()
            page = await watch.page(context)
            await page.goto(page_server.url)
            await page.evaluate(f"try {{ {script} }} catch {{ }}")

            async def is_noted(faults: list[str] = watch.faults, said: str = said) -> bool:
                return any(said in fault for fault in faults)

            await wait_for(is_noted, f"a fault of {script!r}")
            await page.close()
