"""A writer's calls: their tokens and numbers, what closes them, and which acknowledged ones each comes after."""

import asyncio
import re

import pytest

from ci_eventstore.errors import AcknowledgedEventsLostError, OutcomeUnknownError, StoreUnavailableError
from ci_eventstore.events import caller as module
from ci_eventstore.events.caller import TOKEN_SECONDS, Call, JobCaller, Ledger, new_token


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def caller(ledger: Ledger, clock: Clock) -> JobCaller:
    return JobCaller("j", ledger, clock)


def make(caller: JobCaller, count: int = 1) -> Call:
    """Make calls that are acknowledged, and return the last one."""
    call = caller.next_call()
    caller.note_done(call)
    return call if count == 1 else make(caller, count - 1)


def test_calls_are_numbered_under_one_token(caller: JobCaller) -> None:
    """As long as they succeed, the number alone says what came before."""
    calls = [make(caller) for _ in range(3)]
    assert calls == [Call(calls[0].token, number) for number in (1, 2, 3)]


def test_tokens_are_words_of_an_archive() -> None:
    """Twelve digits of base 32, since an incarnation is one: without capitals, which not every folder tells apart."""
    tokens = [new_token() for _ in range(2000)]
    assert len({*tokens}) == 2000
    assert all(re.fullmatch("[a-z2-7]{12}", token) for token in tokens)
    assert len(set("".join(tokens))) == 32


def test_writers_have_tokens_of_their_own(ledger: Ledger, clock: Clock) -> None:
    """Nobody's call is taken for that of another."""
    tokens = {make(JobCaller("j", ledger, clock)).token for _ in range(100)}
    assert len(tokens) == 100


def test_a_writer_that_was_silent_begins_anew(caller: JobCaller, clock: Clock) -> None:
    """The server may have let go of the token: nothing says that it has to be there still."""
    first = make(caller, 2)
    clock.now += TOKEN_SECONDS
    assert make(caller) == Call(first.token, 3)
    clock.now += TOKEN_SECONDS + 1
    assert caller.last_call() is None
    call = caller.next_call()
    assert (call.token != first.token, call.number, call.after) == (True, 1, ())


def test_calls_that_the_store_never_saw_keep_no_token_alive(caller: JobCaller, clock: Clock) -> None:
    """Only what is acknowledged shows that the server knows the token."""
    make(caller)
    for _ in range(3):
        clock.now += TOKEN_SECONDS / 2
        caller.next_call()
        caller.note_unmade()
    assert caller.next_call().after == ()


@pytest.mark.parametrize("error", [OutcomeUnknownError("append"), asyncio.CancelledError()])
def test_an_unknown_outcome_is_closed_by_the_next_call_that_succeeds(caller: JobCaller, error: BaseException) -> None:
    """Until then each call closes it, under a token of its own."""
    done = make(caller)
    first = caller.next_call()
    caller.note_error(first, error)
    second = caller.next_call()
    caller.note_error(second, error)
    third = make(caller)
    assert (second.closes, third.closes) == ((first.token,), (first.token, second.token))
    assert len({first.token, second.token, third.token}) == 3
    assert (second.after, third.after) == (((done.token, 1),),) * 2
    assert caller.next_call() == Call(third.token, 2)


def test_a_refused_call_closes_nothing_and_forgets_nothing(caller: JobCaller) -> None:
    """Nothing was changed, so nothing can come late; the last acknowledged call has to be there all the same."""
    done = make(caller, 5)
    caller.note_error(caller.next_call(), StoreUnavailableError("away"))
    call = caller.next_call()
    assert (call.number, call.closes, call.after) == (1, (), ((done.token, 5),))
    assert not caller.has_unknown


def test_an_unmade_call_forgets_nothing(caller: JobCaller) -> None:
    """A command that decided to do nothing leaves no trace at the server."""
    done = make(caller)
    caller.next_call()
    caller.note_unmade()
    call = caller.next_call()
    assert (call.number, call.after) == (1, ((done.token, 1),))


def test_a_creation_comes_after_nothing(ledger: Ledger, caller: JobCaller) -> None:
    """A job that was lost may be created again; an unknown outcome before that is closed all the same."""
    make(JobCaller("j", ledger, lambda: 1000.0))
    done = make(caller)
    unknown = caller.next_call()
    caller.note_error(unknown, OutcomeUnknownError("append"))
    caller.begin()
    call = caller.next_call()
    assert (call.token != done.token, call.number, call.closes, call.after) == (True, 1, (unknown.token,), ())


def test_a_loss_is_told_once(caller: JobCaller) -> None:
    """After it the writer comes after nothing any more."""
    make(caller, 2)
    call = caller.next_call()
    caller.note_error(call, AcknowledgedEventsLostError("j"))
    again = caller.next_call()
    assert (again.token != call.token, again.number, again.closes, again.after) == (True, 1, (), ())
    assert caller.last_call() is None


def test_a_writer_comes_after_the_others_of_its_job(ledger: Ledger, clock: Clock) -> None:
    """What one of them has written last has to be there when another one goes on; then that alone tells of both."""
    log, lane, third = (JobCaller("j", ledger, clock) for _ in range(3))
    elsewhere = JobCaller("k", ledger, clock)
    written, _ = make(log, 3), make(elsewhere)
    first = lane.next_call()
    assert first.after == ((written.token, 3),)
    lane.note_done(first)
    assert lane.next_call().after == ()
    assert third.next_call().after == ((first.token, 1),)
    assert log.next_call().after == ((first.token, 1),)


def test_writers_that_write_at_once_are_both_come_after(ledger: Ledger, clock: Clock) -> None:
    """A call that was on its way when another one succeeded doesn't come after that one."""
    log, lane, third = (JobCaller("j", ledger, clock) for _ in range(3))
    slow = lane.next_call()
    quick = make(log)
    lane.note_done(slow)
    assert set(third.next_call().after) == {(slow.token, 1), (quick.token, 1)}
    before = third.next_call()
    make(log)
    third.note_done(before)
    assert set(lane.next_call().after) == {(quick.token, 2), (before.token, before.number)}


def test_a_loss_that_another_writer_was_told_is_its_own_affair(ledger: Ledger, clock: Clock) -> None:
    """The writer whose call was lost hears of it from its own number, all others no more."""
    log, lane, third = (JobCaller("j", ledger, clock) for _ in range(3))
    lost = make(log)
    lane.note_error(lane.next_call(), AcknowledgedEventsLostError("j"))
    assert third.next_call().after == ()
    assert log.next_call() == Call(lost.token, 2)


def test_what_is_old_is_not_come_after(ledger: Ledger, clock: Clock) -> None:
    """The server may have let go of another writer's token, too."""
    make(JobCaller("j", ledger, clock))
    clock.now += TOKEN_SECONDS + 1
    assert JobCaller("j", ledger, clock).next_call().after == ()


def test_a_job_that_is_done_with_is_forgotten(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger keeps the jobs written to last, and none that was closed."""
    monkeypatch.setattr(module, "JOBS_KEPT", 3)
    callers = [JobCaller(f"job-{number}", ledger, clock) for number in range(4)]
    for caller in [*callers, callers[1]]:
        make(caller)
    kept = [number for number in range(4) if ledger.last(f"job-{number}", clock.now)]
    assert kept == [1, 2, 3]
    ledger.close("job-2")
    assert not ledger.last("job-2", clock.now)
