"""A log that outgrows its budget keeps its beginning and its end, and says what is left out."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore import RedisJobRepository
from ci_eventstore.connection.scripts import Script
from ci_eventstore.errors import LateOutputError
from ci_eventstore.events import append
from ci_eventstore.events.append import LATE_BYTES, RING_BYTES
from ci_eventstore.events.records import FactType
from ci_eventstore.following.records import Followed
from tests.contract.deployments import SERVERS, MakeRepository, new_prefix
from tests.examples import slow
from tests.waiting import wait_until

HEAD_BYTES = 10_000
MARKER = re.compile(r"\n\[(\d+) bytes in (\d+) lines are left out here\]\n")
TOO_LATE = "\n[more was written after the job had ended: it is left out here]\n"

Scale = Callable[[int], int]
End = Callable[[RedisJobRepository], Awaitable[None]]
ENDS: dict[str, End] = {
    "complete": lambda repository: repository.complete_job("j", True, utc_now()),
    "cancel": lambda repository: repository.cancel_job("j", "enough"),
    "fail": lambda repository: repository.update_job_status("j", "failed"),
    "event": lambda repository: repository.add_event("j", JobEvent("complete", success=False)),
    "events": lambda repository: repository.add_events("j", [*lines(3), JobEvent("complete", success=True)]),
}


@pytest.fixture(params=SERVERS)
def make(request: pytest.FixtureRequest) -> MakeRepository:
    made: MakeRepository = request.getfixturevalue(request.param)
    return made


@pytest.fixture(params=[1 / 16, slow(1)], ids=["small", "full size"])
def scale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Scale:
    """What scales a number for the ring and the late output of this test; `fakeredis` is slow with megabytes."""
    share: float = request.param
    monkeypatch.setattr(append, "APPEND", with_limits(append.APPEND, int(RING_BYTES * share), int(LATE_BYTES * share)))
    return lambda number: int(number * share)


def with_limits(script: Script, ring_bytes: int, late_bytes: int) -> Script:
    """Return the script with other limits than those that it is loaded with."""
    source = script.source
    for old, new in [(f"RING_BYTES = {RING_BYTES}\n", ring_bytes), (f"LATE_BYTES = {LATE_BYTES}\n", late_bytes)]:
        assert source.count(old) == 1
        source = source.replace(old, f"{old.partition(' ')[0]} = {new}\n")
    return Script(script.name, lambda: source, script.names)


@pytest.fixture
async def limited(make: MakeRepository, scale: Scale) -> AsyncIterator[RedisJobRepository]:
    """A repository whose logs have a small head, with a running job `j`."""
    opened = make(new_prefix(), max_head_bytes=HEAD_BYTES)
    assert isinstance(opened, RedisJobRepository)
    async with opened:
        await opened.create_job(Job(id="j", status="running"))
        yield opened
        assert await opened.verify() == []


def lines(count: int, start: int = 0) -> list[JobEvent]:
    return [JobEvent("log", f"line {number:074d}\n") for number in range(start, start + count)]


def text_of(events: Sequence[JobEvent]) -> str:
    return "".join(event.data or "" for event in events if event.type == "log")


async def follow(repository: RedisJobRepository) -> list[Followed]:
    async with aclosing(repository.follow_records("j")) as records:
        return [record async for record in records]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_beginning_and_end_are_kept(limited: RedisJobRepository, scale: Scale, end: End) -> None:
    """However the job ends; the marker says exactly what is missing, and positions have no holes."""
    written, step = lines(scale(20_000)), scale(700)
    follower = asyncio.create_task(follow(limited))
    for start in range(0, len(written), step):
        await limited.add_events("j", written[start : start + step])
    await limited.add_event("j", JobEvent("log", "the last words\n"))
    assert text_of(await limited.get_events_since("j", 0)) == text_of(written[: HEAD_BYTES // 80])
    await end(limited)
    events = await limited.get_events_since("j", 0)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    before, lost_bytes, lost_lines, after = MARKER.split(text_of(events))
    own, words, more = after.partition("the last words\n")
    everything = text_of(written)
    assert words
    assert everything.startswith(before)
    assert everything.endswith(own)
    assert len(before) == HEAD_BYTES
    assert scale(RING_BYTES) / 3 < len(own) < scale(RING_BYTES)
    assert int(lost_bytes) == len(everything) - len(before) - len(own)
    assert int(lost_lines) == int(lost_bytes) / 80
    assert more == (
        text_of(lines(3)) if end is ENDS["events"] else "[cancelled: enough]\n" if end is ENDS["cancel"] else ""
    )
    records = await follower
    assert [record for record in records if isinstance(record, JobEvent)] == events
    assert [type_ for type_ in (str(record.type) for record in records) if type_ != "log"] == [
        "created",
        "truncating",
        *(["failed"] if end is ENDS["fail"] else ["cancelled"] if end is ENDS["cancel"] else []),
        *(["end_time_set"] if end is ENDS["complete"] else []),
        "complete",
    ]


async def test_a_log_that_fits_into_head_and_ring_is_whole(limited: RedisJobRepository, scale: Scale) -> None:
    """Nothing is left out, so nothing says so."""
    written = lines(scale(3000))
    await limited.add_events("j", written)
    assert len(await limited.get_events_since("j", 0)) == HEAD_BYTES // 80
    await limited.complete_job("j", True, utc_now())
    assert text_of(await limited.get_events_since("j", 0)) == text_of(written)


async def test_an_event_bigger_than_the_budget_is_kept_as_the_end(limited: RedisJobRepository, scale: Scale) -> None:
    """The ring always has the last event, whatever its size."""
    noise = secrets.token_hex(scale(4_000_000))
    await limited.add_event("j", JobEvent("log", noise))
    await limited.complete_job("j", True, utc_now())
    assert text_of(await limited.get_events_since("j", 0)) == noise


async def test_a_job_created_with_a_big_log_keeps_both_ends(limited: RedisJobRepository, scale: Scale) -> None:
    """A creation has the same budget, ended or not."""
    written = lines(scale(20_000))
    for job_id, status in [("running", "running"), ("done", "completed")]:
        await limited.create_job(Job(id=job_id, status=status, events=written))
        if status == "running":
            assert len(await limited.get_events_since(job_id, 0)) == HEAD_BYTES // 80
            await limited.complete_job(job_id, True, utc_now())
        before, _, _, after = MARKER.split(text_of(await limited.get_events_since(job_id, 0)))
        assert text_of(written).startswith(before)
        assert text_of(written).endswith(after)


@pytest.mark.parametrize("was_truncated", [False, True])
async def test_late_output_has_a_budget_of_its_own(
    limited: RedisJobRepository, scale: Scale, was_truncated: bool
) -> None:
    """What fits is stored; what doesn't is refused, and the log says so once."""
    await limited.add_events("j", lines(scale(20_000) if was_truncated else 10))
    await limited.complete_job("j", True, utc_now())
    position = len(await limited.get_events_since("j", 0))
    late = lines(scale(LATE_BYTES) // 80)
    await limited.add_events("j", late[:-1])
    await limited.add_event("j", late[-1])
    for _ in range(2):
        with pytest.raises(LateOutputError):
            await limited.add_events("j", lines(2))
    assert text_of(await limited.get_events_since("j", position)) == text_of(late) + TOO_LATE


async def test_a_follower_behind_the_head_waits_for_the_end(limited: RedisJobRepository, scale: Scale) -> None:
    """Whoever joins while lines are kept back is told so, and gets the end with it."""
    count = scale(3000)
    await limited.add_events("j", lines(count))
    seen: list[Followed] = []

    async def watch() -> None:
        async with aclosing(limited.follow_records("j", HEAD_BYTES // 80)) as records:
            async for record in records:
                seen.append(record)  # noqa: PERF401 - it is looked at meanwhile

    watcher = asyncio.create_task(watch())
    await wait_until(lambda: len(seen) == 1)
    assert [str(record.type) for record in seen] == [FactType.TRUNCATING]
    await limited.complete_job("j", True, utc_now())
    await watcher
    assert text_of([record for record in seen if isinstance(record, JobEvent)]) == text_of(lines(count - 125, 125))
