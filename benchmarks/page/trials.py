"""What a person does with a long log, by the clock: open it, go to a line, scroll, and search all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from playwright.async_api import Browser

from benchmarks.page.loading import Loaded
from benchmarks.page.watching import Cost, Tab, opened_tab
from benchmarks.results import Row, Target

OPEN_SECONDS = 2.0
TASK_MS = 200
HEAP_MB = 300
NODES = 5000
#: Turns of the wheel by a screen's height, and drags of the bar to places all over the log.
TURNS = 30
DRAGS = 12
SEARCH = "Search the whole log"
SHOWS_LINES = "bench.rows().length > 0"
SUMMARY = "document.querySelector('.search-count').textContent.trim()"


@dataclass(frozen=True, slots=True)
class Round:
    """How long each thing took, in seconds, and what the tab needed."""

    opened: float
    linked: float
    progress: float
    searched: float
    cost: Cost


async def try_log(browser: Browser, server: str, loaded: Loaded) -> Round:
    """Do all of it once: from the beginning in one tab, by a link in another."""
    async with opened_tab(browser) as tab, tab.sampled():
        opened = await open_log(tab, server, loaded.job_id)
        await _scroll(tab)
        progress, searched = await _search(tab, loaded)
    cost = tab.cost
    async with opened_tab(browser) as tab, tab.sampled():
        linked = await open_log(tab, server, loaded.job_id, loaded.log.lines - 1)
    return Round(opened, linked, progress, searched, cost.at_most(tab.cost))


async def open_log(tab: Tab, server: str, job_id: str, line: int | None = None) -> float:
    """Open a job's page, and return after how many seconds a line is shown: this one, or any."""
    link = f"#/jobs/{job_id}" + (f"?line={line}" if line else "")
    await tab.page.goto(f"{server}/{link}", wait_until="commit")
    return await tab.until(shows_line(line) if line else SHOWS_LINES)


def shows_line(line: int) -> str:
    """Return the expression that is true when a line is shown, with its text."""
    return f"bench.rows().some(row => row.dataset.line === '{line}')"


async def _scroll(tab: Tab) -> None:
    """Turn the wheel, and take the bar to places all over the log, until the lines there are shown."""
    await tab.page.mouse.move(500, 500)
    await tab.page.evaluate("bench.box().focus()")
    # Where groups are folded, there are few rows.
    await tab.page.keyboard.press("z")
    await tab.until("bench.rows().length > 5")
    for turn in range(TURNS):
        await tab.page.mouse.wheel(0, 500 if turn < TURNS * 2 // 3 else -500)
        await tab.frame()
    for drag in range(DRAGS):
        share = (drag * 5 % DRAGS) / (DRAGS - 1)
        await tab.page.evaluate(f"(() => {{ const box = bench.box(); box.scrollTop = {share} * box.scrollHeight; }})()")
        await tab.frame()
        await tab.until(SHOWS_LINES)


async def _search(tab: Tab, loaded: Loaded) -> tuple[float, float]:
    """Search for the rare text; return after how long the page says something, and that it has searched everything."""
    await tab.page.keyboard.press("Control+f")
    box = tab.page.get_by_label(SEARCH)
    await box.wait_for()
    begun = await tab.now()
    await box.fill(loaded.log.rare)
    progress = await tab.until(f"/[0-9]/.test({SUMMARY})") - begun
    searched = await tab.until(f"/^1 (line|of 1)$/.test({SUMMARY})") - begun
    await box.press("Enter")
    await tab.until(shows_line(loaded.log.rare_line))
    return progress, searched


def rows_of(rounds: Sequence[Round], search_seconds: float, *, has_targets: bool = True) -> list[Row]:
    """Return the medians of rounds beside what they are to reach."""

    def row(what: str, unit: str, figures: Sequence[float], limit: float | None) -> Row:
        target = Target(limit, is_most=True) if has_targets and limit is not None else None
        return Row(what, unit, figures, target=target)

    return [
        row("first lines", "s", [one.opened for one in rounds], OPEN_SECONDS),
        row("the last line but one, by its link", "s", [one.linked for one in rounds], OPEN_SECONDS),
        row("search, first sign of progress", "s", [one.progress for one in rounds], OPEN_SECONDS),
        row("search, all lines", "s", [one.searched for one in rounds], search_seconds),
        *cost_rows([one.cost for one in rounds], has_targets=has_targets),
    ]


def cost_rows(costs: Sequence[Cost], *, has_targets: bool = True) -> list[Row]:
    """Return what a tab needed in each round, beside what it may need."""
    most = Target(TASK_MS, is_most=True), Target(HEAP_MB, is_most=True), Target(NODES, is_most=True)
    task, heap, nodes = most if has_targets else (None, None, None)
    return [
        Row("longest task", "ms", [cost.task_ms for cost in costs], target=task),
        Row("heap and DOM, at most", "MB", [cost.heap_mb for cost in costs], target=heap),
        Row("nodes, at most", "", [float(cost.nodes) for cost in costs], target=nodes),
    ]
