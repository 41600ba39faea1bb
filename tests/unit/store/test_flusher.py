"""Group commit: order, batches, cancellation, and what an unknown outcome leaves behind. The sending is faked."""

import asyncio

import pytest

from ci_common.models import JobEvent, utc_now
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import BATCH_BYTES, BATCH_EVENTS, Batch, decode_event, encode_batches, encode_logs
from ci_eventstore.events.lanes import Flusher
from tests.waiting import wait_until


class FakeStore:
    """Takes batches; can be held, and told to fail."""

    def __init__(self) -> None:
        self.batches: list[list[str | None]] = []
        self.calls: list[Call] = []
        self.errors: list[Exception | None] = []
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, job_id: str, batch: Batch, call: Call, claim: str) -> None:
        self.calls.append(call)
        await self.open.wait()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.batches.append([decode_event(payload, 1).data for payload in batch.payloads])


def logs(*data: str) -> Batch:
    return encode_logs([JobEvent("log", text, timestamp=utc_now()) for text in data])


@pytest.fixture
async def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def flusher(store: FakeStore) -> Flusher:
    return Flusher(store.send)


def cancel_senders(flusher: Flusher) -> None:
    for lane in flusher._lanes.values():
        if lane.sender is not None:
            lane.sender.cancel()


async def append(flusher: Flusher, job_id: str, batch: Batch) -> None:
    await flusher.lane(job_id).put(batch)


async def begin(store: FakeStore, flusher: Flusher, *data: str) -> list[asyncio.Task[None]]:
    """Hold the store with one append on its way, and let others wait behind it."""
    store.open.clear()
    tasks = []
    for text in ("first", *data):
        tasks.append(asyncio.create_task(append(flusher, "j", logs(text))))
        await wait_until(lambda: bool(store.calls))
    return tasks


async def test_what_waits_goes_out_together_in_order(store: FakeStore, flusher: Flusher) -> None:
    """While a call is on its way, further appends wait, and make one call."""
    tasks = await begin(store, flusher, *"abcdef")
    store.open.set()
    await asyncio.gather(*tasks)
    assert store.batches == [["first"], list("abcdef")]
    assert [(call.number, call.token) for call in store.calls] == [(1, store.calls[0].token), (2, store.calls[0].token)]


async def test_jobs_dont_wait_for_each_other(store: FakeStore, flusher: Flusher) -> None:
    """A call of one job on its way keeps no other job back."""
    [first] = await begin(store, flusher)
    other = asyncio.create_task(append(flusher, "other", logs("x")))
    await wait_until(lambda: len(store.calls) == 2)
    store.open.set()
    await asyncio.gather(first, other)
    assert sorted(store.batches) == [["first"], ["x"]]


async def test_a_batch_has_bounds(store: FakeStore, flusher: Flusher) -> None:
    """Neither many small events nor a few big ones make a call too big."""
    tasks = await begin(store, flusher)
    tasks += [asyncio.create_task(append(flusher, "j", logs("x"))) for _ in range(BATCH_EVENTS + 1)]
    half = "y" * (BATCH_BYTES // 2 + 1)
    tasks += [asyncio.create_task(append(flusher, "j", logs(half))) for _ in range(2)]
    await asyncio.sleep(0)
    store.open.set()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in store.batches] == [1, BATCH_EVENTS, 2, 1]


def test_many_events_are_several_batches() -> None:
    """A long list is cut by number and by size; a single event is never cut."""
    texts = ["a"] * 2500 + ["b" * 700_000] * 3 + ["c" * 3_000_000]
    events = [JobEvent("log", text, timestamp=utc_now()) for text in texts]
    assert [len(batch.payloads) for batch in encode_batches(events)] == [1000, 1000, 501, 1, 1, 1]
    assert [batch.bytes for batch in encode_batches(events)][-1] == 3_000_000


def test_batches_are_cut_by_bytes() -> None:
    """A text counts with its bytes, of which it may have more than characters."""
    events = [JobEvent("log", "é" * 350_000, timestamp=utc_now()) for _ in range(3)]
    assert [batch.bytes for batch in encode_batches(events)] == [700_000] * 3


async def test_a_cancelled_waiter_takes_only_its_own_part_out(store: FakeStore, flusher: Flusher) -> None:
    """What hasn't left yet stays out; what has is stored; the others don't notice."""
    tasks = await begin(store, flusher, *"abc")
    tasks[0].cancel()
    tasks[2].cancel()
    store.open.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in done] == [asyncio.CancelledError, type(None), asyncio.CancelledError, type(None)]
    assert store.batches == [["first"], ["a", "c"]]


