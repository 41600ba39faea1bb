"""A fleet of controller processes on one store, to be killed, stopped and continued, and what they said they did."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from ci_common.errors import InvalidTransitionError
from ci_common.models import Job
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.events.records import Record
from ci_eventstore.repository import RedisJobRepository
from tests.claim_history import ClaimHistory, check_claims, read_journals
from tests.integration.store.chaos_controller_program import Order
from tests.records import records_of
from tests.waiting import wait_until

PROGRAM = Path(__file__).with_name("chaos_controller_program.py")
ROOT = Path(__file__).parents[3]
#: Behind every record.
#: How long a controller may take to end when it is asked to.
STOP_SECONDS = 60.0


class Controllers:
    """Controller processes; one that is killed is followed by another one, of a new name."""

    def __init__(self, order: Order, folder: Path) -> None:
        #: Names of those that were killed or stopped for a while.
        self.lost: set[str] = set()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._order = order
        self._folder = folder
        self._started = 0

    def start(self) -> str:
        """Start one."""
        self._started += 1
        name = f"c{self._started}"
        order = replace(self._order, name=name, journal=str(self._folder / f"{name}.jsonl"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(self._folder)}
        with (self._folder / f"{name}.err").open("wb") as errors:
            self.running[name] = subprocess.Popen(
                [sys.executable, PROGRAM, json.dumps(asdict(order))],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stderr=errors,
            )
        return name

    def kill(self, name: str) -> None:
        """End one at once."""
        self.lost.add(name)
        process = self.running.pop(name)
        process.kill()
        process.communicate()

    def suspend(self, name: str) -> None:
        """Let one stand still."""
        self.lost.add(name)
        self.running[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on: a zombie, if it stood still for too long."""
        self.running[name].send_signal(signal.SIGCONT)

    async def stop(self) -> list[str]:
        """Ask all to end, and return what was wrong with that."""
        for name, process in self.running.items():
            # One that was just started would be killed by the signal.
            journal = self._folder / f"{name}.jsonl"
            await wait_until(lambda journal=journal, process=process: journal.exists() or process.poll() is not None)  # type: ignore[misc]
            process.send_signal(signal.SIGTERM)
        found = []
        for name, process in self.running.items():
            try:
                code = await asyncio.to_thread(process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            if code != 0:
                found.append(f"{name} ended with {code}: {(self._folder / f'{name}.err').read_text()[-1500:]}")
        return found

    def histories(self) -> dict[str, ClaimHistory]:
        """Return what all of them have written down, by job."""
        journals = [path.read_text().splitlines(keepends=True) for path in sorted(self._folder.glob("*.jsonl"))]
        return read_journals(journals)


class Jobs:
    """The jobs that the controllers are given."""

    def __init__(self, repository: RedisJobRepository) -> None:
        self.repository = repository
        self.ids: list[str] = []

    async def submit(self, count: int) -> None:
        """Create jobs of several users, most of them of one."""
        for _ in range(count):
            number = len(self.ids)
            user_id = ("ann", "ann", "ann", "bob", "cid", None)[number % 6]
            self.ids.append(f"j{number:04}")
            await self.repository.create_job(Job(id=self.ids[-1], status="queued", user_id=user_id))

    async def ended(self) -> int:
        """Return how many have ended."""
        listings = [await self.repository.page_jobs(None, status, 10_000) for status in ("completed", "failed")]
        return sum(map(len, listings)) + len(await self.repository.page_jobs(None, "cancelled", 10_000))

    async def progress(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many more have ended, or all; TimeoutError says how many hadn't."""
        wanted = min(await self.ended() + count, len(self.ids))
        try:
            async with asyncio.timeout(seconds):
                while await self.ended() < wanted:  # noqa: ASYNC110 - other processes end them
                    await asyncio.sleep(0.05)
        except TimeoutError:
            left = [job.id for job in await self.repository.page_jobs(None, "running", 10_000)]
            waiting = len(await self.repository.page_jobs(None, "queued", 10_000))
            raise TimeoutError(f"{await self.ended()} of {wanted} have ended, {waiting} wait, {left} run") from None

    async def cancel(self, job_id: str) -> None:
        """Cancel a job if it hasn't ended, whether that is told or not."""
        job = await self.repository.get_job_summary(job_id)
        if job is not None and job.end_time is None:
            # It may end meanwhile.
            with suppress(OutcomeUnknownError, StoreUnavailableError, InvalidTransitionError):
                await self.repository.cancel_job(job_id)

    async def records(self, job_id: str) -> list[Record]:
        """Return everything in a job's stream."""
        keys = self.repository._keys.job(job_id)
        return [record for _, record in await records_of(self.repository.engine.reader.source, keys)]

    async def findings(self, controllers: Controllers, *, pauses_only: bool = False) -> list[str]:
        """Return what is wrong with the jobs, now that all controllers have stopped.

        With `pauses_only`, a job must not have been taken from a controller that wasn't lost.
        """
        histories = controllers.histories()
        found = [str(difference) for difference in await self.repository.verify()]
        for job_id in self.ids:
            history = histories.pop(job_id, ClaimHistory())
            lost = controllers.lost if pauses_only else None
            found += [f"{job_id}: {one}" for one in check_claims(history, await self.records(job_id), lost)]
        return found + [f"{job_id}: nobody submitted it" for job_id in histories]


@asynccontextmanager
async def open_fleet(
    count: int, order: Order, folder: Path, observer_url: str
) -> AsyncIterator[tuple[Controllers, Jobs]]:
    """Start controllers, and kill what is left of them in the end."""
    controllers = Controllers(order, folder)
    try:
        async with RedisJobRepository.from_url(observer_url) as observer:
            for _ in range(count):
                controllers.start()
            yield controllers, Jobs(observer)
    finally:
        for name in list(controllers.running):
            controllers.kill(name)
