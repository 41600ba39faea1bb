"""The history checker finds every fault that is planted, and nothing where there is none."""

from collections.abc import Iterator

import pytest

from ci_common.models import JobEvent
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError
from tests.history import RULES, Call, History, Log, Outcome, check

ACKNOWLEDGED, UNKNOWN, REFUSED = Outcome.ACKNOWLEDGED, Outcome.UNKNOWN, Outcome.REFUSED
COMPLETE = JobEvent("complete", success=True)


def history_of(*calls: tuple[str, str, Outcome]) -> History:
    """Return a history of calls: the writer, its lines' letters, and how the call ended."""
    history = History()
    for writer, lines, outcome in calls:
        history.begin(writer, lines).outcome = outcome
    return history


def events_of(*texts: str | JobEvent, missing: int = 0) -> list[JobEvent]:
    """Return events as they are read, without the one at a position."""
    events = [text if isinstance(text, JobEvent) else JobEvent("log", text) for text in texts]
    numbered = [JobEvent(event.type, event.data, event.success, id=n) for n, event in enumerate(events, start=1)]
    return [event for event in numbered if event.id != missing]


A_AND_B = (("ann", "a", ACKNOWLEDGED), ("ann", "b", ACKNOWLEDGED))


@pytest.mark.parametrize(
    ("history", "events"),
    [
        (history_of(), []),
        (history_of(*A_AND_B), events_of("a\n", "b\n", COMPLETE)),
        (history_of(*A_AND_B), events_of("a\nb\n")),
        (history_of(*A_AND_B, ("bob", "c", ACKNOWLEDGED)), events_of("c", "a\n", "b")),
        (history_of(("ann", "ab", ACKNOWLEDGED), ("bob", "c", ACKNOWLEDGED)), events_of("c\n", "a\n", "b\n")),
        (history_of(*A_AND_B, ("ann", "cd", UNKNOWN)), events_of("a\n", "b\n")),
        (history_of(*A_AND_B, ("ann", "cd", UNKNOWN)), events_of("a\n", "b\n", "c\n", "d\n")),
        (history_of(*A_AND_B, ("ann", "c", Outcome.OPEN)), events_of("a\n", "b\n", "c\n")),
        (history_of(*A_AND_B, ("ann", "c", REFUSED)), events_of("a\n", "b\n")),
        (history_of(*A_AND_B, ("ann", "c", Outcome.FOUND)), events_of("a\n", "b\n", "c\n")),
        (history_of(*A_AND_B, ("ann", "c", Outcome.ABSENT)), events_of("a\n", "b\n")),
    ],
)
def test_what_agrees_is_not_complained_of(history: History, events: list[JobEvent]) -> None:
    """Every order that the promises allow is fine."""
    assert check(history, events) == []


