"""However a secret is spelled, split, repeated, overlapped or surrounded, no byte of it is stored or kept in a file."""

import asyncio
import base64
import contextlib
import html
import json
import os
import random
import shlex
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ci_common.errors import JobNotFoundError
from ci_common.models import JobEvent
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import LogNotStoredError
from ci_eventstore.events.caller import Call, JobCaller, Ledger
from ci_eventstore.writer.log_writer import LogWriter, WriterSettings
from ci_eventstore.writer.masking import PreparedSecrets

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"
ALPHABETS = (
    "=",
    "0a",
    "ab1",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "k\"'\\ &<%/+-_~é€😀$`!\t1",
    "x\n1",
    "\udce9\udc80z1",
)
#: What else is printed.
FILLERS = (b"\n", b" and ", b"\xff\xc3", b"=" * 70, b"a" * 90, b"\xc3", b"\r\n")
#: How a program may print a secret; what surrounds it isn't looked at.
SPELL: tuple[Callable[[str], str], ...] = (
    lambda secret: secret,
    lambda secret: base64.b64encode(as_bytes(secret)).decode().rstrip("="),
    lambda secret: base64.urlsafe_b64encode(as_bytes(secret) + b"\n").decode().rstrip("="),
    lambda secret: urllib.parse.quote(as_bytes(secret), safe=""),
    lambda secret: urllib.parse.quote_plus(as_bytes(secret)),
    lambda secret: json.dumps(secret)[1:-1],
    lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    lambda secret: shlex.quote(secret)[1:-1] if shlex.quote(secret) != secret else secret,
    html.escape,
    lambda secret: repr(secret)[1:-1],
    lambda secret: repr(as_bytes(secret))[2:-1],
)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@dataclass
class MemorySink:
    """Keeps what is stored; after some events the job is gone."""

    most: int
    stored: list[bytes] = field(default_factory=list)
    caller: JobCaller = field(default_factory=lambda: JobCaller("j", Ledger()))
    outages: Outages = field(default_factory=Outages)

    async def append(self, event: JobEvent, call: Call) -> None:
        await asyncio.sleep(0)
        if len(self.stored) >= self.most:
            raise JobNotFoundError("j")
        self.stored.append(as_bytes(event.data or ""))

    async def has_call(self, token: str, number: int) -> bool:
        return True


def random_secret(random_: random.Random) -> str:
    alphabet = random_.choice(ALPHABETS)
    length = random_.choice([4, 5, 7, 8, 12, 15, 16, 30, 60, 200, 5000 if random_.random() < 0.02 else 20])
    secret = "".join(random_.choices(alphabet, k=length))
    # What is blank at its ends is hardly a secret, and spelled in many ways.
    return secret.strip() if len(secret.strip()) >= 4 else f"<{secret}>12"


def random_output(random_: random.Random, secrets: list[str]) -> tuple[bytes, set[bytes]]:
    """Return output, and what mustn't be stored of it."""
    parts, needles = list[bytes](), set[bytes]()
    for _ in range(random_.randint(1, 6)):
        kind, secret = random_.random(), random_.choice(secrets)
        if kind < 0.6:
            printed = as_bytes(random_.choice(SPELL)(secret))
            needles |= {printed, as_bytes(secret)}
            parts.append(printed * random_.choice([1, 1, 2, 40 if len(printed) < 100 else 1]))
        elif kind < 0.75:
            parts.append(as_bytes(secret)[: random_.randint(1, len(secret))])
        elif kind < 0.85:
            # What overlaps itself.
            needles.add(as_bytes(secret))
            parts.append((as_bytes(secret)[: random_.randint(1, 9)]) * random_.randint(1, 30) + as_bytes(secret))
        else:
            parts.append(random_.choice(FILLERS))
    return b"".join(parts), needles


async def write_all(writer: LogWriter, output: bytes, random_: random.Random) -> None:
    place = 0
    while place < len(output):
        size = random_.choice([1, 3, 10, 100, 70_000])
        piece = output[place : place + size]
        await writer.write(piece if random_.random() < 0.7 else piece.decode("utf-8", "surrogateescape"))
        if random_.random() < 0.3:
            await asyncio.sleep(0)
        if random_.random() < 0.1:
            await writer.flush()
        place += size


async def check_one(random_: random.Random, folder: Path) -> int:
    """Write what has secrets in it in any way; return for how many texts the result was searched."""
    secrets = [random_secret(random_) for _ in range(random_.randint(1, 3))]
    added = [random_secret(random_) for _ in range(random_.randint(0, 2))]
    sink = MemorySink(most=random_.choice([0, 1, 3, 10**9]))
    given = PreparedSecrets(secrets) if random_.random() < 0.3 else secrets
    settings = WriterSettings(pause_seconds=0.0, rescue_directory=folder)
    writer = LogWriter("j", sink, secrets=given, settings=settings)
    first, needles = random_output(random_, secrets)
    second, more = random_output(random_, secrets + added)
    with contextlib.suppress(LogNotStoredError):
        async with writer:
            for output, new in ((first, ()), (second, added)):
                for secret in new:
                    writer.add_secret(secret)
                await write_all(writer, output, random_)
    kept = _taken_from(folder)
    for text in (b"".join(sink.stored), *kept):
        for needle in more | needles:
            if needle in text and not _is_split_over_the_seam(needle, first, second, more):
                raise AssertionError((needle, text, secrets, added, first, second))
    return len(needles | more)


def _taken_from(folder: Path) -> list[bytes]:
    kept = [path.read_bytes() for path in folder.iterdir()]
    for path in folder.iterdir():
        path.unlink()
    return kept


def _is_split_over_the_seam(needle: bytes, first: bytes, second: bytes, more: set[bytes]) -> bool:
    """Whether a secret that was added later was there before that."""
    return needle in more and needle in first + second[: len(needle) - 1]


async def check(cases: int, seed: int, folder: Path) -> None:
    random_, searched = random.Random(seed), 0
    for number in range(cases):
        searched += await check_one(random_, folder)
        if number % 100 == 0:
            await asyncio.sleep(0)
    assert searched > cases


async def test_nothing_leaks(tmp_path: Path) -> None:
    """Neither into what is stored nor into the rescue file."""
    await check(60, 11, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_nothing_leaks_in_many_cases(tmp_path: Path) -> None:
    """Nor in many more; `make soak` tries 100,000, which takes ten minutes."""
    await check(100_000 if IS_SOAK else 4_000, 2026, tmp_path)
