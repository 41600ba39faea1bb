"""Listeners share snapshots, and each gets what it lacks after one, whatever happens meanwhile."""

import asyncio

import pytest

from ci_common.models import JobStatus
from ci_eventstore.web.changes import listeners
from ci_eventstore.web.changes.listeners import Audience, ChangeMessage, Filter, Frame, Listener, Owner
from ci_eventstore.web.changes.ring import Change


def message(job_id: str, user_id: str | None = "ada", queue: str = "default") -> ChangeMessage:
    """Return a message about a running job."""
    frame = Frame(b"event: job\n", f"data: {job_id}\n\n".encode())
    return ChangeMessage(job_id, Owner(user_id, queue), JobStatus.RUNNING, Change(), frame)


class Store:
    """Reads all jobs, which takes until somebody allows it."""

    def __init__(self) -> None:
        self.reads = 0
        self.is_allowed = asyncio.Event()

    async def read(self, points: bytes) -> bytes:
        self.reads += 1
        frame = b"all %d" % self.reads
        await self.is_allowed.wait()
        return frame


def joined(audience: Audience, user_id: str | None = "ada", wanted: Filter | None = None) -> Listener:
    listener = Listener(user_id, wanted or Filter())
    audience.add(listener)
    return listener


async def test_those_who_want_the_same_share_a_snapshot() -> None:
    """It is read once; what is sent while it is read, or since, comes to each of them after it."""
    audience, store = Audience(), Store()
    audience.points = b"P"
    both = [joined(audience), joined(audience)]
    other = joined(audience, wanted=Filter(queue="slow"))
    reading = [asyncio.create_task(audience.all_jobs(listener, store.read)) for listener in (*both, other)]
    await asyncio.sleep(0)
    audience.notify(message("j"))
    audience.notify(message("x", "bob"))
    store.is_allowed.set()
    assert {await task for task in reading} == {b"all 1", b"all 2"}
    assert store.reads == 2
    late = joined(audience)
    audience.notify(message("k"))
    await audience.all_jobs(late, store.read)
    assert store.reads == 2
    for listener in (*both, late):
        assert listener.take() == b"event: job\ndata: j\n\nevent: job\nid: P\ndata: k\n\n"
    assert other.frames == {}


async def test_a_snapshot_that_a_gap_overtakes_is_read_again() -> None:
    """It may be older than what is missing."""
    audience, store = Audience(), Store()
    listener = joined(audience)
    reading = asyncio.create_task(audience.all_jobs(listener, store.read))
    await asyncio.sleep(0)
    audience.begin_again(b"Q")
    store.is_allowed.set()
    assert await reading == b"all 2"
    listener.put("j", message("j").frame, b"Q")
    audience.begin_again(b"R")
    assert (listener.needs_all, listener.frames) == (True, {})
    assert await audience.all_jobs(listener, store.read) == b"all 3"


async def test_more_than_is_kept_is_told_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the listener needs another one."""
    monkeypatch.setattr(listeners, "MESSAGES_KEPT", 3)
    audience, store = Audience(), Store()
    listener = joined(audience)
    reading = asyncio.create_task(audience.all_jobs(listener, store.read))
    await asyncio.sleep(0)
    for number in range(4):
        audience.notify(message(str(number)))
    store.is_allowed.set()
    await reading
    assert listener.needs_all


async def test_who_does_not_read_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded, and has each job once."""
    monkeypatch.setattr(listeners, "PENDING_FRAMES", 2)
    audience, everything = Audience(), Store()
    everything.is_allowed.set()
    listener = joined(audience, None)
    await audience.all_jobs(listener, everything.read)
    for job_id in "abab":
        audience.notify(message(job_id, None))
    assert list(listener.frames) == ["a", "b"]
    audience.notify(message("c", "bob"))
    assert listener.needs_all
    assert listener.frames == {}


async def test_snapshots_that_nobody_shares_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many filters clients think of."""
    monkeypatch.setattr(listeners, "SNAPSHOTS_KEPT", 3)
    audience, store = Audience(), Store()
    store.is_allowed.set()
    for number in range(5):
        await audience.all_jobs(joined(audience, wanted=Filter(queue=str(number))), store.read)
    assert len(audience._snapshots) == 3
    assert len(audience._reading) <= 1