async def test_a_command_stays_behind_earlier_lines(store: FakeStore, flusher: Flusher) -> None:
    """Status changes and completions run in their place among the appends."""
    seen: list[int] = []

    async def command(call: Call) -> bool:
        seen.append(len(store.batches))
        return True

    tasks = await begin(store, flusher, "a")
    tasks.append(asyncio.create_task(flusher.lane("j").do(command)))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(append(flusher, "j", logs("b"))))
    await asyncio.sleep(0)
    store.open.set()
    await asyncio.gather(*tasks)
    assert seen == [2]
    assert store.batches == [["first"], ["a"], ["b"]]


async def test_an_error_reaches_those_of_its_batch_alone(store: FakeStore, flusher: Flusher) -> None:
    """Who waits behind a call that failed goes on, under a new token."""
    tasks = await begin(store, flusher, "a")
    store.errors = [StoreUnavailableError("away")]
    store.open.set()
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, StoreUnavailableError)
    assert second is None
    assert store.calls[1].token != store.calls[0].token
    assert [(call.number, call.closes) for call in store.calls] == [(1, ()), (1, ())]


async def test_an_unknown_outcome_is_closed_by_the_next_call(store: FakeStore, flusher: Flusher) -> None:
    """Tokens that may have a call on its way are closed until a call has gone through, and then forgotten."""
    store.errors = [OutcomeUnknownError("append"), OutcomeUnknownError("append")]
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            await append(flusher, "j", logs("x"))
    await append(flusher, "j", logs("y"))
    await append(flusher, "j", logs("z"))
    first, second, third, fourth = store.calls
    assert [second.closes, third.closes, fourth.closes] == [(first.token,), (first.token, second.token), ()]


async def test_a_commands_unknown_outcome_is_closed_too(store: FakeStore, flusher: Flusher) -> None:
    """A command that decided to do nothing has closed nothing."""
    calls: list[Call] = []

    async def fail(call: Call) -> bool:
        calls.append(call)
        raise OutcomeUnknownError("append")

    async def do_nothing(call: Call) -> bool:
        return False

    with pytest.raises(OutcomeUnknownError):
        await flusher.lane("j").do(fail)
    await flusher.lane("j").do(do_nothing)
    await append(flusher, "j", logs("x"))
    assert store.calls[0].closes == (calls[0].token,)


