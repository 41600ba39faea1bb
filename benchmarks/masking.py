"""Mask 1,000 secrets: how fast, beside what else finds them, what it costs a `LogWriter`, how long a call takes."""

import random
import re
import string
import time
import tracemalloc
from collections.abc import Callable

from benchmarks.results import Row, Target
from benchmarks.rounds import Lap, Side, lap_of, take_turns
from benchmarks.scale import QUICK, Scale
from benchmarks.sides import Sides
from benchmarks.texts import events
from ci_eventstore.writer.chunks import CHUNK_CHARACTERS
from ci_eventstore.writer.masking import Masker, PreparedSecrets

#: Lengths of secrets, spread evenly over the orders of magnitude between them.
SHORTEST, LONGEST = 20, 100_000
PIECES = (100, 4096, 65_536)
#: How many bytes of each secret an automaton or a regular expression looks for, without comparing the rest.
ANCHOR = 16


def make_secrets(count: int) -> list[str]:
    """Return secrets of letters and digits."""
    random_ = random.Random(count)
    alphabet = string.ascii_letters + string.digits
    return [
        "".join(random_.choices(alphabet, k=int(SHORTEST * (LONGEST / SHORTEST) ** random_.random())))
        for _ in range(count)
    ]


class Masking:
    """The measurements of a `Masker`, alone and in a `LogWriter`."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._has_targets = scale != QUICK
        self._secrets = make_secrets(scale.secrets)
        self._prepared = PreparedSecrets(self._secrets)
        self._text = "".join(event.data or "" for event in events(scale.written_lines))

    async def rows(self) -> list[Row]:
        """Measure the masker alone, beside an automaton and a regular expression that find, and do no more."""
        rows = [await self._alone_row(size) for size in PIECES]
        rows += [await self._peer_row(peer, find, text) for peer, find, text in self._peers()]
        return [*rows, self._memory_row(), self._longest_step_row()]

    async def writer_rows(self, sides: Sides) -> list[Row]:
        """Measure a `LogWriter` with the secrets beside itself without, and how long its calls take."""
        rows = []
        for size in PIECES:
            with_, without = self.writing(sides, size), self.writing(sides, size, masked=False)
            ours, theirs = await take_turns(with_, without, self._scale.rounds)
            target = Target(0.8) if self._has_targets else None
            what = f"LogWriter with {self._scale.secrets:,} secrets, pieces of {size:,} bytes"
            rows.append(Row(what, "MB/s", ours, "without", theirs, target))
        target = Target(20, is_most=True) if self._has_targets else None
        calls = await self._longest_calls(sides)
        return [*rows, Row("LogWriter, longest call of write or add_secret", "ms", calls, target=target)]

    def alone(self, size: int) -> Side:
        """Return a side that masks as a writer does: it joins pieces, and masks chunks."""

        async def side() -> Lap:
            masker, joined, length = Masker(self._prepared), list[str](), 0
            with lap_of(len(self._text)) as lap:
                for start in range(0, len(self._text), size):
                    joined.append(self._text[start : start + size])
                    length += size
                    if length >= CHUNK_CHARACTERS:
                        masker.mask("".join(joined))
                        joined, length = [], 0
                masker.mask("".join(joined))
                masker.finish()
            return _megabytes(lap)

        return side

    async def _alone_row(self, size: int) -> Row:
        side = self.alone(size)
        rates, _ = await take_turns(side, side, self._scale.rounds)
        target = Target(50) if self._has_targets else None
        return Row(f"mask {self._scale.secrets:,} secrets, pieces of {size:,} bytes", "MB/s", rates, target=target)

    async def _peer_row(self, peer: str, find: Callable[[str], object], text: str) -> Row:
        chunks = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]

        async def ours() -> Lap:
            masker = Masker(self._prepared)
            with lap_of(len(text)) as lap:
                for chunk in chunks:
                    masker.mask(chunk)
            return _megabytes(lap)

        async def theirs() -> Lap:
            with lap_of(len(text)) as lap:
                for chunk in chunks:
                    find(chunk)
            return _megabytes(lap)

        rates = await take_turns(ours, theirs, max(1, self._scale.rounds // 3))
        return Row(f"mask {self._scale.secrets:,} secrets, whole chunks", "MB/s", rates[0], peer, rates[1])

    def _peers(self) -> list[tuple[str, Callable[[str], object], str]]:
        anchors = [secret[:ANCHOR] for secret in self._secrets]
        expression = re.compile("|".join(map(re.escape, anchors)))
        found: list[tuple[str, Callable[[str], object], str]] = [
            # A thousandth of the speed takes its time.
            ("re, finds 16 bytes", expression.findall, self._text[: len(self._text) // 100])
        ]
        try:
            from ahocorasick_rs import BytesAhoCorasick
        except ImportError:
            return found
        automaton = BytesAhoCorasick([anchor.encode() for anchor in anchors])

        def find(text: str) -> object:
            return automaton.find_matches_as_indexes(text.encode())

        return [("ahocorasick-rs, finds 16 bytes", find, self._text), *found]

    def _memory_row(self) -> Row:
        tracemalloc.start()
        try:
            kept = PreparedSecrets(self._secrets)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not kept.index.is_empty
        total = sum(map(len, self._secrets)) / 1e6
        return Row(f"memory of {self._scale.secrets:,} secrets, {total:.1f} MB", "MB", [size / 1e6])

    def _longest_step_row(self) -> Row:
        """Measure how long the event loop waits while a large secret is prepared beside the others."""
        steps = list[float]()
        for number in range(self._scale.rounds):
            masker = Masker(self._prepared)
            masker.add("".join(random.Random(number).choices(string.printable, k=LONGEST)))
            began = time.perf_counter()
            for _ in masker.prepare():
                steps.append((time.perf_counter() - began) * 1000)
                began = time.perf_counter()
        target = Target(20, is_most=True) if self._has_targets else None
        return Row(f"add a secret of {LONGEST // 1000} kB, longest step", "ms", [max(steps)], target=target)

    def writing(self, sides: Sides, size: int, *, masked: bool = True) -> Side:
        """Return a side that writes the text in pieces through a `LogWriter`, with the secrets or without any."""
        raw, secrets = self._text.encode(), self._prepared if masked else ()

        async def side() -> Lap:
            job_id = await sides.new_job()
            with lap_of(len(raw)) as lap:
                async with sides.repository.log_writer(job_id, secrets=secrets) as writer:
                    for start in range(0, len(raw), size):
                        await writer.write(raw[start : start + size])
            return _megabytes(lap)

        return side

    async def _longest_calls(self, sides: Sides) -> list[float]:
        """Return for each round how long the longest call took, with what else the event loop did within it."""
        raw, longest = self._text.encode(), list[float]()
        for number in range(self._scale.rounds):
            large, calls = "".join(random.Random(number).choices(string.printable, k=LONGEST)), list[float]()
            async with sides.repository.log_writer(await sides.new_job(), secrets=self._prepared) as writer:
                began = time.perf_counter()
                writer.add_secret(large)
                for start in range(0, len(raw), PIECES[0]):
                    calls.append(time.perf_counter() - began)
                    began = time.perf_counter()
                    await writer.write(raw[start : start + PIECES[0]])
            longest.append(max(calls) * 1000)
        return longest


def _megabytes(lap: Lap) -> Lap:
    """Return a lap of bytes with megabytes for count."""
    return Lap(lap.count / 1e6, lap.seconds)