PLANTED = {
    "lost": (history_of(*A_AND_B), events_of("a\n"), ["'b' of ann is lost: its call was acknowledged"]),
    "lost although it was read": (
        history_of(*A_AND_B, ("ann", "c", Outcome.FOUND)),
        events_of("a\n", "b\n"),
        ["'c' of ann is lost: its call was found after an unknown outcome"],
    ),
    "doubled": (history_of(*A_AND_B), events_of("a\n", "b\n", "b\n"), ["'b' of ann is there 2 times, in events 2, 3"]),
    "unknown and doubled": (
        history_of(("ann", "a", UNKNOWN)),
        events_of("a\n", "a\n"),
        ["'a' of ann is there 2 times, in events 1, 2"],
    ),
    "open and doubled": (
        history_of(("ann", "a", Outcome.OPEN)),
        events_of("a\na\n"),
        ["'a' of ann is there 2 times, in events 1, 1"],
    ),
    "swapped": (
        history_of(*A_AND_B),
        events_of("b\n", "a\n"),
        ["ann sent 'a' before 'b': they are in events 2 and 1"],
    ),
    "swapped in an event": (
        history_of(*A_AND_B),
        events_of("b\na\n"),
        ["ann sent 'a' before 'b': they are in events 1 and 1"],
    ),
    "a ghost after its writer went on": (
        history_of(("ann", "a", UNKNOWN), ("ann", "b", ACKNOWLEDGED)),
        events_of("b\n", "a\n"),
        ["ann sent 'a' before 'b': they are in events 2 and 1"],
    ),
    "a ghost after a read": (
        history_of(("ann", "a", Outcome.ABSENT)),
        events_of("a\n"),
        ["'a' of ann is in event 1: its call was absent after an unknown outcome"],
    ),
    "refused and there": (
        history_of(*A_AND_B, ("ann", "c", REFUSED)),
        events_of("a\n", "b\n", "c\n"),
        ["'c' of ann is in event 3: its call was refused"],
    ),
    "foreign": (history_of(*A_AND_B), events_of("a\n", "b\n", "x\n"), ["event 3: nobody wrote 'x'"]),
    "an empty line": (history_of(*A_AND_B), events_of("a\n\nb\n"), ["event 1: nobody wrote ''"]),
    "a hole": (history_of(*A_AND_B), events_of("a\n", "x\n", "b\n", missing=2), ["event 3 follows event 1"]),
    "a hole at the start": (history_of(*A_AND_B), events_of("x\n", "a\nb\n", missing=1), ["event 2 follows event 0"]),
    "half a step": (
        history_of(("ann", "abc", UNKNOWN)),
        events_of("a\n", "b\n"),
        ["2 of 3 lines of ann are there, from 'a' on"],
    ),
    "a step that others came into": (
        history_of(("ann", "ab", ACKNOWLEDGED), ("bob", "c", ACKNOWLEDGED)),
        events_of("a\n", "c\n", "b\n"),
        ["the lines of ann from 'a' on are apart, in events 1, 3"],
    ),
    "completed twice": (
        history_of(*A_AND_B),
        events_of("a\n", COMPLETE, "b\n", COMPLETE),
        ["the job is completed 2 times, in events 2, 4"],
    ),
}


@pytest.mark.parametrize(("history", "events", "findings"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(history: History, events: list[JobEvent], findings: list[str]) -> None:
    """Each fault is told in a sentence with the writer and the ids, and no other."""
    assert check(history, events) == findings


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, ACKNOWLEDGED), (OutcomeUnknownError("append"), UNKNOWN), (StoreUnavailableError("away"), REFUSED)],
)
def test_a_call_notes_how_it_ended(error: Exception | None, outcome: Outcome) -> None:
    """The error of a call is its outcome."""
    call = History().begin("ann", ["a"])
    with call.under_way():
        if error is not None:
            raise error
    assert call.outcome is outcome


def test_an_error_that_says_nothing_of_the_outcome_is_raised() -> None:
    """What isn't foreseen ends the test, and the call stays open."""
    call = History().begin("ann", ["a"])
    with pytest.raises(KeyError), call.under_way():
        raise KeyError
    assert call.outcome is Outcome.OPEN


def test_a_read_settles_an_unknown_outcome_only() -> None:
    """After it, the lines must be there, or must not come any more."""
    calls = [Call("ann", ("a", "b"), outcome=outcome) for outcome in (UNKNOWN, UNKNOWN, ACKNOWLEDGED)]
    for call, lines in zip(calls, [{"b"}, {"x"}, {"x"}], strict=True):
        call.settle(lines)
    assert [call.outcome for call in calls] == [Outcome.FOUND, Outcome.ABSENT, ACKNOWLEDGED]


def test_a_line_may_not_be_written_twice() -> None:
    """What isn't unique couldn't be told apart; neither in two calls nor in one."""
    history = history_of(*A_AND_B)
    for lines in ("b", "cc"):
        with pytest.raises(ValueError, match="written before"):
            history.begin("bob", lines)


def test_a_suite_may_have_rules_of_its_own() -> None:
    """A rule is a function of the history and the log."""

    def nobody_is_called_bob(history: History, log: Log) -> Iterator[str]:
        yield from (f"{line} is bob's" for call in history.calls if call.writer == "bob" for line in call.lines)

    history = history_of(*A_AND_B, ("bob", "c", ACKNOWLEDGED))
    events = events_of("a\n", "b\n", "c\n")
    assert check(history, events, [*RULES, nobody_is_called_bob]) == ["c is bob's"]
