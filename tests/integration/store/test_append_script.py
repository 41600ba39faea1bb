"""`append.lua` beside the Python rules: outcomes, numbering, counters, index, listings."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_common.errors import ConflictError, JobAlreadyExistsError, JobNotFoundError
from ci_common.models import Job, JobEvent, JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text_map
from ci_eventstore.errors import AcknowledgedEventsLostError, LateOutputError, ProjectionMissingError
from ci_eventstore.events.append import LATE_BYTES, append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import Batch, encode_batches, encode_logs, encode_records
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.reader import EventReader
from ci_eventstore.events.records import Fact, FactType, Record
from ci_eventstore.jobs.decide import AppendEvents, Cancel, Command, Complete, UpdateStatus, decide, decide_creation
from ci_eventstore.jobs.evolve import evolve_all
from ci_eventstore.jobs.state import JobState, from_hash
from ci_eventstore.jobs.store import plan_change
from ci_eventstore.keys import JobKeys, Keys
from ci_eventstore.projection.jobs import JobProjections
from tests.examples import examples
from tests.records import records_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: What the log of an ended job says where it takes no more.
TOO_LATE = "\n[more was written after the job had ended: it is left out here]\n"


def log(data: str) -> JobEvent:
    return JobEvent("log", data, timestamp=NOW)


def complete(success: bool, *, explicit: bool) -> Complete:
    return Complete(JobEvent("complete", success=success, timestamp=NOW + timedelta(seconds=1)), explicit)


COMMANDS: list[Command] = [
    *(
        UpdateStatus(status, start_time, container)
        for status in JobStatus
        for start_time, container in [(None, None), (NOW, "c")]
    ),
    *(complete(success, explicit=explicit) for success in (True, False) for explicit in (True, False)),
    Cancel("[cancelled]\n"),
    AppendEvents((log("a\nb"), log(""))),
    AppendEvents((log("x\n"), JobEvent("complete", success=True, timestamp=NOW), log("late\n"))),
]
ENDINGS = [("queued", None), ("completed", True), ("completed", None), ("failed", None), ("cancelled", False)]
CREATIONS = [
    Job(id="j", status=status, user_id=user, success=success, created_at=NOW, command=["a", "ü b"])
    for status, success in ENDINGS
    for user in (None, "u")
]
texts = st.sampled_from(["", "a", "line\n", "ü\n" * 3, "\udcff\0\n", "x" * 700_000 + "\n", "y\n" * 600_000])
logs = st.lists(texts, min_size=1, max_size=4).map(lambda data: AppendEvents(tuple(map(log, data))))
many = st.integers(300, 1100).map(lambda count: AppendEvents((log("n\n"),) * count))


class Twin:
    """One job, once on the server and once as the Python rules say."""

    def __init__(self, server: Nodes, keys: JobKeys) -> None:
        self.server = server
        self.keys = keys
        self.state: JobState | None = None

    async def append(self, records: list[Record]) -> None:
        """Append on both sides: logs as a writer does, everything else as a command does."""
        logs = [record for record in records if isinstance(record, JobEvent) and record.type == "log"]
        if logs == records and self.state:
            for batch in encode_batches(logs):
                if not await self.is_too_late(batch):
                    assert await append(self.server, self.keys, batch, call=Call(secrets.token_hex(8)))
                    self.state = evolve_all(self.state, logs[: len(batch.payloads)])
                logs = logs[len(batch.payloads) :]
            return
        if not await self.is_too_late(encode_records(records)):
            change, call = plan_change(self.keys, self.state, records), Call(secrets.token_hex(8))
            assert await append(self.server, self.keys, encode_records(records), call=call, change=change)
            self.state = evolve_all(self.state, records)

    async def is_too_late(self, batch: Batch) -> bool:
        """Tell whether the job has ended and takes no more, and let it be told so once."""
        state = self.state
        if state is None or state.end_bytes is None or state.end_position is None or not batch.bytes:
            return False
        if state.bytes - state.end_bytes + batch.bytes <= LATE_BYTES:
            return False
        with pytest.raises(LateOutputError):
            await append(self.server, self.keys, batch, call=Call(secrets.token_hex(8)))
        if state.truncated_at is None or state.truncated_at < state.end_position:
            self.state = evolve_all(state, [log(TOO_LATE), Fact(FactType.TRUNCATING, NOW)])
        return True

    async def create(self, job: Job) -> None:
        await self.append(decide_creation(job, job.events, NOW))

    async def do(self, command: Command) -> None:
        assert self.state is not None
        try:
            records = decide("j", self.state, command, NOW)
        except ConflictError:
            return
        if records:
            await self.append(records)

    async def check(self) -> None:
        """The hash is the state, the stream has its records, and all that is derived agrees."""
        assert self.state is not None
        found = as_text_map(await self.server.read("HGETALL", self.keys.hash))
        assert from_hash("job", [text.encode() for pair in found.items() for text in pair]).but(mark=None) == self.state
        assert await JobProjections(self.server, LogSource(self.server)).verify(self.keys) == []
        reader = EventReader(self.server, LogSource(self.server))
        events = await reader.read(self.keys, 0, await reader.extent(self.keys))
        assert [event.id for event in events] == list(range(1, self.state.position + 1))


@pytest.mark.parametrize(
    "creation",
    # A matrix of thousands of steps: each second row is enough for `make test`.
    [pytest.param(job, marks=[pytest.mark.slow] if place % 2 else []) for place, job in enumerate(CREATIONS)],
    ids=[f"{job.status}-{job.success}-{job.user_id}" for job in CREATIONS],
)
@pytest.mark.parametrize("first", [None, *COMMANDS], ids=str)
async def test_every_state_and_command_agree(server: Nodes, keys: Keys, creation: Job, first: Command | None) -> None:
    """From each state that a creation and a command make, each command leads both sides to the same state."""
    for command in COMMANDS:
        await server.read("FLUSHALL")
        twin = Twin(server, keys.job("j"))
        await twin.create(creation)
        if first is not None:
            await twin.do(first)
        await twin.do(command)
        await twin.check()


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(st.sampled_from(COMMANDS) | logs | many, max_size=8), creation=st.sampled_from(CREATIONS))
async def test_any_order_of_commands_agrees(server: Nodes, keys: Keys, commands: list[Command], creation: Job) -> None:
    """Whatever is done to a job in whatever order, script and fold agree, sparse index included."""
    await server.read("FLUSHALL")
    twin = Twin(server, keys.job("j"))
    await twin.create(creation)
    for command in commands:
        await twin.do(command)
    await twin.check()


async def made(server: Nodes, keys: JobKeys, *data: str) -> None:
    twin = Twin(server, keys)
    await twin.create(Job(id="j", status="running", created_at=NOW, events=[log(text) for text in data]))


async def send(server: Nodes, keys: JobKeys, data: str, call: Call) -> None:
    assert await append(server, keys, encode_logs([log(data)]), call=call)


async def data_of(server: Nodes, keys: JobKeys) -> list[str | None]:
    reader = EventReader(server, LogSource(server))
    return [event.data for event in await reader.read(keys, 0, await reader.extent(keys))]


async def test_a_repeated_call_has_its_effect_once(server: Nodes, keys: Keys) -> None:
    """The same token and number again is answered, and appends nothing."""
    job = keys.job("j")
    await made(server, job)
    for call in [Call("w", 1), Call("w", 1), Call("w", 2), Call("w", 2)]:
        await send(server, job, f"{call.number}", call)
    assert await data_of(server, job) == ["1", "2"]


@pytest.mark.parametrize("call", [Call("w", 4), Call("w", 1), Call("unknown", 2)])
async def test_a_gap_means_that_acknowledged_events_are_gone(server: Nodes, keys: Keys, call: Call) -> None:
    """A number that doesn't follow the last one known is refused, and nothing is appended."""
    job = keys.job("j")
    await made(server, job)
    await send(server, job, "1", Call("w", 1))
    await send(server, job, "2", Call("w", 2))
    with pytest.raises(AcknowledgedEventsLostError):
        await send(server, job, "x", call)
    assert await data_of(server, job) == ["1", "2"]


