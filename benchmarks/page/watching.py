"""A tab of Chromium whose tasks, memory and nodes are measured while something is done in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, CDPSession, Page

SAMPLE_SECONDS = 0.25
#: Runs before the page's own code: notes tasks of more than 50 ms, finds rows that are on the screen, waits for what is
#: drawn.
_WATCH = """
window.bench = {tasks: []};
new PerformanceObserver(list => {
  for (const task of list.getEntries()) bench.tasks.push(task.duration);
}).observe({type: "longtask", buffered: true});
bench.box = () => document.querySelector(".log-scroller");
bench.rows = () => {
  const box = bench.box();
  if (!box) return [];
  const {top, bottom} = box.getBoundingClientRect();
  return [...box.querySelectorAll(".log-row:not(.is-missing)")].filter(row => {
    const place = row.getBoundingClientRect();
    return place.bottom > top + 1 && place.top < bottom - 1;
  });
};
bench.until = (find, seconds) => new Promise((resolve, reject) => {
  const late = performance.now() + seconds * 1000;
  const look = () => {
    const found = find();
    if (found) resolve(performance.now());
    else if (performance.now() > late) reject(new Error(`not within ${seconds} s: ${find}`));
    else requestAnimationFrame(look);
  };
  look();
});
"""


@dataclass
class Cost:
    """What a tab has needed at most."""

    #: Of one task, in milliseconds.
    task_ms: float = 0.0
    #: JavaScript's heap, what belongs to it outside, and the document, as the debugger counts them.
    heap_mb: float = 0.0
    #: Of the document, text too.
    nodes: int = 0

    def at_most(self, other: "Cost") -> "Cost":
        """Return the greater of each two figures."""
        return Cost(max(self.task_ms, other.task_ms), max(self.heap_mb, other.heap_mb), max(self.nodes, other.nodes))


@dataclass
class Tab:
    """A tab, and the debugger that looks into it."""

    page: Page
    debugger: CDPSession
    cost: Cost = field(default_factory=Cost)

    async def until(self, find: str, seconds: float = 60.0) -> float:
        """Wait until an expression is true after a frame; return when, in seconds since the document's beginning."""
        milliseconds: float = await self.page.evaluate(f"bench.until(() => ({find}), {seconds})")
        return milliseconds / 1000

    async def frame(self) -> None:
        """Wait until a frame was drawn."""
        await self.page.evaluate("new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))")

    async def now(self) -> float:
        """Return the document's clock."""
        milliseconds: float = await self.page.evaluate("performance.now()")
        return milliseconds / 1000

    async def sample(self) -> None:
        """See what the tab needs now."""
        heap = await self.debugger.send("Runtime.getHeapUsage")
        used = sum(heap.get(part, 0.0) for part in ("usedSize", "embedderHeapUsedSize", "backingStorageSize"))
        nodes: int = await self.page.evaluate(
            """() => {
              const walk = document.createNodeIterator(document);
              let count = 0;
              while (walk.nextNode()) count++;
              return count;
            }"""
        )
        tasks: list[float] = await self.page.evaluate("bench.tasks.splice(0)")
        self.cost = self.cost.at_most(Cost(max(tasks, default=0.0), used / 1e6, nodes))

    @asynccontextmanager
    async def sampled(self) -> AsyncIterator[None]:
        """Look again and again while this lasts."""
        sampler = asyncio.create_task(self._sample_always())
        try:
            yield
        finally:
            sampler.cancel()
            with suppress(asyncio.CancelledError):
                await sampler
        await self.sample()

    async def _sample_always(self) -> None:
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_SECONDS)


@asynccontextmanager
async def opened_tab(browser: Browser) -> AsyncIterator[Tab]:
    """Open a tab of a person who has never been here."""
    options: Any = {"viewport": {"width": 1280, "height": 800}}
    context = await browser.new_context(**options)
    try:
        await context.add_init_script(_WATCH)
        page = await context.new_page()
        yield Tab(page, await context.new_cdp_session(page))
    finally:
        await context.close()
