"""Write logs through a `LogWriter`: how many lines a second, and what memory they take beside their text."""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.memory import used_memory
from benchmarks.results import Row, Target
from benchmarks.rounds import Lap, Side, lap_of, take_turns
from benchmarks.scale import Pace
from benchmarks.sides import Sides
from benchmarks.texts import events, generated_lines, real_lines
from ci_eventstore.writer.log_writer import WriterSettings

#: How long a writer gathers text; the benchmark's clock runs faster by its pace's factor.
PAUSE_SECONDS = WriterSettings().pause_seconds


class LogWriting:
    """The measurements of a `LogWriter`."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._lines = [event.data or "" for event in events(sides.scale.written_lines)]

    async def speed_rows(self, *, has_targets: bool) -> list[Row]:
        """Measure writing as fast as it goes: lines one by one, with and without a secret, and as a pipe gives them."""
        target = Target(500_000) if has_targets else None
        rounds = self._sides.scale.rounds
        plain, masked = await take_turns(self.line_by_line(()), self.line_by_line(("s3cr3t-token",)), rounds)
        pieces, _ = await take_turns(self.pieces, self.pieces, max(1, rounds // 3))
        name = "LogWriter, flat out, lines of 80 bytes"
        return [
            Row(f"{name}, one by one", "lines/s", plain, target=target),
            Row(f"{name}, one by one, a secret", "lines/s", masked),
            Row(f"{name}, 64 KiB at a time", "lines/s", pieces),
        ]

    async def memory_rows(self) -> list[Row]:
        """Measure what the server's memory grows by, at each pace, for a real log and a generated one."""
        count = self._sides.scale.measured_lines
        logs = {"generated": generated_lines(count), "unittest -v": real_lines(count)}
        return [
            await self._memory_row(text, [f"{line}\n" for line in lines], pace)
            for text, lines in logs.items()
            for pace in self._sides.scale.paces
        ]

    def line_by_line(self, secrets: Sequence[str]) -> Side:
        """Return a side that writes line after line."""

        async def side() -> Lap:
            job_id = await self._sides.new_job()
            with lap_of(len(self._lines)) as lap:
                async with self._sides.repository.log_writer(job_id, secrets=secrets) as writer:
                    for line in self._lines:
                        await writer.write(line)
            return lap

        return side

    async def pieces(self) -> Lap:
        """Write 64 KiB at a time."""
        job_id, raw = await self._sides.new_job(), "".join(self._lines).encode()
        with lap_of(len(self._lines)) as lap:
            async with self._sides.repository.log_writer(job_id) as writer:
                for start in range(0, len(raw), 65536):
                    await writer.write(raw[start : start + 65536])
        return lap

    async def _memory_row(self, text: str, lines: Sequence[str], pace: Pace) -> Row:
        lines = lines[: pace.lines]
        job_id = await self._sides.new_job()
        before = await used_memory(self._sides)
        await self._write_at(pace, job_id, lines)
        grown = await used_memory(self._sides) - before
        rate = "flat out" if pace.lines_per_second is None else f"{pace.lines_per_second:,} lines/s"
        share = grown / sum(len(line.encode()) for line in lines)
        target = Target(0.35, is_most=True) if pace.has_target else None
        return Row(f"LogWriter, memory, {text}, {rate}", "x its text", [share], target=target)

    async def _write_at(self, pace: Pace, job_id: str, lines: Sequence[str]) -> None:
        """Write lines at a pace, in a time that passes `pace.factor` times faster."""
        settings = WriterSettings(pause_seconds=PAUSE_SECONDS / pace.factor)
        async with self._sides.repository.log_writer(job_id, settings=settings) as writer:
            started = time.perf_counter()
            for number, line in enumerate(lines):
                if pace.lines_per_second is not None:
                    due = started + number / (pace.lines_per_second * pace.factor)
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await writer.write(line)