async def test_a_closed_token_takes_no_more_calls(server: Nodes, keys: Keys) -> None:
    """A call that was given up and arrives late is refused."""
    job = keys.job("j")
    await made(server, job)
    await send(server, job, "1", Call("old", 1))
    await send(server, job, "2", Call("new", 1, ("old", "older")))
    for ghost in (Call("old", 2), Call("old", 1), Call("older", 1)):
        with pytest.raises(AcknowledgedEventsLostError):
            await send(server, job, "ghost", ghost)
    assert await data_of(server, job) == ["1", "2"]


async def test_tokens_long_unused_are_forgotten(server: Nodes, keys: Keys) -> None:
    """A job that many writers came to keeps the recent ones only."""
    job = keys.job("j")
    await made(server, job)
    hour_ago = (await server.read("TIME"))[0].decode() + "000"
    for number in range(100):
        await server.read("HSET", job.calls, f"old-{number}", f"1 1 {int(hour_ago) - 3_700_000}")
    await send(server, job, "1", Call("new", 1))
    assert await server.read("HLEN", job.calls) == 2
    assert 0 < await server.read("PTTL", job.calls) <= 86_400_000


async def test_a_job_that_is_there_is_not_created_again(server: Nodes, keys: Keys) -> None:
    """Neither where it has a hash, nor where only its stream is left."""
    job = keys.job("j")
    await made(server, job, "a")
    for _ in range(2):
        with pytest.raises(JobAlreadyExistsError):
            await Twin(server, job).create(Job(id="j", status="queued"))
        await server.read("DEL", job.hash)


async def test_a_missing_job_takes_no_events(server: Nodes, keys: Keys) -> None:
    """Only a creation makes a stream; one without its hash asks to be rebuilt."""
    job = keys.job("j")
    with pytest.raises(JobNotFoundError):
        await send(server, job, "1", Call("w"))
    assert await server.read("KEYS", "*") == []
    await made(server, job)
    await server.read("DEL", job.hash)
    with pytest.raises(ProjectionMissingError, match="rebuild"):
        await send(server, job, "1", Call("w"))


async def test_a_change_decided_on_another_version_is_refused(server: Nodes, keys: Keys) -> None:
    """Of two that decided on the same state, the second decides again."""
    job = keys.job("j")
    first, second = Twin(server, job), Twin(server, job)
    await first.create(Job(id="j", status="queued", created_at=NOW))
    assert first.state is not None
    second.state = first.state
    await first.do(UpdateStatus(JobStatus.RUNNING))
    records = decide("j", second.state, UpdateStatus(JobStatus.FAILED), NOW)
    change = plan_change(job, second.state, records)
    assert not await append(server, job, encode_records(records), call=Call("late"), change=change)
    await first.check()


async def test_facts_stand_behind_the_event_that_they_follow(server: Nodes, keys: Keys) -> None:
    """The stream's ids are the design's."""
    job = keys.job("j")
    twin = Twin(server, job)
    await twin.create(Job(id="j", status="queued", created_at=NOW))
    await twin.do(UpdateStatus(JobStatus.RUNNING))
    await twin.do(AppendEvents((log("a"), log("b"))))
    await twin.do(complete(True, explicit=True))
    places = [str(place) for place, _ in await records_of(LogSource(server), job)]
    assert places == ["0-1", "0-2", "1-0", "2-0", "2-1", "3-0"]