async def test_draining_waits_for_what_waits(store: FakeStore, flusher: Flusher) -> None:
    """Closing a repository sends what was given to it."""
    await begin(store, flusher, "a", "b")
    drained = asyncio.create_task(flusher.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    store.open.set()
    await drained
    assert store.batches == [["first"], ["a", "b"]]


async def test_idle_lanes_are_let_go(flusher: Flusher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that writes to many jobs, one after the other, doesn't remember all of them."""
    monkeypatch.setattr("ci_eventstore.events.lanes.LANES_KEPT", 10)
    for number in range(100):
        await append(flusher, f"job-{number}", logs("x"))
    assert len(flusher._lanes) <= 10


class HeldCommand:
    """A command that is on its way until it is let go."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.open = asyncio.Event()

    async def __call__(self, call: Call) -> bool:
        self.calls.append(call)
        await self.open.wait()
        return True


async def test_what_comes_behind_a_command_waits_for_it(store: FakeStore, flusher: Flusher) -> None:
    """Though a command on a job to which nothing else is written runs in its caller's task."""
    command, second = HeldCommand(), HeldCommand()
    second.open.set()
    tasks = [asyncio.create_task(flusher.lane("j").do(command))]
    await wait_until(lambda: bool(command.calls))
    assert flusher.is_busy("j")
    tasks.append(asyncio.create_task(append(flusher, "j", logs("a"))))
    tasks.append(asyncio.create_task(flusher.lane("j").do(second)))
    other = asyncio.create_task(append(flusher, "other", logs("b")))
    await other
    assert (store.batches, second.calls) == ([["b"]], [])
    command.open.set()
    await asyncio.gather(*tasks)
    assert store.batches == [["b"], ["a"]]
    assert not flusher.is_busy("j")


async def test_a_command_that_is_cancelled_on_its_way_comes_behind_nothing(store: FakeStore, flusher: Flusher) -> None:
    """It may still take effect, so its token is closed by what comes next, which doesn't wait for it."""
    command = HeldCommand()
    task = asyncio.create_task(flusher.lane("j").do(command))
    await wait_until(lambda: bool(command.calls))
    behind = asyncio.create_task(append(flusher, "j", logs("a")))
    await asyncio.sleep(0)
    task.cancel()
    await behind
    assert task.cancelled()
    assert store.calls[0].closes == (command.calls[0].token,)


async def test_draining_waits_for_commands(store: FakeStore, flusher: Flusher) -> None:
    """Several, and what has come behind them; whoever waits may be cancelled."""
    commands = [HeldCommand(), HeldCommand()]
    tasks = [asyncio.create_task(flusher.lane(f"j{place}").do(command)) for place, command in enumerate(commands)]
    await wait_until(lambda: all(command.calls for command in commands))
    tasks.append(asyncio.create_task(append(flusher, "j0", logs("a"))))
    impatient, drained = (asyncio.create_task(flusher.drain()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    commands[0].open.set()
    await tasks[0]
    await asyncio.sleep(0)
    assert not drained.done()
    commands[1].open.set()
    await drained
    assert store.batches == [["a"]]
    await asyncio.gather(*tasks)


async def test_lanes_of_unknown_outcome_are_kept_for_a_while(
    store: FakeStore, flusher: Flusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for ever: a server whose clients go away while their jobs are created would remember all of these."""
    monkeypatch.setattr("ci_eventstore.events.lanes.LANES_KEPT", 10)

    async def fail(call: Call) -> bool:
        raise OutcomeUnknownError("create")

    for number in range(50):
        with pytest.raises(OutcomeUnknownError):
            await flusher.lane(f"job-{number}").do(fail)
    assert len(flusher._lanes) == 50
    monkeypatch.setattr("ci_eventstore.events.lanes.TOKEN_SECONDS", -1.0)
    # They aren't all looked at for each new one.
    for number in range(31):
        await append(flusher, f"new-{number}", logs("x"))
    assert len(flusher._lanes) == 1


async def test_a_sender_that_is_cancelled_lets_nobody_wait(store: FakeStore, flusher: Flusher) -> None:
    """As at the end of an event loop; who comes later has a new one, which closes what may be on its way."""
    tasks = await begin(store, flusher, "a", "b")
    cancel_senders(flusher)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in done] == [asyncio.CancelledError] * 3
    store.open.set()
    await append(flusher, "j", logs("c"))
    assert store.batches == [["c"]]
    assert store.calls[1].closes == (store.calls[0].token,)


async def test_an_error_that_nobody_thought_of_reaches_those_who_wait(store: FakeStore, flusher: Flusher) -> None:
    """It belongs to the callers of its batch, and the lane goes on."""
    store.errors = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await append(flusher, "j", logs("a"))
    await append(flusher, "j", logs("b"))
    assert store.batches == [["b"]]


async def test_a_creation_comes_after_nothing(store: FakeStore, flusher: Flusher) -> None:
    """What the store has lost of an earlier job of that id doesn't keep it from being created."""
    await append(flusher, "j", logs("a"))
    creation = HeldCommand()
    creation.open.set()
    await flusher.create("j", creation)
    [first], [second] = store.calls, creation.calls
    assert (second.token != first.token, second.number, second.after) == (True, 1, ())


async def test_a_creation_that_the_store_has_no_call_of_leaves_no_lane(flusher: Flusher) -> None:
    """Most jobs that a process creates it never writes to."""

    async def create(call: Call) -> bool:
        return False

    await flusher.create("j", create)
    assert flusher._lanes == {}


async def test_what_comes_behind_a_creation_waits_for_it(store: FakeStore, flusher: Flusher) -> None:
    """And its lane stays until that is stored."""
    creation = HeldCommand()
    tasks = [asyncio.create_task(flusher.create("j", creation))]
    await wait_until(lambda: bool(creation.calls))
    tasks.append(asyncio.create_task(append(flusher, "j", logs("a"))))
    await asyncio.sleep(0)
    assert (store.batches, flusher.is_busy("j")) == ([], True)
    creation.open.set()
    await asyncio.gather(*tasks)
    assert store.batches == [["a"]]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_another_flusher_goes_on_after_this_one(store: FakeStore, flusher: Flusher, is_cancelled: bool) -> None:
    """A call whose event loop ended under it is closed by the next flusher's first call to that job."""
    await append(flusher, "done", logs("a"))
    [done] = store.calls
    store.open.clear()
    task = asyncio.create_task(append(flusher, "j", logs("first")))
    await wait_until(lambda: len(store.calls) == 2)
    left = store.calls[1]
    if is_cancelled:
        cancel_senders(flusher)
        await asyncio.wait({task})
    store = FakeStore()
    later = Flusher(store.send, flusher)
    await append(later, "j", logs("b"))
    assert store.calls[0].closes == (left.token,)
    assert store.calls[0].token != left.token
    await append(later, "done", logs("c"))
    assert store.calls[1].after == ((done.token, 1),)
    task.cancel()
    await asyncio.wait({task})
