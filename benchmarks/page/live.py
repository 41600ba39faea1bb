"""A running job that prints thousands of lines a second, watched at its end and elsewhere."""

import asyncio
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser

from benchmarks.page.trials import cost_rows, open_log, shows_line
from benchmarks.page.watching import Cost, Tab, opened_tab
from benchmarks.results import Row, Target

LOOK_SECONDS = 0.5
LAG_SECONDS = 2.0
#: The line's text begins with the time at which it was printed.
_LAG = """(() => {
  const times = bench.rows().map(row => Number(row.textContent.match(/1[0-9]{12}/)?.[0] ?? 0));
  return Date.now() - Math.max(...times);
})()"""


@dataclass
class Watched:
    """How late the last line was on the screen, look by look, and what the tab needed."""

    lags: list[float] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class LiveJob:
    """Where a job is run and seen, and how much it prints."""

    url: str
    server: str
    rate: int
    seconds: int


async def watch(browser: Browser, job: LiveJob, *, is_following: bool) -> Watched:
    """Watch a job from its first lines to its end: following, or at its beginning, which has to stay there."""
    watched, job_id = Watched(), f"live-{secrets.token_hex(4)}"
    async with _produced(job, job_id) as process, opened_tab(browser) as tab, tab.sampled():
        await open_log(tab, job.server, job_id)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        await tab.until("bench.rows().length > 20")
        if not is_following:
            await _go_up(tab)
        while process.returncode is None:
            if is_following:
                watched.lags.append(await tab.page.evaluate(_LAG) / 1000)
            else:
                await tab.until(shows_line(1))
            await asyncio.sleep(LOOK_SECONDS)
        if not is_following:
            await tab.page.evaluate("bench.box().focus()")
            await tab.page.keyboard.press("End")
        await tab.until(shows_line(1 + job.rate * job.seconds))
    watched.cost = tab.cost
    return watched


async def _go_up(tab: Tab) -> None:
    """Leave the end, as somebody does who wants to read."""
    await tab.page.mouse.move(500, 500)
    await tab.page.mouse.wheel(0, -500)
    await tab.page.evaluate("bench.box().focus()")
    await tab.page.keyboard.press("Home")
    await tab.until(shows_line(1))


@asynccontextmanager
async def _produced(job: LiveJob, job_id: str) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "benchmarks.page.produce", job.url, job_id, str(job.rate), str(job.seconds)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    waiting = asyncio.create_task(process.wait())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await waiting


def rows_of(followed: Sequence[Watched], left: Sequence[Watched], *, has_targets: bool = True) -> list[Row]:
    """Return what both ways of watching cost."""
    lag = Target(LAG_SECONDS, is_most=True) if has_targets else None
    lags = [sorted(one.lags) for one in followed]
    return [
        Row("following: the last line's age on the screen, median", "s", [one[len(one) // 2] for one in lags]),
        Row("following: p95", "s", [one[int(len(one) * 0.95)] for one in lags], target=lag),
        *_named("following", cost_rows([one.cost for one in followed], has_targets=has_targets)),
        *_named("at the beginning", cost_rows([one.cost for one in left], has_targets=has_targets)),
    ]


def _named(name: str, rows: Sequence[Row]) -> list[Row]:
    return [Row(f"{name}: {row.what}", row.unit, row.ours, target=row.target) for row in rows]
