"""Append to a job, beside redis-py's `XADD`, which has to encode its events too."""

import asyncio

from benchmarks.results import Row, Target
from benchmarks.rounds import Lap, lap_of, take_turns
from benchmarks.scale import BATCH_EVENTS
from benchmarks.sides import Sides, new_key
from benchmarks.texts import events
from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode_event

UNIT = "events/s"


class Appending:
    """The measurements of appending, each a coroutine that runs a lap."""

    def __init__(self, sides: Sides) -> None:
        self._repository = sides.repository
        self._client = sides.client
        self._sides = sides
        self._scale = sides.scale

    async def rows(self, *, has_targets: bool) -> list[Row]:
        """Measure all: batches, many tasks, one task."""
        rounds, laps = self._scale.rounds, self._scale.laps
        batches = await take_turns(self.batches, self.pipelines, rounds, laps)
        tasks = await take_turns(self.tasks, self.awaited_xadd, rounds, laps)
        awaited = await take_turns(self.awaited, self.awaited_xadd, rounds, laps)
        return [
            _row(f"append, batches of {BATCH_EVENTS}", "XADD, pipelined", batches, 3 if has_targets else None),
            _row(f"append, {self._scale.tasks} tasks on one job", "XADD, one task", tasks, 5 if has_targets else None),
            _row("append, one task", "XADD, one task", awaited, None),
        ]

    async def batches(self) -> Lap:
        """Give `add_events` a batch, and the next one when it has returned."""
        job_id = await self._sides.new_job()
        batches = self._new_batches()
        with lap_of(len(batches) * BATCH_EVENTS) as lap:
            for batch in batches:
                await self._repository.add_events(job_id, batch)
        return lap

    async def pipelines(self) -> Lap:
        """Send a batch as one pipeline of `XADD`s."""
        key, batches = new_key(), self._new_batches()
        with lap_of(len(batches) * BATCH_EVENTS) as lap:
            for batch in batches:
                pipeline = self._client.pipeline(transaction=False)
                for event in batch:
                    pipeline.xadd(key, {"e": encode_event(event)})
                await pipeline.execute()
        return lap

    async def tasks(self) -> Lap:
        """Let many tasks append to one job, each awaiting each of its events."""
        job_id = await self._sides.new_job()
        shares = [events(self._scale.events_per_task) for _ in range(self._scale.tasks)]
        with lap_of(self._scale.tasks * self._scale.events_per_task) as lap:
            async with asyncio.TaskGroup() as group:
                for share in shares:
                    group.create_task(self._append_each(job_id, share))
        return lap

    async def awaited(self) -> Lap:
        """Let one task append, awaiting each event."""
        job_id = await self._sides.new_job()
        given = events(self._scale.awaited)
        with lap_of(len(given)) as lap:
            await self._append_each(job_id, given)
        return lap

    async def awaited_xadd(self) -> Lap:
        """Let one task send `XADD`s, awaiting each."""
        key, given = new_key(), events(self._scale.awaited)
        with lap_of(len(given)) as lap:
            for event in given:
                await self._client.xadd(key, {"e": encode_event(event)})
        return lap

    async def _append_each(self, job_id: str, given: list[JobEvent]) -> None:
        for event in given:
            await self._repository.add_event(job_id, event)

    def _new_batches(self) -> list[list[JobEvent]]:
        return [events(BATCH_EVENTS) for _ in range(self._scale.batches)]


def _row(what: str, peer: str, rates: tuple[list[float], list[float]], limit: float | None) -> Row:
    target = None if limit is None else Target(limit)
    return Row(what, UNIT, rates[0], peer, rates[1], target)
