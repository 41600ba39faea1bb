"""Measure each log in each form, then live ones."""

import asyncio
from dataclasses import dataclass

from playwright.async_api import Browser, async_playwright

from benchmarks.page import live, trials
from benchmarks.page.loading import load
from benchmarks.page.logs import Log, generated_log, real_log
from benchmarks.page.serving import answer_rows, serving
from benchmarks.results import Report, Section
from benchmarks.run import machine_setting
from benchmarks.servers import FILE_SETTINGS, running, server_binaries
from tests.needs import find_chromium
from tests.page.browsing import started_browser

NOTES = """\
Each figure is the median of all rounds, each in a new tab. A log is opened, scrolled by the wheel and by the bar, and
searched for a text that stands in one line near its end. The longest task, the heap with the DOM (V8's, the embedder's
and buffers, looked at four times a second, before any collection) and the nodes of the document are the most that was
seen meanwhile."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    real_lines: int
    generated_lines: int
    rounds: int
    live_rate: int
    live_seconds: int
    live_rounds: int

    @property
    def is_full(self) -> bool:
        """Whether the figures mean something."""
        return self.rounds > 1


FULL = Scale(1_000_000, 10_000_000, rounds=3, live_rate=5000, live_seconds=60, live_rounds=3)
QUICK = Scale(0, 20_000, rounds=1, live_rate=5000, live_seconds=2, live_rounds=1)
#: How long a search of the whole log may take, by the log's form; ten million lines have longer.
SEARCH_SECONDS = {"written": 2.0, "sealed": 2.0, "events": 6.0}
LONG_SECONDS = 20.0


async def run(scale: Scale) -> Report:
    """Measure everything on one store after the other, so that none is in another's way."""
    setting = {
        **machine_setting("playwright", "uvicorn", "redis"),
        "Rounds": str(scale.rounds) if scale.is_full else "one, and so short that the figures say nothing",
    }
    sections = []
    async with async_playwright() as playwright, started_browser(playwright) as browser:
        setting["Browser"] = f"Chromium {browser.version}, {find_chromium()}"
        if scale.real_lines:
            log = real_log(scale.real_lines)
            sections += [await log_section(browser, log, form, scale) for form in SEARCH_SECONDS]
        generated = generated_log(scale.generated_lines)
        sections.append(await log_section(browser, generated, "written", scale))
        sections.append(await _live_section(browser, scale))
    return Report(setting, sections)


async def log_section(browser: Browser, log: Log, form: str, scale: Scale) -> Section:
    """Load a log into a new store, and look at it."""
    limit = SEARCH_SECONDS[form] if log.lines <= FULL.real_lines else LONG_SECONDS
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url:
        loaded = await asyncio.to_thread(load, url, log, form)
        with serving(url) as server:
            answers = await asyncio.to_thread(answer_rows, server, loaded, limit if scale.is_full else None)
            rounds = [await trials.try_log(browser, server, loaded) for _ in range(scale.rounds)]
    return Section(loaded.title, [*answers, *trials.rows_of(rounds, limit, has_targets=scale.is_full)])


async def _live_section(browser: Browser, scale: Scale) -> Section:
    rate, seconds = scale.live_rate, scale.live_seconds
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url, serving(url) as server:
        job = live.LiveJob(url, server, rate, seconds)
        followed = [await live.watch(browser, job, is_following=True) for _ in range(scale.live_rounds)]
        left = [await live.watch(browser, job, is_following=False) for _ in range(scale.live_rounds)]
    title = f"live, {rate:,} lines a second for {seconds} seconds"
    return Section(title, live.rows_of(followed, left, has_targets=scale.is_full))
