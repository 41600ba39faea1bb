"""Every write, at every point where the network can fail: its effect is there once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest

from ci_common.models import APIKey, Job, JobEvent, User
from ci_eventstore.accounts.store import CREATE_RECORD, UPDATE_RECORD
from ci_eventstore.connection import node
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.events.append import APPEND, APPEND_LOGS
from ci_eventstore.jobs.create import CREATE
from ci_eventstore.repository import RedisJobRepository
from tests.deployments.homes import Home
from tests.fault_proxy import Fault, FaultProxy, at

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Write = Callable[[RedisJobRepository], Awaitable[None]]
SLOW = [pytest.mark.slow]


def log(data: str) -> JobEvent:
    return JobEvent("log", data, timestamp=NOW)


KEY = APIKey(id="k2", user_id="ada", key_hash="hash-2", created_at=NOW)
WRITES: dict[str, Write] = {
    "create_user": lambda r: r.create_user(User(id="bob", name="B", email="b@x.org", created_at=NOW)),
    "update_user_active": lambda r: r.update_user_active("ada", False),
    "create_api_key": lambda r: r.create_api_key(KEY),
    "revoke_api_key": lambda r: r.revoke_api_key("k1"),
    "update_api_key_last_used": lambda r: r.update_api_key_last_used("k1", NOW),
    "create_job": lambda r: r.create_job(Job(id="new", status="queued", created_at=NOW, events=[log("a")])),
    "create_job, waiting": lambda r: r.create_job(Job(id="new", status="queued", created_at=NOW, user_id="ada")),
    "add_event": lambda r: r.add_event("job", log("b\n")),
    "add_events": lambda r: r.add_events("job", [log("b\n"), log("c\n")]),
    "add_events, several calls": lambda r: r.add_events("job", [log(f"{n}\n") for n in range(2500)]),
    "add_event complete": lambda r: r.add_event("job", JobEvent("complete", success=True, timestamp=NOW)),
    "update_job_status": lambda r: r.update_job_status("job", "failed"),
    "complete_job": lambda r: r.complete_job("job", True, NOW),
    "cancel_job": lambda r: r.cancel_job("job", "why"),
}


@pytest.fixture
async def proxy(valkey: Home, impatient: None) -> AsyncIterator[FaultProxy]:
    async with valkey.proxy() as opened:
        yield opened


@pytest.fixture
async def behind_proxy(
    server: Nodes, proxy: FaultProxy, repository: RedisJobRepository
) -> AsyncIterator[RedisJobRepository]:
    """A repository that talks through the proxy, with a user, a key and a running job of a few events."""
    await repository.create_user(User(id="ada", name="A", email="a@x.org", created_at=NOW))
    await repository.create_api_key(APIKey(id="k1", user_id="ada", key_hash="hash-1", created_at=NOW))
    await repository.create_job(Job(id="job", status="running", created_at=NOW, events=[log("a\n")]))
    for script in (APPEND, APPEND_LOGS, CREATE, CREATE_RECORD, UPDATE_RECORD):
        # A ghost whose script isn't known to the server would do nothing for that reason alone.
        await server.read("SCRIPT", "LOAD", script.source)
    async with RedisJobRepository.from_url(proxy.url) as opened:
        await opened.add_event("job", log("first\n"))
        yield opened


async def content(repository: RedisJobRepository) -> object:
    """Return everything that a user can read of the store, but for the times that it gave itself."""
    jobs = [await repository.get_job(job.id) for job in await repository.list_jobs()]
    seen = [
        (job.id, job.status, job.success, [(event.id, event.type, event.data, event.success) for event in job.events])
        for job in jobs
        if job is not None
    ]
    return seen, await repository.list_users(), await repository.list_api_keys()


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_one_fault_is_not_noticed(
    valkey: Home, repository: RedisJobRepository, behind_proxy: RedisJobRepository, proxy: FaultProxy,
    write: Write, fault: Fault,
) -> None:  # fmt: skip
    """Wherever the network fails once, the call succeeds, and what it does is there once, also when a ghost arrives."""
    proxy.plan = at(fault, b"EVALSHA")
    await write(behind_proxy)
    assert proxy.faults == 1
    after = await content(repository)
    await proxy.delivered()
    assert await content(repository) == after
    proxy.plan = lambda command: None
    await repository.create_job(Job(id="other", status="queued"))
    valkey.empty()
    await repository.initialize()
    await behind_proxy_without_faults(repository)
    await write(repository)
    assert await content(repository) == after


async def behind_proxy_without_faults(repository: RedisJobRepository) -> None:
    """Bring an emptied store to where `behind_proxy` begins."""
    await repository.create_user(User(id="ada", name="A", email="a@x.org", created_at=NOW))
    await repository.create_api_key(APIKey(id="k1", user_id="ada", key_hash="hash-1", created_at=NOW))
    await repository.create_job(Job(id="job", status="running", created_at=NOW, events=[log("a\n"), log("first\n")]))


#: Each write waits until it gives up: one fault of each is for `make test`, another one for the next write.
LASTING = [
    pytest.param(write, fault, id=f"{name}-{fault.value}", marks=() if (place + turn) % len(Fault) == 0 else SLOW)
    for place, (name, write) in enumerate(WRITES.items())
    for turn, fault in enumerate(Fault)
]


@pytest.mark.parametrize(("write", "fault"), LASTING)
async def test_a_lasting_fault_is_told(
    repository: RedisJobRepository, behind_proxy: RedisJobRepository, proxy: FaultProxy, write: Write, fault: Fault
) -> None:
    """Without any answer the outcome is unknown: the effect is there at most once, and doesn't come later."""
    before = await content(repository)
    proxy.plan = at(fault, b"EVALSHA", times=1000)
    with pytest.raises((OutcomeUnknownError, StoreUnavailableError)):
        await write(behind_proxy)
    at_failure = await content(repository)
    data = [event.data for event in await repository.get_events_since("job", 0)]
    assert len(data) == len(set(data))
    if fault in (Fault.CUT_BEFORE, Fault.HALF_OPEN, Fault.LATE):
        assert at_failure == before
    await proxy.delivered()
    assert await content(repository) == at_failure
    proxy.plan = lambda command: None
    await behind_proxy.add_event("job", log("next\n"))


async def test_a_call_that_took_effect_is_not_refused_when_its_deadline_passes(
    repository: RedisJobRepository, behind_proxy: RedisJobRepository, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try lost its answer, the third came too late, then the server is away: the outcome is unknown."""
    # The deadline is taken from this, and has passed at the third try.
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.05)
    faults = iter([Fault.CUT_AFTER, Fault.CUT_BEFORE])

    def plan(command: Sequence[bytes]) -> Fault | None:
        monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.6)
        if command[0] == b"TIME":
            return Fault.CUT_BEFORE
        return next(faults, None) if command[0] == b"EVALSHA" else None

    proxy.plan = plan
    with pytest.raises(OutcomeUnknownError):
        await behind_proxy.add_event("job", log("once\n"))
    assert [event.data for event in await repository.get_events_since("job", 0)] == ["a\n", "first\n", "once\n"]
